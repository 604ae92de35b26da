"""Runs as archives: exported, imported, run again; and archives that are not what they claim."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from repositories import commit, git, repository
from support import Home, execute, kill, record_of, start_python, submit, wait_until

import localrun
from localrun.api.moving.local import LocalPlace
from localrun.api.moving.manifest import Contents
from localrun.api.provenance.replay import differences_here, replay
from localrun.errors import (
    IllegalTransitionError,
    NotARunError,
    RunConfigError,
    RunExistsError,
    RunNotFoundError,
    SystemFailureError,
    UntrustedRunError,
)


@pytest.fixture
def root(tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a program, in which we are."""
    root = repository(tmp_path / "project", data="one\n")
    (root / "inside").mkdir()
    (root / "inside" / "go.sh").write_text("echo data is $(cat ../data.txt)\n")
    (root / "inside" / "go.sh").chmod(0o755)
    (root / "link").symlink_to("inside/go.sh")
    commit(root)
    monkeypatch.chdir(root)
    return root


def elsewhere(home: Home, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another runs folder, as another machine would have it."""
    runs = home.path / "elsewhere"
    monkeypatch.setenv("LOCALRUN_RUNS_DIR", str(runs))
    return runs


def contents(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if path.name not in (".lock", ".untrusted", "export.json")
    }


Edit = Callable[[tarfile.TarInfo, bytes], list[tuple[tarfile.TarInfo, bytes]]]


def change(archive: Path, edit: Edit) -> Path:
    """The archive with each member replaced by what ``edit`` makes of it."""
    changed = archive.with_name("changed.tar.gz")
    with tarfile.open(archive) as before, tarfile.open(changed, "w:gz") as after:
        for info in before:
            file = before.extractfile(info)
            for made, data in edit(info, b"" if file is None else file.read()):
                made.size = len(data)
                after.addfile(made, io.BytesIO(data))
    return changed


def replacing(path: str, fields: dict[str, Any]) -> Edit:
    """Put these fields into a file of JSON, and its new digest into the manifest, as somebody who means ill would."""
    made: dict[str, Any] = {}

    def edit(info: tarfile.TarInfo, data: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
        if info.name == f"run/{path}":
            data = json.dumps({**json.loads(data), **fields}).encode()
            made.update(size=len(data), sha256=hashlib.sha256(data).hexdigest())
        elif info.name == "run/export.json":
            about = json.loads(data)
            data = json.dumps({**about, "files": {**about["files"], path: made}}).encode()
        return [(info, data)]

    return edit


def manifest(archive: str | Path) -> dict[str, Any]:
    with tarfile.open(archive) as tar:
        last = tar.getmembers()[-1]
        file = tar.extractfile(last)
        assert file is not None
        found: dict[str, Any] = json.load(file)
    assert last.name.endswith("/export.json")
    return found


class TestThereAndBack:
    def test_a_command(self, root: Path, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        (root / "data.txt").write_text("two\n")
        run = execute("run", "sh go.sh; echo err >&2; exit 3", cwd=str(root / "inside"), parameters={"a": 1})
        run.write("mine", "notes/mine.txt")
        run.update_metadata({"key": "value"})
        before = contents(home.runs / "run")
        archive = localrun.export_run(run)
        assert archive == str(root / "run.localrun.tar.gz")
        runs = elsewhere(home, monkeypatch)
        shutil.rmtree(home.runs)
        back = localrun.import_run(archive)
        assert (back.run_uid, back.name, back.path) == (run.run_uid, "run", str(runs / "run"))
        assert (back.status, back.exit_code, back.reason) == (run.status, 3, "Error")
        assert (back.stdout(), back.stderr()) == ("data is two\n", "err\n")
        assert (back.metadata, back.submitted_config.parameters) == ({"key": "value"}, {"a": 1})
        after = contents(runs / "run")
        code = {path: data for path, data in after.items() if path.split("/")[0] == "code"}
        assert {path: data for path, data in after.items() if path not in code} | {"config.json": b""} == before | {
            "config.json": b""
        }
        assert code == {
            "code": None, "code/data.txt": b"two\n", "code/inside": None,
            "code/inside/go.sh": b"echo data is $(cat ../data.txt)\n",
            "code/link": b"echo data is $(cat ../data.txt)\n",
        }  # fmt: skip
        assert os.access(runs / "run" / "code" / "inside" / "go.sh", os.X_OK)
        ours, theirs = record_of(runs / "run"), json.loads(before["config.json"] or b"")
        assert {key for key in ours if ours[key] != theirs[key]} <= {"submission", "home"}
        assert [found.name for found in localrun.get_runs()] == ["run"]

    def test_a_function(self, root: Path, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        @localrun.function
        def double(number: int) -> int:
            return 2 * number

        run = double.run(21, run_name="answer").wait(60)
        archive = localrun.export_run("answer", home.place)
        assert manifest(archive)["code"] is None
        elsewhere(home, monkeypatch)
        back = localrun.import_run(archive, trust=True)
        assert (back.result(), back.inputs()) == (42, {"args": [21], "kwargs": {}})
        assert back == run
        shutil.rmtree(root)
        monkeypatch.chdir(home.place)
        assert replay(back, "again").result(60) == 42

    def test_what_only_the_folder_has_a_use_for_stays(self, root: Path, home: Home) -> None:
        run = execute("run", "true")
        folder = home.runs / "run"
        (folder / "venv").mkdir()
        (folder / "venv" / "big").touch()
        (folder / ".result.pkl.0a1b.tmp").touch()
        (folder / "checkpoints" / ".the user's.tmp").write_text("2")
        (folder / "checkpoints" / "step-1").write_text("1")
        (folder / "checkpoints" / "latest").symlink_to("step-1")
        (folder / "checkpoints" / "deep" / "er").mkdir(parents=True)
        (folder / "checkpoints" / "deep" / "back").symlink_to("../step-1")
        (folder / "checkpoints" / "folder").symlink_to("deep/er")
        (folder / "checkpoints" / "absolute").symlink_to(folder / "checkpoints" / "step-1")
        (folder / "checkpoints" / "no more").symlink_to("step-0")
        (folder / "checkpoints" / "outside").symlink_to("/etc/passwd")
        (folder / "work" / "repository").mkdir(parents=True)
        (folder / "work" / "current").symlink_to("repository")
        os.mkfifo(folder / "pipe")
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(folder / "socket"))
        archive = localrun.export_run(run)
        found = manifest(archive)
        assert set(found["files"]) == {
            "checkpoints/.the user's.tmp", "checkpoints/step-1", "config.json", "logs/0/rank_0.err",
            "logs/0/rank_0.out", "provenance.json", "code/data.txt", "code/inside/go.sh", "code/link",
        }  # fmt: skip
        assert found["left_out"] == ["checkpoints/outside", "pipe", "socket"]
        links = {
            "latest": "step-1", "deep/back": "../step-1", "folder": "deep/er", "absolute": "step-1",
            "no more": "step-0",
        }  # fmt: skip
        made = {f"checkpoints/{name}": target for name, target in links.items()}
        assert found["links"] == {**made, "work/current": "repository"}
        back = localrun.import_run(archive, "back")
        assert {name: os.readlink(f"{back.path}/checkpoints/{name}") for name in links} == links
        assert Path(back.path, "checkpoints", "latest").read_text() == "1"
        again = localrun.export_run(back, home.place / "again.tar.gz")
        assert manifest(again)["links"] == found["links"]

    def test_an_imported_run_is_exported_with_its_code(self, root: Path, home: Home) -> None:
        archive = localrun.export_run(execute("run", "true"))
        shutil.move(root / ".git", home.place / "gone")
        again = localrun.export_run(localrun.import_run(archive, "back"), home.place / "again.tar.gz")
        assert manifest(again)["files"].keys() == manifest(archive)["files"].keys()
        third = localrun.import_run(again, "third")
        assert Path(third.path, "code", "data.txt").read_text() == "one\n"
        assert Path(third.path, ".untrusted").exists()

    def test_names(self, root: Path, home: Home) -> None:
        run = execute("run", "true")
        archive = localrun.export_run(run)
        with pytest.raises(RunExistsError, match="--name"):
            localrun.import_run(archive)
        back = localrun.import_run(archive, "other")
        assert (back.name, home.record("other")["name"]) == ("other", "other")
        with pytest.raises(RunConfigError, match="name"):
            localrun.import_run(archive, "../outside")
        with pytest.raises(RunNotFoundError, match=r"nowhere\.tar\.gz does not exist"):
            localrun.import_run("nowhere.tar.gz")
        with pytest.raises(RunNotFoundError, match="is no file, as `localrun export` writes one"):
            localrun.import_run(home.runs)
        assert sorted(path.name for path in home.runs.iterdir() if path.name[0] != ".") == ["other", "run"]
        assert not (home.runs / ".import").exists()

    def test_a_run_that_has_not_ended_is_refused(self, root: Path) -> None:
        run = submit("run", "sleep 1000")
        with pytest.raises(IllegalTransitionError, match="when it has ended"):
            localrun.export_run(run)
        assert list(root.glob("*.gz")) + list(root.glob(".*.tmp")) == []
        run.stop()

    @pytest.mark.parametrize("name", ["result.pkl", "inputs.pkl", "function.pkl"])
    @pytest.mark.parametrize("way", ["altered", "missing"])
    def test_a_damaged_run_is_refused(self, root: Path, home: Home, name: str, way: str) -> None:
        run = localrun.function(len).run([1, 2], run_name="run").wait()
        file = Path(run.path, name)
        if way == "missing":
            file.unlink()
        else:
            file.write_bytes(file.read_bytes()[:-1] + b"x")
        with pytest.raises(localrun.ResultUnavailableError, match=f"{name} is .*{way}: the run was not exported"):
            localrun.export_run(run)
        assert list(root.glob("*.gz")) + list(root.glob(".*.tmp")) == []

    def test_where_nothing_can_be_written(self, root: Path, home: Home) -> None:
        run = execute("run", "true")
        with pytest.raises(SystemFailureError, match="No such file"):
            localrun.export_run(run, home.place / "nowhere" / "run.tar.gz")
        (home.place / "there").mkdir()
        assert localrun.export_run(run, home.place / "there") == str(home.place / "there" / "run.localrun.tar.gz")


    def test_what_would_end_up_elsewhere_or_in_itself(self, root: Path, home: Home) -> None:
        run = execute("run", "true")
        for inside in ("config.json", "checkpoints", "new.tar.gz"):
            with pytest.raises(RunConfigError, match="own folder"):
                localrun.export_run(run, home.runs / "run" / inside)
        assert not [name for name in os.listdir(run.path) if name.endswith((".tmp", ".gz"))]
        record = home.record("run") | {"name": "../outside"}
        (home.runs / "run/config.json").write_text(json.dumps(record))
        with pytest.raises(RunConfigError, match="name"):
            localrun.export_run(localrun.run(path=run.path))
        assert not list(root.parent.glob("*.gz"))

    def test_files_of_the_users_own_are_taken_whatever_they_are_called(self, root: Path, home: Home) -> None:
        run = execute("run", "true")
        run.write("mine", "notes.tmp")
        Path(run.path, ".config.json.tmp").write_text("{")
        found = manifest(localrun.export_run(run))
        assert "notes.tmp" in found["files"] and ".config.json.tmp" not in found["files"]


class TestCode:
    def test_what_the_repository_lacks_is_said(self, root: Path, home: Home) -> None:
        (root / "data.txt").write_text("two\n")
        run = execute("run", "true")
        about = home.runs / "run" / "provenance.json"
        found = json.loads(about.read_text())
        for edit, says in (
            ({"diff": None, "diff_size": 1 << 30}, "diff was not kept"),
            ({"diff": found["git"]["diff"].replace("-one", "-x"), "masked": True}, "a secret is masked"),
            ({"commit": "0" * 40}, "has no commit"),
            ({"root": str(home.place / "gone")}, "is not here"),
        ):
            about.write_text(json.dumps({**found, "git": {**found["git"], **edit}}))
            archive = localrun.export_run(run)
            assert says in manifest(archive)["code"]["problem"]
            assert not [path for path in manifest(archive)["files"] if path.startswith("code/")]

    def test_the_repository_is_left_as_it_is(self, root: Path) -> None:
        (root / "data.txt").write_text("two\n")
        (root / "more.bin").write_bytes(os.urandom(1000))
        git(root, "add", "more.bin")
        (root / ".gitattributes").write_text("* export-ignore filter=trap\n")
        git(root, "config", "filter.trap.smudge", "false")
        run = execute("run", "true")
        before = contents(root)
        archive = localrun.export_run(run, root.parent)
        assert contents(root) == before
        back = localrun.import_run(archive, "back")
        assert Path(back.path, "code", "more.bin").read_bytes() == (root / "more.bin").read_bytes()
        assert Path(back.path, "code", "data.txt").read_text() == "two\n"

    def test_strange_names_links_and_submodules(self, root: Path, tmp_path: Path) -> None:
        other = repository(tmp_path / "other", three="3\n")
        git(root, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(other), "sub")
        (root / "a\nb 'é").write_text("strange")
        (root / os.fsdecode(b"\xff")).write_text("bytes")
        (root / "out").symlink_to("/etc/passwd")
        (root / "folder").symlink_to("inside")
        commit(root)
        archive = localrun.export_run(execute("run", "true"))
        assert manifest(archive)["code"]["left_out"] == ["folder", "out", "sub"]
        code = Path(localrun.import_run(archive, "back").path, "code")
        assert (code / "a\nb 'é").read_text() == "strange"
        assert (code / os.fsdecode(b"\xff")).read_text() == "bytes"


class TestTrust:
    def test_nothing_of_it_is_executed(self, root: Path, home: Home) -> None:
        run = execute("run", "echo executed >> data.txt")
        archive = localrun.export_run(run)
        back = localrun.import_run(archive, "back")
        with pytest.raises(UntrustedRunError, match="--trust"):
            replay(back)
        assert (root / "data.txt").read_text() == "one\nexecuted\n"
        assert replay(back, trust=True).wait(60).exit_code == 0
        trusted = localrun.import_run(archive, "trusted", trust=True)
        assert not Path(trusted.path, ".untrusted").exists()
        assert replay(trusted).wait(60).exit_code == 0


    def test_git_is_not_asked_where_it_says(self, root: Path, home: Home) -> None:
        """Where the settings of a repository, which came along, name a program for comparing files."""
        told = home.place / "told"
        (root / ".gitattributes").write_text("* filter=trap\n")
        commit(root)
        run = execute("run", "true")
        shutil.copytree(root, home.runs / "run/code")
        git(home.runs / "run/code", "config", "filter.trap.clean", f"touch {told}; cat")
        (home.runs / "run/code/data.txt").write_text("two\n")
        record = home.record("run") | {"cwd": str(home.runs / "back/code")}
        (home.runs / "run/config.json").write_text(json.dumps(record))
        back = localrun.import_run(localrun.export_run(run, home.place), "back")
        commit_then = back.provenance["git"]["commit"]
        assert differences_here(back) == [("code", commit_then, "not looked at: the run is not trusted")]
        with pytest.raises(UntrustedRunError):
            replay(back)
        assert not told.exists()
        assert differences_here(back, trust=True)[0].field == "diff data.txt" and told.exists()

    @pytest.mark.parametrize("swapped", ["checkpoints/state", "checkpoints"])
    def test_a_link_that_is_made_meanwhile_is_not_followed(
        self, root: Path, home: Home, monkeypatch: pytest.MonkeyPatch, swapped: str
    ) -> None:
        run = execute("run", "echo x > $LOCALRUN_CHECKPOINT_DIR/state")
        (home.place / "secret").mkdir()
        (home.place / "secret" / "state").write_text("ours")
        listed = LocalPlace.contents

        def swap(place: LocalPlace) -> Contents:
            seen = listed(place)
            shutil.move(f"{run.path}/{swapped}", home.place / "was")  # somebody else's folder, say, who does it now
            os.symlink(f"{home.place}/secret{swapped.removeprefix('checkpoints')}", f"{run.path}/{swapped}")
            return seen

        monkeypatch.setattr(LocalPlace, "contents", swap)
        with pytest.raises(SystemFailureError, match="leads out of the run's folder"):
            localrun.export_run(run)
        assert not list(root.glob("*.gz"))

    def test_no_code_of_ours_is_exported_for_it(self, root: Path, home: Home) -> None:
        """It names a repository, and not only by a commit: by HEAD, say."""
        about = home.runs / "back/provenance.json"
        back = localrun.import_run(localrun.export_run(execute("run", "true")), "back")
        shutil.rmtree(home.runs / "back/code")
        about.write_text(json.dumps({**json.loads(about.read_text()), "git": {"root": str(root), "commit": "HEAD"}}))
        found = manifest(localrun.export_run(back))
        assert found["code"]["problem"] == "others can have written where it is"
        assert not [path for path in found["files"] if path.startswith("code/")]


class TestArchivesThatLie:
    @pytest.fixture
    def archive(self, root: Path, home: Home) -> Path:
        archive = Path(localrun.export_run(execute("run", "true"), home.place))
        shutil.rmtree(home.runs / "run")
        return archive

    def refused(self, archive: Path, home: Home, says: str) -> None:
        outside = {path for path in home.place.rglob("*") if home.path not in path.parents}
        with pytest.raises((RunConfigError, NotARunError), match=says):
            localrun.import_run(archive)
        assert [path.name for path in home.runs.iterdir() if path.name not in (".index", ".import.lock")] == []
        assert {path for path in home.place.rglob("*") if home.path not in path.parents} == outside

    @pytest.mark.parametrize(
        "name", ["/tmp/outside", "../outside", "run/../../outside", "run//x", "run/./x", "run/..", "other/x", "x",
                 "run/.lock", "run/.untrusted", "run/venv/bin/python"],
    )  # fmt: skip
    def test_names_that_lead_out_of_it(self, archive: Path, home: Home, name: str) -> None:
        def edit(info: tarfile.TarInfo, data: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
            return (
                [(tarfile.TarInfo(name), b"x"), (info, data)] if info.name.endswith("config.json") else [(info, data)]
            )

        self.refused(change(archive, edit), home, "leads out of it|none of a run's")

    @pytest.mark.parametrize(
        "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE,
                 tarfile.GNUTYPE_SPARSE],
        ids=["symlink", "hardlink", "character", "block", "fifo", "contiguous", "sparse"],
    )  # fmt: skip
    def test_what_is_no_plain_file(self, archive: Path, home: Home, kind: bytes) -> None:
        def edit(info: tarfile.TarInfo, data: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
            if not info.name.endswith("config.json"):
                return [(info, data)]
            strange = tarfile.TarInfo("run/strange")
            strange.type, strange.linkname = kind, "/etc/passwd"
            return [(strange, b""), (info, data)]

        self.refused(change(archive, edit), home, "no plain file|damaged")

    @pytest.mark.parametrize(
        "links",
        [
            {"x": "/etc/passwd"},
            {"x": "../other"},
            {"../x": "config.json"},
            {"x": "."},
            {"x": "logs", "x/y": "config.json"},
            {"logs": "checkpoints"},
            {"config.json": "logs"},
            {"export.json": "logs"},
            {".lock": "logs"},
            {".untrusted": "logs"},
            {"venv/bin": "../logs"},
            {"x\0": "logs"},
            {"checkpoints": "logs"},
            ["x"],
            {"x": {}},
            {"checkpoints/x": "../.."},
            {"checkpoints/x": "y/../../../out"},
            {"config.json/x": "checkpoints"},
            {"provenance.json": "checkpoints"},
            {"parameters.yaml": "checkpoints"},
            {"result.rank_0.pkl": "checkpoints"},
            {"logs/1/rank_0.out": "../../config.json"},
            {"work": "checkpoints"},
            {"/".join(["x" * 200] * 6): "y"},
            {"x": "/".join(["y" * 200] * 6)},
            {"x\ud800": "y"},
            {"x": "\ud800"},
            {"x": ""},
            {"x" * 300: "y"},
            {"x": "y" * 300},
            {"x/" * 2000 + "x": "y"},
            {"x": "y/" * 2000 + "y"},
            {"x/" * 60_000 + "x": "y"},
        ],
        ids=lambda links: str(links)[:40],
    )
    def test_links_that_can_not_be(self, archive: Path, home: Home, links: Any) -> None:
        def edit(info: tarfile.TarInfo, data: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
            if info.name.endswith("export.json"):
                data = json.dumps({**json.loads(data), "links": links}).encode()
            return [(info, data)]

        self.refused(change(archive, edit), home, "can't be there|there twice|can't be read")

    def test_a_sparse_file_by_its_headers(self, archive: Path, home: Home) -> None:
        def edit(info: tarfile.TarInfo, data: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
            if info.name.endswith("config.json"):
                info.pax_headers = {
                    "GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.size": str(1 << 60),
                    "GNU.sparse.numblocks": "1", "GNU.sparse.map": "0,1",
                }  # fmt: skip
            return [(info, data)]

        self.refused(change(archive, edit), home, "no plain file|damaged")

    def test_more_than_there_is_room_for(self, archive: Path, home: Home) -> None:
        info = tarfile.TarInfo("run/large")
        info.size = 1 << 60
        with gzip.open(home.place / "large.tar.gz", "wb") as file:
            file.write(info.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
        self.refused(home.place / "large.tar.gz", home, "no room")

    @pytest.mark.parametrize("altered", ["logs/0/rank_0.out", "code/data.txt", "config.json", "provenance.json"])
    def test_an_altered_file(self, archive: Path, home: Home, altered: str) -> None:
        def edit(info: tarfile.TarInfo, data: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
            return [(info, data + b" " if info.name == f"run/{altered}" else data)]

        self.refused(change(archive, edit), home, f"'{altered}' is not as it was exported")

    def test_a_file_more_less_or_twice(self, archive: Path, home: Home) -> None:
        def more(info: tarfile.TarInfo, data: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
            return [(tarfile.TarInfo("run/more"), b"x"), (info, data)] if "config" in info.name else [(info, data)]

        def less(info: tarfile.TarInfo, data: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
            return [] if "rank_0.out" in info.name else [(info, data)]

        def twice(info: tarfile.TarInfo, data: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
            return [(info, data)] * (2 if "rank_0.out" in info.name else 1)

        def behind(info: tarfile.TarInfo, data: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
            return [(info, data)] + ([(tarfile.TarInfo("run/x"), b"")] if "export.json" in info.name else [])

        self.refused(change(archive, more), home, "'more' is not as")
        self.refused(change(archive, less), home, "'logs/0/rank_0.out' is not as")
        self.refused(change(archive, twice), home, "is there twice")
        self.refused(change(archive, behind), home, "something follows")

    @pytest.mark.parametrize(
        "fields",
        [{"uid": "../../x"}, {"uid": None}, {"status": "RUNNING"}, {"status": "UNKNOWN"}, {"name": "../x"},
         {"lifecycle": {}}, {"lifecycle": [1]}, {"created_at": "x"}, {"resumptions": [{}]}, {"request": []},
         {"failed_rank": "../../../x"}, {"events": 3}, {"cmds": 3}, {"python": None},
         {"first_resumption": float("inf")}, {"cwd": 10**30}, {"request": {"cpus": "x"}}, {"fingerprints": 3},
         {"result": 5}, {"exception": [1]}, {"given": {"../x": {"size": 1, "sha256": "0"}}},
         {"gpus": [3]}, {"gpus": [{"index": 0}]}, {"upstream_artifacts": [{}]}, {"downstream_artifacts": ["x"]}],
        ids=lambda fields: "-".join(f"{key}={value}" for key, value in fields.items()),
    )  # fmt: skip
    def test_a_record_that_is_none(self, archive: Path, home: Home, fields: dict[str, Any]) -> None:
        self.refused(change(archive, replacing("config.json", fields)), home, "was not imported")

    def test_a_provenance_that_is_none(self, archive: Path, home: Home) -> None:
        for strange in ({"git": "x"}, {"git": {"diff": 3}}, {"packages": [1]}, {"machine": "x"},
                        {"git": {"untracked": [3]}}):  # fmt: skip
            self.refused(change(archive, replacing("provenance.json", strange)), home, "was not imported")

    @pytest.mark.parametrize("strange", [b"[" * 100_000, b"1" * 10_000, b"[]", b'{"schema": 1, "files": ["x"]}',
                                         b'{"schema": 1, "files": null}'])  # fmt: skip
    def test_a_manifest_that_is_none(self, archive: Path, home: Home, strange: bytes) -> None:
        def edit(info: tarfile.TarInfo, data: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
            return [(info, strange if info.name.endswith("export.json") else data)]

        self.refused(change(archive, edit), home, "can't be read")

    def test_a_manifest_of_another_version(self, archive: Path, home: Home) -> None:
        def edit(info: tarfile.TarInfo, data: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
            newer = b'{"schema": 2, "localrun": "9.1", "files": []}'
            return [(info, newer if info.name.endswith("export.json") else data)]

        self.refused(change(archive, edit), home, r"made by another localrun \(9.1\)")

    @pytest.mark.parametrize("name", ["config.json/", "config.json/x", "inputs.pkl/", "logs", "work"])
    def test_what_has_another_ones_name(self, archive: Path, home: Home, name: str) -> None:
        self.refused(self.added(archive, f"run/{name}"), home, "none of a run's")

    def added(self, archive: Path, *names: str) -> Path:
        """The archive with these files and, by a / at their ends, folders in front of all."""

        def edit(info: tarfile.TarInfo, data: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
            made = [tarfile.TarInfo(name.rstrip("/")) for name in names if info.name == "run/checkpoints"]
            for each, name in zip(made, names, strict=False):
                each.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            return [*((each, b"") for each in made), (info, data)]

        return change(archive, edit)

    @pytest.mark.parametrize(
        "names", [("run/x", "run/x/"), ("run/x", "run/x/y"), ("run/x/", "run/x"), ("run/" + "x" * 300,)],
        ids=["folder", "inside", "file", "long"],
    )  # fmt: skip
    def test_names_that_can_not_be(self, archive: Path, home: Home, names: tuple[str, ...]) -> None:
        self.refused(self.added(archive, *names), home, "damaged|is there twice")

    def test_folders_too_deep_to_be_removed_again(self, archive: Path, home: Home) -> None:
        """Of a folder more in each folder, a thousand times, nothing may be left that is in the way of the next one."""
        folders = ["run" + "/a" * depth + "/" for depth in range(1, 1200)]
        self.refused(self.added(archive, *folders), home, "folders in folders")
        assert not (home.runs / ".import").exists()
        assert localrun.import_run(archive).name == "run"

    def test_what_would_take_all_memory(self, archive: Path, home: Home) -> None:
        large = home.place / "large.tar.gz"
        for name, kind in (("run/x", tarfile.XHDTYPE), ("run/x", tarfile.GNUTYPE_LONGNAME), ("run/config.json", b"0")):
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, 1 << 30
            with gzip.open(large, "wb") as file:
                file.write(info.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
            self.refused(large, home, "header of 1073741824 bytes|its config.json has 1073741824 bytes")

    def test_a_link_in_the_way_is_not_followed(self, archive: Path, home: Home) -> None:
        (home.place / "mine").mkdir()
        (home.place / "mine" / "file").touch()
        (home.runs / ".import").symlink_to(home.place / "mine")
        with pytest.raises(SystemFailureError, match="could not be imported"):
            localrun.import_run(archive)
        assert (home.place / "mine" / "file").exists()

    def test_what_is_cut_short_or_no_archive(self, archive: Path, home: Home) -> None:
        data = archive.read_bytes()
        short = home.place / "short.tar.gz"
        for length in (0, 1, 10, 100, len(data) // 2, len(data) - 200, len(data) - 20, len(data) - 1):
            short.write_bytes(data[:length])
            self.refused(short, home, "damaged|breaks off")
        for strange in (b"text", os.urandom(5000), gzip.compress(b"text"), gzip.compress(os.urandom(5000))):
            short.write_bytes(strange)
            self.refused(short, home, "damaged|breaks off")
        assert localrun.import_run(archive).name == "run"


def test_a_taken_name_is_refused_before_all_is_unpacked(root: Path, home: Home) -> None:
    archive = Path(localrun.export_run(execute("run", "true"), home.place))
    archive.write_bytes(archive.read_bytes()[:-100])
    for name in (None, "run"):
        with pytest.raises(RunExistsError, match="import it under another name"):
            localrun.import_run(archive, name)
    with pytest.raises(RunConfigError, match="damaged"):
        localrun.import_run(archive, "other")


def test_an_import_that_is_killed_leaves_nothing_that_lasts(root: Path, home: Home) -> None:
    run = execute("run", "head -c 30000000 /dev/urandom > $LOCALRUN_RUN_DIR/large")
    archive = localrun.export_run(run)
    code = "import localrun, sys; localrun.import_run(sys.argv[1], sys.argv[2])"
    for attempt in range(5):
        child = start_python(code, archive, f"back-{attempt}")
        wait_until((home.runs / ".import" / "large").exists, what="it is at work")
        kill(child.pid)
        child.wait()
    assert [each.name for each in localrun.get_runs() if not Path(each.path, "large").exists()] == []
    localrun.import_run(archive, "whole")
    assert not (home.runs / ".import").exists()


class TestWhereItIsWritten:
    def test_what_is_no_plain_file_is_not_replaced(self, root: Path, home: Home) -> None:
        run = execute("run", "true")
        (home.place / "target").write_text("mine")
        (home.place / "link").symlink_to("target")
        os.mkfifo(home.place / "pipe")
        for target in ("link", "pipe"):
            with pytest.raises(RunConfigError, match="is no plain file"):
                localrun.export_run(run, home.place / target)
        assert (home.place / "target").read_text() == "mine" and (home.place / "pipe").is_fifo()

    def test_whatever_standard_error_is(self, root: Path, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        class Tee:
            def write(self, text: str) -> int:
                return len(text)

        closed = io.StringIO()
        closed.close()
        for number, strange in enumerate((Tee(), closed, None)):
            monkeypatch.setattr("sys.stderr", strange)
            run = execute("run", "true") if not number else localrun.get_run("run")
            localrun.import_run(localrun.export_run(run), f"back-{number}")
        monkeypatch.undo()

    def test_a_sparse_file_is_refused_before_it_is_read(self, root: Path, home: Home) -> None:
        pieces = 200_000
        data = f"{pieces}\n".encode() + b"0\n" * (2 * pieces)
        info = tarfile.TarInfo("run/a")
        info.size, info.pax_headers = len(data), {
            "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "run/a", "GNU.sparse.realsize": "1",
        }  # fmt: skip
        with gzip.open("sparse.tar.gz", "wb") as file:
            file.write(info.tobuf(tarfile.PAX_FORMAT) + data + b"\0" * (-len(data) % 512 + 1024))
        with pytest.raises(RunConfigError, match="with holes"):
            localrun.import_run("sparse.tar.gz")


class TestReplay:
    def test_what_differs_here(self, root: Path, home: Home) -> None:
        run = execute("run", "cat data.txt")
        assert differences_here(run) == []
        (root / "data.txt").write_text("two\n")
        about = home.runs / "run" / "provenance.json"
        then = json.loads(about.read_text())
        then["packages"]["numpy"] = "0.1"
        then["python"]["version"] = "2.7.18"
        then["machine"]["cpu"] = "an abacus"
        about.write_text(json.dumps(then))
        record = home.record("run")
        record["gpus"], record["driver"] = [{"index": 0, "uuid": "GPU-0", "name": "Voodoo"}], "1.0"
        (home.runs / "run" / "config.json").write_text(json.dumps(record))
        found = {row.field: row[1:] for row in differences_here(run.refresh())}
        assert found.keys() == {"diff data.txt", "package numpy", "python", "cpu", "GPUs", "driver"}
        assert found["GPUs"] == ("1 x Voodoo", "none")
        assert replay(run).result(60) == "two\n"

    def test_a_missing_working_folder(self, root: Path, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        run = execute("run", "sh go.sh", cwd=str(root / "inside"))
        archive = localrun.export_run(run, home.place)
        back = localrun.import_run(archive, "back", trust=True)
        monkeypatch.chdir(home.place)
        shutil.rmtree(root)
        assert differences_here(back)[0] == ("working folder", str(root / "inside"), None)
        again = replay(back, "again")
        assert (again.result(60), again.name) == ("data is one\n", "again")
        with pytest.raises(RunConfigError, match="isn't here, and no code came with it"):
            replay(run)

    def test_a_folder_that_only_has_the_name_of_the_working_folder(
        self, root: Path, home: Home, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = execute("run", "sh go.sh", cwd=str(root / "inside"))
        back = localrun.import_run(localrun.export_run(run, home.place), "back", trust=True)
        assert replay(back, "at-home").cwd == str(root / "inside")
        monkeypatch.chdir(home.place)
        shutil.rmtree(root)
        (root / "inside").mkdir(parents=True)
        subprocess.run(["git", "init", "--quiet", str(root)], check=True)
        assert differences_here(back)[0] == ("working folder", str(root / "inside"), None)
        again = replay(back, "again")
        assert (again.result(60), again.cwd) == ("data is one\n", f"{back.path}/code/inside")
