"""Integrations: repositories cloned and packages installed before a run's ranks start."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import Home, execute, is_alive, stderr_bytes, stdout_bytes, submit, wait_until

import localrun
from localrun import RunConfig, RunConfigError, Secret, create_run, create_secret

Integration = dict[str, Any]


def git(place: Path, *arguments: str) -> str:
    """What git says in a folder, whoever the user and whatever their configuration."""
    identity = {f"GIT_{who}_{what}": f"{what}@x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = {**os.environ, **identity, "GIT_CONFIG_GLOBAL": os.devnull}
    done = subprocess.run(["git", "-C", str(place), *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def fake_git(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a script in git's place for what is submitted from now on."""
    folder.mkdir()
    (folder / "git").write_text(f"#!/bin/bash\n{script}\n")
    (folder / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository of two commits on ``main`` and one on ``side``, each with another ``file``."""
    place = tmp_path / "a repo"
    place.mkdir()
    git(place, "init", "-q", "-b", "main")
    for content, branch in (("first", None), ("side", "side"), ("second", "main")):
        if branch is not None:
            git(place, "checkout", "-q", *(["-b"] if branch == "side" else []), branch)
        (place / "file").write_text(content)
        git(place, "add", "file")
        git(place, "commit", "-q", "-m", content)
    return place


def make_wheel(folder: Path, name: str, version: str, **modules: str) -> None:
    """A wheel with these modules, made by hand."""
    folder.mkdir(parents=True, exist_ok=True)
    about = f"{name}-{version}.dist-info"
    contents = {f"{module}.py": code for module, code in modules.items()}
    contents[f"{about}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    contents[f"{about}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = ""
    for path, text in contents.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(text)}\n"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in {**contents, f"{about}/RECORD": f"{record}{about}/RECORD,,\n"}.items():
            wheel.writestr(path, text)


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    make_wheel(folder, "handmade", "1.0", handmade="WORD = 'from the wheel'\n")
    return folder


@pytest.fixture
def packages(wheels: Path) -> Integration:
    return {"integration_type": "pip_packages", "packages": ["handmade"], "find_links": str(wheels)}


@pytest.fixture
def clone(repository: Path) -> Integration:
    return {"integration_type": "git_repo", "git_repo": str(repository)}


class TestRepositories:
    def test_a_local_path(self, home: Home, clone: Integration) -> None:
        run = execute("run", 'pwd; cat "a repo/file"; git -C "a repo" branch --show-current', integrations=[clone])
        work = f"{home.runs}/run/work"
        assert stdout_bytes(run).decode() == f"{work}\nsecondmain\n"
        assert run.cwd == work
        assert b"Cloning into 'a repo'" in stderr_bytes(run)

    def test_branch_and_place(self, home: Home, clone: Integration) -> None:
        integration = {**clone, "git_branch": "side", "path": "code/here"}
        assert stdout_bytes(execute("run", "cat code/here/file", integrations=[integration])) == b"side"

    def test_a_commit_by_url(self, home: Home, clone: Integration, repository: Path) -> None:
        commit = git(repository, "rev-parse", "HEAD~1")
        url = "file://" + str(repository).replace(" ", "%20")
        run = execute("run", "cat x/file", integrations=[{**clone, "git_repo": url, "git_commit": commit, "path": "x"}])
        assert stdout_bytes(run) == b"first"

    def test_relative_to_the_submitter(
        self, home: Home, repository: Path, monkeypatch: pytest.MonkeyPatch, clone: Integration
    ) -> None:
        monkeypatch.chdir(repository.parent)
        run = submit("run", "cat 'a repo/file'", integrations=[{**clone, "git_repo": "./a repo"}])
        monkeypatch.chdir("/")
        assert run.wait(60).stdout() == "second"

    def test_from_inside_of_a_hook(self, home: Home, clone: Integration, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GIT_DIR", "/nowhere")
        monkeypatch.setenv("GIT_INDEX_FILE", "/nowhere/index")
        assert execute("run", "cat 'a repo/file'", integrations=[clone]).reason == "Completed"

    def test_a_failure_names_the_integration_and_the_code(self, home: Home, clone: Integration, tmp_path: Path) -> None:
        missing = {**clone, "git_repo": f"{tmp_path}/nothing"}
        run = execute("run", f"touch {tmp_path}/started", integrations=[clone, missing], nproc_per_node=2)
        assert (run.status.value, run.reason, run.exit_code, run.failed_rank) == ("FAILED", "Error", 128, 0)
        message = f"integrations[1] (git_repo {tmp_path}/nothing): git clone ended with exit code 128"
        assert run.message == message
        assert message in localrun.get_run_logs(run)
        assert "does not exist" in localrun.get_run_logs(run)
        assert stdout_bytes(run) == b""
        assert not (tmp_path / "started").exists()
        assert sorted(os.listdir(f"{run.path}/logs/0")) == ["rank_0.err", "rank_0.out", "rank_0.times"]

    def test_a_missing_program(self, home: Home, clone: Integration, tmp_path: Path) -> None:
        run = execute("run", "true", integrations=[clone], env_variables={"PATH": str(tmp_path)})
        assert (run.reason, run.exit_code) == ("Error", 127)
        assert run.message.endswith("git clone ended with exit code 127")

    def test_an_unknown_commit(self, home: Home, clone: Integration) -> None:
        run = execute("run", "true", integrations=[{**clone, "git_commit": "abcdef0"}])
        assert run.reason == "Error"
        assert run.message.endswith(": git_commit abcdef0: the repository has no such commit")
        assert "--detach" not in run.stderr()

    def test_a_commit_with_the_name_of_a_file(self, home: Home, clone: Integration, repository: Path) -> None:
        git(repository, "tag", "file", "HEAD~1")
        run = execute("run", "cat 'a repo/file'", integrations=[{**clone, "git_commit": "file"}])
        assert stdout_bytes(run) == b"first"


class TestPackages:
    def test_commands_have_them(self, home: Home, packages: Integration) -> None:
        command = "python -c 'import handmade, numpy, localrun; print(handmade.WORD, numpy.__name__)'; which python"
        run = execute("run", command, integrations=[packages])
        assert stdout_bytes(run).decode() == f"from the wheel numpy\n{run.path}/venv/bin/python\n"
        assert b"Successfully installed handmade-1.0" in stderr_bytes(run)

    def test_functions_have_them(self, home: Home, packages: Integration) -> None:
        @localrun.function(integrations=[packages])
        def word() -> tuple[str, str, str]:
            import subprocess
            import sys

            import handmade  # type: ignore[import-not-found]
            import numpy as np

            child = subprocess.check_output([sys.executable, "-c", "import handmade; print(handmade.WORD)"], text=True)
            return handmade.WORD, child, np.__name__

        assert word(run_name="run") == ("from the wheel", "from the wheel\n", "numpy")

    def test_they_come_before_the_submitters(self, home: Home, wheels: Path, packages: Integration) -> None:
        """An upgrade is the run's own: what the submitter has stays as it is."""
        import yaml

        make_wheel(wheels, "PyYAML", "999.0", yaml="__version__ = '999.0'\n")
        upgrade = {**packages, "packages": ["pyyaml"], "upgrade": True}

        @localrun.function(integrations=[upgrade])
        def version() -> str:
            import yaml

            return str(yaml.__version__)

        assert version(run_name="function") == "999.0"
        command = execute("command", "python -c 'import yaml; print(yaml.__version__)'", integrations=[upgrade])
        assert stdout_bytes(command) == b"999.0\n"
        run = execute("other", f"\"{sys.executable}\" -c 'import yaml; print(yaml.__version__)'")
        assert run.stdout().strip() == yaml.__version__ != "999.0"

    def test_the_submitters_own_settings_of_pip(
        self, home: Home, wheels: Path, packages: Integration, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        del packages["find_links"]
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
        assert execute("run", "python -c 'import handmade'", integrations=[packages]).reason == "Completed"

    def test_a_folder_of_wheels_is_the_only_source(
        self, home: Home, packages: Integration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Not even where the machine's own settings of pip would lead elsewhere."""
        for variable in ("PIP_FIND_LINKS", "PIP_CONFIG_FILE"):
            elsewhere = tmp_path / variable
            make_wheel(elsewhere, "handmade", "2.0", handmade="WORD = 'from elsewhere'\n")
            settings = tmp_path / "pip.conf"
            settings.write_text(f"[global]\nfind-links = {elsewhere}\n")
            monkeypatch.setenv(variable, str(settings if variable == "PIP_CONFIG_FILE" else elsewhere))
        run = execute("run", "python -c 'import handmade; print(handmade.WORD)'", integrations=[packages])
        assert run.stdout() == "from the wheel\n", run.stderr()

    def test_there_is_none(self, home: Home, packages: Integration) -> None:
        run = execute("run", "true", integrations=[{**packages, "packages": ["no-such-package==1"]}])
        assert run.message == "integrations[0] (pip_packages no-such-package==1): pip install ended with exit code 1"

    def test_a_repository_and_what_it_needs(
        self, home: Home, clone: Integration, wheels: Path, repository: Path
    ) -> None:
        (repository / "requirements.txt").write_text("handmade\n")
        git(repository, "add", "requirements.txt")
        git(repository, "commit", "-q", "-m", "requirements")
        install = f"--no-index --find-links '{wheels}' -r requirements.txt"
        run = execute("run", "python -c 'import handmade'", integrations=[{**clone, "pip_install": install}])
        assert run.reason == "Completed", run.stderr()


class TestTheRun:
    @pytest.mark.parametrize("home", ["home", "a 'home'\n\"é"], indirect=True, ids=["plain", "hostile"])
    def test_once_before_all_ranks(self, home: Home, clone: Integration, packages: Integration) -> None:
        command = 'python -c "import handmade"; cat "a repo/file"; echo " $RANK"'
        run = execute("run", command, integrations=[clone, packages], nproc_per_node=2)
        assert [run.stdout(rank) for rank in (0, 1)] == ["second 0\n", "second 1\n"]
        assert stderr_bytes(run).count(b"Cloning") == 1
        assert run.stderr(1) == ""
        assert [phase.status.value for phase in run.lifecycle].count("RUNNING") == 1
        merged = localrun.get_run_logs(run)
        assert merged.index("Cloning") < merged.index("Successfully installed") < merged.index("second 0")

    def test_secrets_are_there(self, home: Home, clone: Integration, repository: Path) -> None:
        create_secret(Secret("where", value="our://", key="GIT_CONFIG_VALUE_0"))
        variables = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.{repository.parent}/.insteadOf"}
        place = {**clone, "git_repo": f"our://{repository.name}"}
        run = execute("run", "cat 'a repo/file'", integrations=[place], env_variables=variables)
        assert run.stdout() == "second", run.stderr()

    def test_another_attempt_begins_anew(self, home: Home, clone: Integration, packages: Integration) -> None:
        """What a first attempt left in the repository is gone, the rest of the working folder is not."""
        command = """
            cat "a repo/file"; python -c "import handmade"; ls
            echo changed > "a repo/file"; touch "a repo/left" kept; test ! -e "a repo/.git/left" || exit 2
            touch "a repo/.git/left"; test "$RESUMPTION_INDEX" = 1
        """
        run = execute("run", command, integrations=[clone, packages], max_retries=1)
        assert (run.reason, run.resumption_count) == ("Completed", 1)
        assert stdout_bytes(run, 0) == b"seconda repo\n"
        assert stdout_bytes(run, 1) == b"seconda repo\nkept\n"

    def test_a_failure_is_tried_again(
        self, home: Home, clone: Integration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A partial clone is no obstacle."""
        fake_git(
            tmp_path / "bin",
            f"""
            [ "$RESUMPTION_INDEX" = 1 ] && exec {shutil.which("git")} "$@"
            mkdir -p "a repo/.git" && echo partial > "a repo/file" && exit 3
            """,
            monkeypatch,
        )
        run = execute("run", "cat 'a repo/file'", integrations=[clone], max_retries=1)
        assert (run.reason, run.resumption_count) == ("Completed", 1), run.message
        assert stdout_bytes(run, 1) == b"second"
        assert run.resumptions[0].exit_code == 3

    def test_a_renamed_run_starts_again_in_its_folder(self, home: Home, clone: Integration) -> None:
        run = execute("run", "pwd", integrations=[clone])
        run.save("other")
        run.start().wait(60)
        assert stdout_bytes(run, 1).decode() == f"{home.runs}/other/work\n"

    def test_a_clone(self, home: Home, clone: Integration, packages: Integration) -> None:
        run = execute("run", "pwd; python -c 'import handmade'", integrations=[clone, packages])
        again = run.clone(name="again").wait(60)
        assert again.stdout() == f"{home.runs}/again/work\n"

    def test_the_record(self, home: Home, clone: Integration) -> None:
        run = execute("run", "true", integrations=[clone])
        assert run.config.integrations == [clone]
        assert run.config.cwd is None


@pytest.fixture
def slow(tmp_path: Path, clone: Integration, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Makes ``git clone`` hang; the pid of the one that does."""
    fake_git(tmp_path / "bin", f"echo $$ > '{tmp_path}/pid'; sleep 1000 & wait", monkeypatch)
    return lambda: int(wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))


class TestWhileTheyWork:
    def test_a_stop(self, home: Home, clone: Integration, slow: Callable[[], int], tmp_path: Path) -> None:
        run = submit("run", f"touch {tmp_path}/started", integrations=[clone])
        pid = slow()
        wait_until(lambda: run.refresh().status.value == "RUNNING")
        assert home.rank("run") is not None
        run.stop().wait(60)
        assert (run.status.value, run.reason) == ("STOPPED", "StoppedByUser")
        assert not is_alive(pid)
        assert not (tmp_path / "started").exists()

    def test_max_duration(self, home: Home, clone: Integration, slow: Callable[[], int]) -> None:
        run = execute("run", "true", integrations=[clone], max_duration=0.2 / 3600)
        assert (run.status.value, run.reason) == ("STOPPED", "MaxDurationExceeded")

    def test_a_lost_supervisor(self, home: Home, clone: Integration, slow: Callable[[], int]) -> None:
        run = submit("run", "true", integrations=[clone])
        pid = slow()
        wait_until(lambda: run.refresh().status.value == "RUNNING")
        supervisor = home.supervisor("run")
        assert supervisor is not None
        os.kill(supervisor, 9)
        run.wait(60)
        assert (run.status.value, run.reason) == ("FAILED", "SystemFailure")
        assert not is_alive(pid)

    def test_they_are_killed(self, home: Home, clone: Integration, slow: Callable[[], int]) -> None:
        run = submit("run", "true", integrations=[clone])
        slow()
        wait_until(lambda: home.rank("run"))
        os.kill(home.rank("run") or 0, 9)
        run.wait(60)
        assert (run.status.value, run.reason) == ("FAILED", "Killed")
        assert run.message.startswith("its integrations ended: killed by SIGKILL")


def test_refused_ones_create_nothing(home: Home, clone: Integration) -> None:
    with pytest.raises(RunConfigError, match="needs a container"):
        create_run(RunConfig(command="true", integrations=[{"integration_type": "apt_packages", "packages": ["x"]}]))
    with pytest.raises(RunConfigError, match=r"^cwd: a run with integrations"):
        create_run(RunConfig(command="true", cwd="/", integrations=[clone]))
    assert not home.path.exists()
