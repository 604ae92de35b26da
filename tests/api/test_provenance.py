"""What a run's provenance says, and when git is asked for it."""

from __future__ import annotations

import importlib.metadata
import json
import mmap
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from repositories import commit, git, repository
from support import Home, execute, run_python, submit, wait_until

import localrun
from localrun.api.provenance import compare, unchanged
from localrun.api.provenance import git as asking
from localrun.api.provenance.gather import Gathering
from localrun.api.provenance.packages import installed


@pytest.fixture(autouse=True)
def _knows_nothing() -> None:
    asking._known.clear()


@pytest.fixture
def root(tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit, in which we are."""
    root = repository(tmp_path / "project", one="1\n", two="2\n")
    monkeypatch.chdir(root)
    return root


def said(cwd: Path | None = None) -> dict[str, Any]:
    """What git says for the provenance of a run that is submitted now."""
    with Gathering(cwd and str(cwd)) as gathering:
        found: dict[str, Any] = gathering.mapping()["git"]
    return found


class TestOfEveryKindOfRun:
    def test_a_command(self, root: Path, home: Home) -> None:
        (root / "one.txt").write_text("changed\n")
        (root / "new.txt").write_text("new\n")
        run = execute("run", "true")
        found = run.provenance
        assert found["git"]["commit"] == git(root, "rev-parse", "HEAD").strip()
        assert (found["git"]["root"], found["git"]["folder"], found["git"]["branch"]) == (str(root), ".", "main")
        assert "\n-1\n+changed\n" in found["git"]["diff"]
        assert found["git"]["diff_size"] == len(found["git"]["diff"])
        assert (found["git"]["untracked"], found["git"]["problem"]) == (["new.txt"], None)
        assert (found["python"]["executable"], found["localrun"]) == (sys.executable, localrun.__version__)
        assert found["argv"] == sys.argv
        assert found["machine"]["host"] == os.uname().nodename
        assert found["machine"]["cpus"] == os.cpu_count()
        assert (found["gpus"], found["driver"], found["image_id"]) == ([], None, None)
        assert oct((home.runs / "run" / "provenance.json").stat().st_mode & 0o777) == "0o600"

    def test_a_function_and_its_clone(self, root: Path) -> None:
        @localrun.function
        def double(number: int) -> int:
            return 2 * number

        run = double.run(2, run_name="function")
        assert run.result(60) == 4
        assert run.provenance["git"]["branch"] == "main"
        git(root, "checkout", "--quiet", "-b", "other")
        assert run.clone(name="again").wait(60).provenance["git"]["branch"] == "other"
        assert run.refresh().provenance["git"]["branch"] == "main"

    def test_an_interactive_run(self, root: Path) -> None:
        run = localrun.create_interactive_run({"name": "shell"}, seconds=0.1).wait(60)
        assert run.provenance["git"]["branch"] == "main"

    def test_a_traced_block(self, root: Path) -> None:
        with localrun.run(name="block") as run:
            assert run.provenance["git"]["branch"] == "main"
            (root / "one.txt").write_text("changed\n")
        assert localrun.get_run("block").provenance["git"]["diff"] == ""

    def test_its_working_folder_says_which_repository(self, root: Path, tmp_path: Path) -> None:
        other = repository(tmp_path / "other", three="3\n")
        (other / "inside").mkdir()
        found = execute("run", "true", cwd=str(other / "inside")).provenance["git"]
        assert (found["root"], found["folder"]) == (str(other), "inside")

    def test_it_is_there_before_the_run_starts(self, root: Path) -> None:
        """What the run itself changes is not in it."""
        run = execute("run", "test -s $LOCALRUN_RUN_DIR/provenance.json && echo 3 > one.txt")
        assert (run.exit_code, run.provenance["git"]["diff"]) == (0, "")

    def test_a_run_recorded_without_it(self, root: Path, home: Home) -> None:
        run = execute("run", "true")
        (home.runs / "run" / "provenance.json").unlink()
        assert run.provenance == {"gpus": [], "driver": None, "image_id": None}


class TestGit:
    def test_the_diff_can_be_applied(self, root: Path) -> None:
        (root / "data.bin").write_bytes(bytes(range(256)) * 10)
        (root / "latin.txt").write_bytes("pâté\n".encode("latin-1"))
        (root / "old name").write_text("x\n")
        commit(root)
        (root / "data.bin").write_bytes(bytes(reversed(range(256))) * 10)
        (root / "latin.txt").write_bytes("café\n".encode("latin-1"))
        (root / "one.txt").unlink()
        git(root, "mv", "old name", "new name")
        (root / "two.txt").chmod(0o755)
        (root / "staged.txt").write_text("staged\n")
        git(root, "add", "staged.txt")
        diff = said()["diff"].encode("utf-8", "surrogateescape")
        there = git(root, "status", "--porcelain").splitlines()
        git(root, "reset", "--quiet", "--hard")
        (root.parent / "diff").write_bytes(diff)
        git(root, "apply", "--index", str(root.parent / "diff"))
        assert sorted(line.split()[1:] for line in git(root, "status", "--porcelain").splitlines()) == sorted(
            line.split()[1:] for line in there
        )
        assert (root / "data.bin").read_bytes() == bytes(reversed(range(256))) * 10
        assert (root / "latin.txt").read_bytes() == "café\n".encode("latin-1")

    def test_settings_do_not_change_the_diff(self, root: Path) -> None:
        (root / "one.txt").write_text("changed\n")
        plain = said()
        for name, value in {
            "diff.noprefix": "true", "diff.mnemonicPrefix": "true", "color.ui": "always", "diff.relative": "true",
            "status.showUntrackedFiles": "no", "diff.context": "9",
        }.items():  # fmt: skip
            git(root, "config", name, value)
        (root / "new").touch()
        assert said() == plain | {"untracked": ["new"]}

    def test_nothing_that_a_repository_names_is_executed(self, root: Path, tmp_path: Path) -> None:
        trap = tmp_path / "trap"
        trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/executed\ncat $1\n")
        trap.chmod(0o755)
        (root / ".gitattributes").write_text("*.txt diff=trap\n")
        commit(root)
        for name in ("core.fsmonitor", "core.pager", "diff.external", "diff.trap.command", "diff.trap.textconv"):
            git(root, "config", name, str(trap))
        for hook in ("post-index-change", "pre-commit"):
            shutil.copy(trap, root / ".git" / "hooks" / hook)
        (root / "one.txt").write_text("changed\n")
        assert "+changed" in said()["diff"]
        assert not (tmp_path / "executed").exists()

    def test_nothing_in_it_is_written(self, root: Path) -> None:
        os.utime(root / "one.txt")  # the index is stale: git would refresh it
        before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
        assert said()["diff"] == ""
        assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before

    def test_variables_of_a_git_that_we_are_in_lead_nowhere(
        self, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = repository(tmp_path / "other", three="3\n")
        for name, value in {
            "GIT_DIR": f"{other}/.git",
            "GIT_WORK_TREE": str(other),
            "GIT_EXTERNAL_DIFF": "false",
        }.items():
            monkeypatch.setenv(name, value)
        assert said()["root"] == str(root)
        assert said()["commit"] == git(root, "rev-parse", "HEAD").strip()

    def test_no_repository(self, home: Home, tmp_path: Path) -> None:
        found = said(tmp_path)
        assert (found["root"], found["commit"], found["folder"]) == (None, None, None)
        assert found["problem"] == "no repository"
        assert execute("run", "true", cwd=str(tmp_path)).provenance["git"] == found

    def test_no_commit_yet(self, home: Home, tmp_path: Path) -> None:
        root = repository(tmp_path / "new")
        (root / "file").touch()
        found = said(root)
        assert (found["commit"], found["branch"], found["diff"]) == (None, "main", None)
        assert (found["untracked"], found["problem"]) == (["file"], "no commit yet")

    def test_a_detached_head(self, root: Path) -> None:
        git(root, "checkout", "--quiet", "--detach")
        assert said()["branch"] is None

    def test_a_further_working_tree(self, root: Path, tmp_path: Path) -> None:
        git(root, "worktree", "add", "--quiet", "-b", "side", str(tmp_path / "side"))
        (tmp_path / "side" / "one.txt").write_text("side\n")
        found = said(tmp_path / "side")
        assert (found["root"], found["branch"]) == (str(tmp_path / "side"), "side")
        assert "+side" in found["diff"]

    def test_by_way_of_a_link(self, root: Path, tmp_path: Path) -> None:
        (root / "inside").mkdir()
        (tmp_path / "link").symlink_to(root / "inside")
        assert (said(tmp_path / "link")["root"], said(tmp_path / "link")["folder"]) == (str(root), "inside")

    def test_git_is_not_installed(self, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert (said()["problem"], said()["root"]) == ("git is not installed", str(root))

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
    def test_a_repository_of_somebody_else(self, root: Path) -> None:
        for path in (root, root / ".git"):
            os.chown(path, 12345, 12345)
        assert said()["problem"] == "git status refuses this repository (exit code 128)"
        assert execute("run", "true").provenance["git"]["commit"] is None

    def test_a_large_diff_is_left_out(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(asking, "LARGEST_DIFF", 100_000)
        (root / "one.txt").write_text("line\n" * 30_000)
        found = said()
        assert found["diff"] is None
        assert found["diff_size"] > 150_000

    def test_a_git_that_hangs_is_given_up_once(
        self, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "bin").mkdir()
        program = tmp_path / "bin" / "git"
        program.write_text(f"#!/bin/sh\necho $$ >> {tmp_path}/pids\nexec sleep 1000\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
        monkeypatch.setattr(asking, "TIMEOUT_S", 0.3)
        assert [said()["problem"] for _ in range(3)] == ["git status took more than 0.3 s"] * 3
        (pid,) = (tmp_path / "pids").read_text().split()
        wait_until(lambda: not os.path.exists(f"/proc/{pid}"), what="it was killed and collected")

    def test_many_untracked_files(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(asking, "MOST_UNTRACKED", 2)
        for name in "abc":
            (root / name).touch()
        assert said()["untracked"] == ["a", "b", "… and 1 more"]

    def test_a_submission_that_fails_leaves_no_process(self, root: Path) -> None:
        with pytest.raises(localrun.RunConfigError):
            submit("run", "true", cpus=10_000)
        children = Path(f"/proc/self/task/{os.getpid()}/children")
        wait_until(lambda: not [pid for pid in children.read_text().split() if _is_git(pid)])

    @pytest.mark.parametrize(
        "handler", [signal.SIG_IGN, lambda *_: os.waitpid(-1, os.WNOHANG)], ids=["ignored", "handled"]
    )
    def test_children_that_somebody_else_collects(self, root: Path, handler: Any) -> None:
        before = signal.signal(signal.SIGCHLD, handler)
        try:
            assert said()["branch"] == "main"
        finally:
            signal.signal(signal.SIGCHLD, before)


def _is_git(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == "git"
    except OSError:
        return False


class TestAskedAgain:
    """Git is asked again when the answer could be another, and only then."""

    @pytest.fixture(params=["told", "looked-at"])
    def asked(self, request: pytest.FixtureRequest, root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
        """What git was asked, in a process that knows the repository as it was a moment ago.

        Changes are told by the kernel, or, as on a remote file system, looked for.
        """
        if request.param == "looked-at":
            monkeypatch.setattr(unchanged, "_LOCAL", set())
        asked: list[str] = []
        start = asking._Process.__init__

        def counted(self: Any, root: str, *words: str) -> None:
            asked.append(words[0])
            start(self, root, *words)

        monkeypatch.setattr(asking._Process, "__init__", counted)
        (root / "inside").mkdir()
        (root / "inside" / "three.txt").write_text("3\n")
        (root / ".gitignore").write_text("ignored\n")
        commit(root)
        _let_the_clock_tick(root)
        said()
        said()
        assert asked == ["status", "status", "ls-files"]
        evidence = asking._known[str(root)].evidence
        assert evidence is not None and (evidence._watch is not None) == (request.param == "told")
        asked.clear()
        yield asked

    def test_not_if_nothing_changed(self, root: Path, asked: list[str]) -> None:
        first = said()
        (root.parent / "elsewhere").touch()
        assert said() == first
        assert asked == []

    @pytest.mark.parametrize(
        "change",
        [
            lambda root: (root / "one.txt").write_text("9\n"),
            lambda root: _write_in_place(root / "inside" / "three.txt"),
            lambda root: (root / "two.txt").unlink(),
            lambda root: (root / "inside" / "new.txt").touch(),
            lambda root: (root / "inside" / "three.txt").chmod(0o755),
            lambda root: git(root, "commit", "--quiet", "--allow-empty", "--message", "empty"),
            lambda root: git(root, "checkout", "--quiet", "-b", "other"),
            lambda root: git(root, "rm", "--quiet", "--cached", "one.txt"),
            lambda root: (root / ".gitignore").write_text(""),
            lambda root: git(root, "pack-refs", "--all"),
            lambda root: git(root, "config", "core.fileMode", "false"),
            lambda root: _write_by_mapping(root / "one.txt"),
            lambda root: _exchange(root),
        ],
        ids=[
            "written", "same-size-and-time", "removed", "untracked", "mode", "commit", "branch", "index", "ignore",
            "packed", "settings", "mapped", "exchanged",
        ],
    )  # fmt: skip
    def test_if_it_could_be_another(self, root: Path, asked: list[str], change: Callable[[Path], object]) -> None:
        change(root)
        found = said(root)
        assert asked[:2] == ["status", "ls-files"]
        asking._known.clear()
        assert said(root) == found

    def test_what_changes_nothing_is_looked_into(self, root: Path, asked: list[str]) -> None:
        (root / "ignored").touch()
        said()
        _let_the_clock_tick(root)
        first = said()
        asked.clear()
        (root / "ignored").write_text("more")
        assert [said(), said()] == [first] * 2
        assert asked == []

    def test_a_forked_child_asks_for_itself(self, root: Path, asked: list[str]) -> None:
        pid = os.fork()
        if pid == 0:
            os._exit(0 if said()["branch"] == "main" and "status" in asked and "ls-files" not in asked else 1)
        (root / "one.txt").write_text("changed\n")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert "+changed" in said()["diff"]

    def test_files_with_other_names_elsewhere_are_looked_at(self, root: Path, asked: list[str]) -> None:
        os.link(root / "one.txt", root.parent / "other-name")
        asking._known.clear()
        _let_the_clock_tick(root)
        assert [said()["diff"] for _ in range(3)] == [""] * 3
        (root.parent / "other-name").write_text("changed\n")
        assert "+changed" in said()["diff"]

    def test_a_change_just_before_it_is_looked_at_twice(self, root: Path, asked: list[str]) -> None:
        """The kernel's times are too coarse to tell whether git saw it."""
        (root / "one.txt").write_text("a\n")
        said()
        asked.clear()
        said()
        assert asked[:2] == ["status", "ls-files"]

    def test_submodules_are_asked_about_each_time(self, root: Path, tmp_path: Path, asked: list[str]) -> None:
        other = repository(tmp_path / "other", three="3\n")
        git(root, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(other), "sub")
        commit(root)
        said()
        _let_the_clock_tick(root)
        assert said()["diff"] == ""
        git(root / "sub", "commit", "--quiet", "--allow-empty", "--message", "empty")
        assert "Subproject commit" in said()["diff"]


def _let_the_clock_tick(root: Path) -> None:
    """Wait until a change now would be told from those before by its time."""
    latest = max(path.lstat().st_ctime_ns for path in [root, *root.rglob("*")])
    wait_until(lambda: time.time_ns() > latest + 2 * asking._TICK_NS)


def _write_in_place(path: Path) -> None:
    before = path.stat()
    path.write_text("x\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _write_by_mapping(path: Path) -> None:
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[0:1] = b"m"
        mapped.flush()


def _exchange(root: Path) -> None:
    """Put another repository in this one's place."""
    root.rename(root.parent / "moved")
    repository(root, one="other\n")


class TestSecrets:
    def test_values_are_not_in_it(self, root: Path, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        localrun.create_secret(localrun.Secret("token", "environment", "tops3cret", key="TOKEN"))
        (root / "one.txt").write_text("password: tops3cret\n")
        (root / "tops3cret.txt").touch()
        monkeypatch.setattr(sys, "argv", ["program", "--password=tops3cret", "--env", "KEY=hidden-value"])
        execute("run", "true", env_variables={"KEY": "hidden-value"})
        text = (home.runs / "run" / "provenance.json").read_text()
        assert "tops3cret" not in text and "hidden-value" not in text
        found = json.loads(text)
        assert found["argv"] == ["program", "--password=***", "--env", "KEY=***"]
        assert (found["git"]["masked"], found["git"]["untracked"]) == (True, ["***.txt"])
        assert "+password: ***" in found["git"]["diff"]

    def test_one_made_after_the_first_submission_is_hidden_too(self, root: Path) -> None:
        (root / "one.txt").write_text("password: tops3cret\n")
        _let_the_clock_tick(root)
        assert all("tops3cret" in said()["diff"] for _ in range(3))
        localrun.create_secret(localrun.Secret("token", "environment", "tops3cret", key="TOKEN"))
        assert "tops3cret" not in said()["diff"]


class TestPackages:
    def test_as_the_standard_library_lists_them(self) -> None:
        for name in ("cloudpickle", "numpy", "pytest", "localrun"):
            assert installed()[name] == importlib.metadata.version(name)

    def test_what_is_installed_meanwhile(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = tmp_path / "site"
        (folder / "Some_Thing-1.0.dist-info").mkdir(parents=True)
        (folder / "older-2.0-py3.11.egg-info").mkdir()
        (folder / "dev.egg-info").mkdir()
        (folder / "dev.egg-info" / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: dev\nVersion: 3.0\n")
        monkeypatch.setattr(sys, "path", [str(folder), str(tmp_path / "nowhere")])
        assert installed() == {"dev": "3.0", "older": "2.0", "some-thing": "1.0"}
        (folder / "Some_Thing-1.0.dist-info").rename(folder / "Some_Thing-1.1.dist-info")
        assert installed()["some-thing"] == "1.1"

    def test_nothing_is_loaded_for_it(self) -> None:
        code = """
            import sys
            import localrun.api.submit
            before = set(sys.modules)
            from localrun.api.provenance.gather import Gathering
            with Gathering() as gathering:
                gathering.file()
            heavy = {"subprocess", "importlib.metadata", "email", "hashlib", "zipfile", "fsspec", "yaml"}
            print(sorted(set(sys.modules) & heavy - before))
        """
        assert run_python(code).stdout == "[]\n"


class TestComparison:
    def test_what_differs_is_named(self) -> None:
        one = {
            "git": {"commit": "a", "branch": "main", "diff": _diff("x", "+1"), "untracked": ["u", "v"]},
            "packages": {"a": "1", "b": "1"}, "python": {"version": "3.11.1", "executable": "/p"},
            "gpus": [{"name": "H100"}] * 2, "driver": "1",
        }  # fmt: skip
        other = {
            "git": {"commit": "a", "branch": "side", "diff": _diff("x", "+2") + _diff("y z", "-1"), "untracked": ["v"]},
            "packages": {"a": "2", "c": "1"}, "python": {"version": "3.11.1", "executable": "/q"},
            "gpus": [{"name": "H100"}], "driver": "1",
        }  # fmt: skip
        found = {row.field: row[1:] for row in compare.differences(one, other)}
        assert found.pop("diff x")[0].startswith("+1 -0 (")
        assert found.pop("diff y z")[0] is None
        assert found == {
            "branch": ("main", "side"), "untracked": ("u", None), "interpreter": ("/p", "/q"),
            "GPUs": ("2 x H100", "1 x H100"), "package a": ("1", "2"), "package b": ("1", None),
            "package c": (None, "1"),
        }  # fmt: skip
        assert compare.differences(one, one) == []

    def test_what_is_the_same_is_not_named(self) -> None:
        one = {"git": {"commit": "a", "diff": _diff("x", "+1")}, "python": {"executable": "/env/bin/python"}}
        other = {
            "git": {"commit": "a", "diff": _diff("x", "+1") + _diff("y", "+1")},
            "python": {"executable": "/env/bin/python3.11"},
        }
        assert [row.field for row in compare.differences(one, other)] == ["diff y"]
        elsewhere = {**one, "python": {"executable": "/other/bin/python"}}
        assert [row.field for row in compare.differences(one, elsewhere)] == ["interpreter"]

    def test_of_a_run_without_one_nothing_is_said(self) -> None:
        nothing = {"gpus": [], "driver": None, "image_id": None}
        assert compare.differences(nothing, {**nothing, "packages": {"a": "1"}, "git": {"commit": "x"}}) == []


def _diff(name: str, line: str) -> str:
    return f"diff --git a/{name} b/{name}\n--- a/{name}\n+++ b/{name}\n@@ -1 +1 @@\n{line}\n"
