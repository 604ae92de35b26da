"""A run copied to each kind of place: all that it was is there, without the source, and nothing else."""

from __future__ import annotations

import json
import os
import pickle
import pwd
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
from support import Home, execute, run_python, submit, wait_until
from where import Where

import localrun
from localrun import (
    IllegalTransitionError,
    NotARunError,
    ResultUnavailableError,
    RunConfigError,
    RunExistsError,
    RunFailedError,
    RunNotFoundError,
    SystemFailureError,
)
from localrun.errors import UntrustedRunError


@localrun.function
def work(x: int) -> dict[str, int]:
    import sys
    from pathlib import Path

    print("out", x, flush=True)
    print("err", x, file=sys.stderr)
    Path(os.environ["LOCALRUN_CHECKPOINT_DIR"], "state").write_bytes(b"\0\1" * 50_000)
    return {"x": x}


@localrun.function
def fail() -> None:
    print("before")
    raise ValueError("as it must be")


@localrun.function(nproc_per_node=2)
def ranked() -> int:
    return int(os.environ["RANK"]) * 10


def gone(run: Any) -> None:
    """Remove a run's folder, and everything about it that could be asked instead."""
    shutil.rmtree(run.path)


# -- what a copy gives ------------------------------------------------------------------------------------------------


def test_a_copy_gives_all_without_its_source(place: Where) -> None:
    run = work.run(3, run_name="run").wait()
    copy = place.to(run)
    gone(run)
    for each in (copy, place.load(trust=True), copy.refresh()):
        assert (each.name, each.run_uid, str(each.status)) == ("run", run.run_uid, "COMPLETED")
        assert each.result() == {"x": 3}
        assert each.inputs() == {"args": [3], "kwargs": {}}
        assert (each.stdout(), each.stderr()) == ("out 3\n", "err 3\n")
        assert str(each.logs()) == "out 3\nerr 3\n"
        assert list(each.follow_logs()) == ["out 3\n", "err 3\n"]
        assert each.logs(timestamps=True).count("+00:00 ") == 2
        assert isinstance(each.telemetry(), list)
        assert each.config == run.config
        assert each.wait(1) is each and each.exception() is None
        assert [str(then.status) for then in localrun.watch_run_status(each)] == ["COMPLETED"]
        assert localrun.get_run(each).result() == {"x": 3}
    assert place.read("copy/checkpoints/state") == b"\0\1" * 50_000


def test_a_failed_run_is_copied(place: Where) -> None:
    run = fail.run(run_name="run").wait()
    copy = place.to(run)
    gone(run)
    assert str(copy.status) == "FAILED"
    with pytest.raises(ValueError, match="as it must be") as caught:
        copy.result()
    assert "in fail" in str(caught.value.__cause__)
    untrusting = place.load()
    if untrusting.is_remote:
        assert type(untrusting.exception()) is RunFailedError
        assert "as it must be" in str(untrusting.exception())
        assert f"{untrusting.path}/logs/0" in str(untrusting.exception())


def test_commands_and_ranks_are_copied(place: Where) -> None:
    command = execute("command", "echo one; echo two >&2; exit 3")
    ranks = ranked.run(run_name="ranks").wait()
    copies = place.to(command, "command"), place.to(ranks, "ranks")
    gone(command)
    gone(ranks)
    assert copies[0].exit_code == 3 and copies[0].result() == "two\n"
    assert copies[1].result() == [0, 10] and copies[1].result(rank=1) == 10
    assert place.load("command").result() == "two\n"  # nothing is unpickled


def test_a_traced_block_is_copied_and_not_entered_elsewhere(remote: Where) -> None:
    with localrun.run(name="block") as run:
        print("from inside")
        run.write("made", "made.txt")
    copy = remote.to(run)
    gone(run)
    assert (copy.run_type, str(copy.status), copy.result()) == ("CONTEXT", "COMPLETED", "from inside\n")
    assert remote.read("copy/made.txt") == b"made"
    with pytest.raises(IllegalTransitionError, match="copy it here first"), copy:
        raise AssertionError("it was entered")
    assert remote.load().run_uid == run.run_uid


def test_a_copy_is_copied_on(remote: Where, tmp_path: Path, home: Home) -> None:
    run = work.run(3, run_name="run").wait()
    again = run.to("memory", f"{tmp_path}/between").to("memory", f"{tmp_path}/again")
    gone(run)
    back = remote.to(again).to("here")
    assert back.path == str(home.runs / "run") and back.result() == {"x": 3}
    assert [run.name for run in localrun.get_runs()] == ["run"]
    assert localrun.get_run("run").result() == {"x": 3}
    assert os.stat(back.path).st_mode & 0o777 == 0o700
    assert {path.name for path in home.runs.iterdir()} <= {"run", ".index"}


def test_only_what_is_the_runs_is_copied(place: Where) -> None:
    run = execute("run", "echo x")
    folder, outside = Path(run.path), Path(run.path).parent / "outside"
    outside.write_text("not the run's")
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(folder / "socket"))
    (folder / "venv/bin").mkdir(parents=True)
    (folder / "venv/bin/python").write_text("")
    (folder / ".config.json.tmp").write_text("{")
    (folder / ".result.pkl.0123456789ab.tmp").write_text("")
    checkpoints = folder / "checkpoints"
    (checkpoints / "epoch_1").write_text("weights")
    (checkpoints / "latest").symlink_to("epoch_1")
    (checkpoints / "absolute").symlink_to(checkpoints / "epoch_1")
    (checkpoints / "to_outside").symlink_to("../../outside")
    (checkpoints / "to_folder").symlink_to(folder.parent)
    (checkpoints / "empty").mkdir()
    (checkpoints / "tool").write_text("#!/bin/sh\n")
    (checkpoints / "tool").chmod(0o755)
    kept = {"config.json", "logs/0/rank_0.out", "logs/0/rank_0.err", "logs/0/rank_0.times", "checkpoints/epoch_1",
            "checkpoints/tool"}  # fmt: skip
    copy = place.to(run)
    assert kept <= place.names()
    assert {name for name in place.names() if name.startswith((".", "venv", "pipe", "socket"))} <= {
        ".manifest.json",
        ".lock",
    }
    here = copy.to("here", run.path + "-2") if copy.is_remote else copy
    there = Path(here.path, "checkpoints")
    assert sorted(os.listdir(there)) == ["absolute", "empty", "epoch_1", "latest", "tool"]
    assert os.readlink(there / "latest") == os.readlink(there / "absolute") == "epoch_1"
    assert (os.access(there / "tool", os.X_OK) and not os.access(there / "epoch_1", os.X_OK)) or os.geteuid() == 0


# -- what is there already --------------------------------------------------------------------------------------------


def test_a_run_that_is_there_is_kept(place: Where) -> None:
    first, second = work.run(1, run_name="first").wait(), work.run(2, run_name="second").wait()
    place.to(first)
    before = place.read("copy/config.json")
    with pytest.raises(RunExistsError, match="overwrite=True"):
        place.to(second)
    assert place.read("copy/config.json") == before
    assert place.to(second, overwrite=True).result() == {"x": 2}
    assert place.load(trust=True).result() == {"x": 2}
    archived = f".archive/copy.{first.run_uid}"
    assert place.load(archived, trust=True).result() == {"x": 1}
    assert place.to(first, overwrite=True).result() == {"x": 1}
    assert place.to(second, overwrite=True).result() == {"x": 2}  # there are two of the first in the archive
    assert place.load(archived, trust=True).result() == {"x": 1}
    assert place.names() == place.names(archived)


def test_something_else_that_is_there_is_left_alone(place: Where) -> None:
    run = execute("run", "true")
    place.write("copy/precious.txt", b"mine")
    for overwrite in (False, True):
        with pytest.raises(RunExistsError, match="is no run"):
            place.to(run, overwrite=overwrite)
    assert place.names() == {"precious.txt"}
    with pytest.raises(NotARunError, match=r"no config\.json"):
        place.load()


def test_what_an_interrupted_copy_left_is_not_in_the_way(remote: Where) -> None:
    run = work.run(1, run_name="run").wait()
    remote.write("copy/.copying", b"mine")
    remote.write("copy/result.pkl", b"half")
    remote.write("copy/old", b"of another run")
    with pytest.raises(NotARunError, match="interrupted"):
        remote.load()
    assert remote.to(run).result() == {"x": 1}
    assert not {"old", ".copying"} & remote.names()


def test_half_a_record_is_no_run(remote: Where) -> None:
    run = work.run(1, run_name="run").wait()
    remote.write("copy/.copying", b"mine")
    remote.write("copy/config.json", Path(run.path, "config.json").read_bytes()[:500])
    with pytest.raises(SystemFailureError, match="JSON") as caught:
        remote.load()
    assert "/copy/config.json" in str(caught.value)
    assert remote.to(run).result() == {"x": 1}


def test_active_runs_and_itself_are_refused(place: Where, home: Home) -> None:
    run = submit("run", "sleep 100")
    wait_until(lambda: home.status("run") == "RUNNING")
    with pytest.raises(IllegalTransitionError, match="RUNNING") as caught:
        place.to(run)
    assert caught.value.status == 409
    run.stop()
    assert place.names() == set()
    for target, error in ((run.path, RunExistsError), (f"{run.path}/inside", RunConfigError), (None, RunExistsError)):
        with pytest.raises(error):
            run.to("here", target)
    copy = place.to(run)
    with pytest.raises(RunExistsError):
        copy.to(place.system, copy.path, data_config=place.data_config, overwrite=True)
    assert place.load().reason == "StoppedByUser"


# -- integrity --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["result.pkl", "inputs.pkl", "function.pkl"])
def test_a_corrupt_source_is_not_copied(place: Where, name: str) -> None:
    run = work.run(1, run_name="run").wait()
    result = Path(run.path, name)
    good = result.read_bytes()
    for bad in (good[:-1], good[:-1] + bytes([good[-1] ^ 1]), good + b"x", None):
        result.unlink(missing_ok=True)
        if bad is not None:
            result.write_bytes(bad)
        with pytest.raises(ResultUnavailableError):
            place.to(run)
        with pytest.raises((NotARunError, RunNotFoundError)):
            place.load()
    result.write_bytes(good)
    assert place.to(run).result() == {"x": 1}


def test_a_copy_that_was_altered_is_noticed(remote: Where) -> None:
    run = work.run(1, run_name="run").wait()
    remote.to(run)
    remote.write("copy/logs/0/rank_0.out", b"oUt 1\n")
    loaded = remote.load()
    with pytest.raises(ResultUnavailableError, match=r"rank_0\.out"):
        loaded.stdout()
    assert loaded.stderr() == "err 1\n"
    with pytest.raises(ResultUnavailableError, match=r"rank_0\.out"):
        loaded.to("here", f"{run.path}-2")
    assert not os.path.exists(f"{run.path}-2")


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "a//b", ""])
def test_a_manifest_that_names_what_is_outside_is_refused(memory: Where, name: str) -> None:
    run = work.run(1, run_name="run").wait()
    memory.to(run)
    manifest = json.loads(memory.read("copy/.manifest.json"))
    for evil in (
        {"files": {**manifest["files"], name: {"size": 1}}},
        {"links": {"x": name}},
        {"links": {name: "result.pkl"}},
        {"links": {"y": "checkpoints", "y/z": "x"}},
        {"links": {"y": "x/../../../etc"}},
        {"folders": [name]},
        {"files": 3},
    ):
        memory.write("copy/.manifest.json", json.dumps(manifest | evil).encode())
        with pytest.raises(NotARunError, match="manifest"):
            memory.load()


@pytest.mark.parametrize("odd", [{"name": "two\nlines"}, {"name": "../outside"}, {"name": 3}, {"uid": "../x"}], ids=str)
def test_what_lists_could_not_show_is_not_copied(home: Home, tmp_path: Path, odd: dict[str, Any]) -> None:
    run = execute("run", "true")
    record = home.record("run") | odd
    Path(run.path, "config.json").write_text(json.dumps(record))
    with pytest.raises(NotARunError, match="not the record of a run"):
        localrun.run(path=run.path).to("here", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_copy_is_verified_where_it_is(place: Where) -> None:
    run = work.run(1, run_name="run").wait()
    place.to(run)
    gone(run)
    loaded = place.load()
    assert loaded.verify() is loaded
    place.write("copy/inputs.pkl", b"altered")
    with pytest.raises(ResultUnavailableError, match=r"inputs\.pkl"):
        place.load().verify()


def test_many_artifacts_are_copied(place: Where, tmp_path: Path) -> None:
    """So many that they lie beside the record."""
    names = [f"{number:05}{'x' * 200}" for number in range(1000)]
    (tmp_path / "made").mkdir()
    for name in names:
        (tmp_path / "made" / name).touch()
    with localrun.run(name="block") as run:
        run.log_artifact(tmp_path / "made")
    assert os.path.exists(f"{run.path}/artifacts.jsonl")
    copy = place.to(run)
    gone(run)
    for each in (copy, place.load()):
        assert [os.path.basename(artifact["url"]) for artifact in each.downstream_artifacts] == names


def test_a_folder_that_was_put_there_by_other_means_is_a_run(remote: Where) -> None:
    run = work.run(1, run_name="run").wait()
    for folder, _, names in os.walk(run.path):
        for name in names:
            path = Path(folder, name)
            remote.write(f"copy/{path.relative_to(run.path)}", path.read_bytes())
    loaded = remote.load(trust=True)
    assert loaded.result() == {"x": 1} and str(loaded.logs()) == "out 1\nerr 1\n"
    assert loaded.to("here", f"{run.path}-2").result() == {"x": 1}
    loaded.write("text", "note.txt")
    assert remote.read("copy/note.txt") == b"text"
    assert loaded.result() == {"x": 1}


# -- what can be done with it -----------------------------------------------------------------------------------------


def test_a_remote_run_is_read_and_written_to_and_nothing_else(remote: Where) -> None:
    run = work.run(1, run_name="run").wait()
    copy = remote.to(run)
    for change in ("stop", "cancel", "start", "delete", "save", "withdraw"):
        with pytest.raises(IllegalTransitionError, match="copy it here first"):
            getattr(copy, change)()
    with pytest.raises(IllegalTransitionError):
        copy.update(priority="low")
    with pytest.raises(IllegalTransitionError):
        localrun.update_run_metadata(copy, {"a": 1})
    with pytest.raises(RunConfigError, match="not on this machine"):
        submit("next", "true", after=[copy])
    copy.write("text", "notes/a.txt")
    copy.write(b"bytes", "notes/a.txt")
    assert remote.read("copy/notes/a.txt") == b"bytes"
    for own in ("config.json", "logs/0/rank_0.out", "../x", ".manifest.json"):
        with pytest.raises(RunConfigError):
            copy.write("x", own)
    back = copy.to("here", f"{run.path}-2")
    assert Path(back.path, "notes/a.txt").read_bytes() == b"bytes"
    assert copy.clone(name="clone").wait().result() == {"x": 1}
    with pytest.raises(UntrustedRunError, match="trust=True"):
        remote.load().clone(name="another")


def test_a_copy_here_is_a_run_of_its_own(home: Home) -> None:
    run = work.run(1, run_name="run").wait()
    uid, archive = run.run_uid, home.runs / ".archive"
    run.to("memory", f"{home.path}/kept")
    for _ in range(3):
        run.delete()
        run = localrun.run(path=f"memory://{home.path}/kept", trust=True).to("here")
        assert [(each.name, each.run_uid) for each in localrun.get_runs()] == [("run", uid)]
    assert len(list(archive.iterdir())) == 3
    assert localrun.get_run("run").start().wait().resumption_count == 1
    twin = run.to("here", home.runs / "twin")
    assert {each.path: each.run_uid for each in localrun.get_runs()} == {run.path: uid, twin.path: uid}
    assert twin.wait(1).result() == {"x": 1}
    assert home.tickets() == []


def test_a_run_and_its_copy_are_not_queued_together(home: Home) -> None:
    run = execute("run", "test -e checkpoints/stop || test -e $LOCALRUN_RUN_DIR/checkpoints/go && sleep 100")
    Path(run.path, "checkpoints/go").touch()
    twin = run.to("here", home.runs / "twin")
    run.start()
    wait_until(lambda: home.status("run") == "RUNNING")
    with pytest.raises(IllegalTransitionError, match="its copy"):
        twin.start()
    assert str(twin.refresh().status) in ("COMPLETED", "FAILED")
    run.stop()
    twin.start()
    wait_until(lambda: home.record("twin")["resumptions"][1:] and home.status("twin") == "RUNNING")
    assert twin.stop().resumption_count == 1


def test_handles_pickle_without_what_is_secret(s3: Where, sftp: Where, home: Home, tmp_path: Path) -> None:
    run = work.run(1, run_name="run").wait()
    secret = s3.data_config["secret"]
    copy = s3.to(run)
    pickled = pickle.dumps(copy)
    assert secret.encode() not in pickled and secret not in repr(copy) + repr(vars(copy))
    again = pickle.loads(pickled)
    assert (again.name, again.path, again.status) == ("run", copy.path, copy.status)
    with pytest.raises(RunConfigError, match="data_config"):
        again.result()
    assert localrun.run(path=again.path, data_config=s3.data_config, trust=True).result() == {"x": 1}
    for folder, _, names in os.walk(tmp_path):
        for name in names:
            path = Path(folder, name)
            assert not path.is_file() or secret.encode() not in path.read_bytes(), path
    assert not any(secret.encode() in s3.read(f"copy/{name}") for name in s3.names())
    without = pickle.loads(pickle.dumps(run.to("memory", f"{tmp_path}/x")))
    assert without.result() == {"x": 1}


def test_urls_say_where_and_hide_passwords(sftp: Where, home: Home) -> None:
    run = work.run(1, run_name="run").wait()
    config = dict(sftp.data_config)
    port, user = config.pop("port"), config.pop("username")
    del config["host"]
    url = f"sftp://{user}:wrong-pa55@127.0.0.1:{port}{sftp.base}/copy"
    copy = run.to("ssh", url, data_config=config | {"password": None})
    assert copy.path == f"sftp://127.0.0.1:{port}{sftp.base}/copy"
    assert localrun.run(path=copy.path, data_config=sftp.data_config).run_uid == run.run_uid
    with pytest.raises(RunConfigError, match="not on the system") as caught:
        run.to("s3", url)
    assert "pa55" not in str(caught.value)


def test_the_default_place(sftp: Where, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    run = work.run(1, run_name="run-of-the-moving-tests").wait()
    copy = run.to("memory")
    assert copy.path == "memory://.localrun/runs/run-of-the-moving-tests"
    assert localrun.run("run-of-the-moving-tests", system="memory").run_uid == run.run_uid
    with pytest.raises(RunConfigError, match="path: s3 has no folder for runs"):
        run.to("s3", data_config={"key": "x", "secret": "y"})
    there = run.to("sftp", data_config=sftp.data_config, overwrite=True)
    home_there = Path(pwd.getpwuid(os.getuid()).pw_dir)  # the server doesn't know our HOME
    folder = there.path.partition("127.0.0.1")[2].partition("/")[2]
    try:
        assert Path("/", folder) == home_there / ".localrun/runs/run-of-the-moving-tests"
        assert Path("/", folder).stat().st_mode & 0o777 == 0o700
    finally:
        shutil.rmtree(Path("/", folder))


@pytest.mark.parametrize(
    ("system", "path", "message"),
    [
        ("nowhere", "x", "no file system that fsspec knows"),
        ("memory", "/", "names no folder"),
        ("memory", "s3://bucket/x", "not on the system"),
        ("memory", "zip://a::memory://b", "not on the system"),
        (None, "memory://a::memory://b", "inside another"),
        ("file", "", "path: is empty"),
        (3, "x", "must be 'here'"),
    ],
)
def test_a_place_that_can_not_be_is_refused(home: Home, system: Any, path: str, message: str) -> None:
    with pytest.raises(RunConfigError, match=message):
        localrun.run(path=path, system=system)


def test_a_url_may_say_the_system_too(home: Home) -> None:
    run = execute("run", "echo hello")
    copy = run.to("memory://bucket/url-alone")
    assert copy.path == "memory://bucket/url-alone" and copy.stdout() == "hello\n"


def test_a_data_config_that_is_none_is_refused(home: Home) -> None:
    for strange in (3, "key=x", ["key"]):
        with pytest.raises(RunConfigError, match="data_config: must be a mapping"):
            localrun.run(path="memory://x", data_config=strange)  # type: ignore[arg-type]


def test_a_missing_run_or_server_is_told(remote: Where, home: Home) -> None:
    with pytest.raises(RunNotFoundError, match="no run at"):
        remote.load()
    with pytest.raises(RunNotFoundError):
        localrun.run(path=f"file://{home.path}/nothing")
    if remote.system == "sftp":
        with pytest.raises(SystemFailureError, match="sftp://127"):
            localrun.run(path="/x", system="sftp", data_config=remote.data_config | {"port": 1})
        with pytest.raises(RunConfigError, match="data_config"):
            localrun.run(path="/x", system="sftp")


def test_a_missing_package_is_named(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(localrun.MissingPackageError, match="gcsfs"):
        localrun.run(path="gs://bucket/x")


# -- the process that reads it ----------------------------------------------------------------------------------------


def test_moving_between_folders_needs_no_fsspec(home: Home) -> None:
    execute("run", "true")
    run_python("""
        import sys, localrun
        localrun.get_run("run").to("here", sys.argv[1])
        assert "fsspec" not in sys.modules
    """, home.runs / "copy")  # fmt: skip
    assert localrun.get_run("copy").run_uid == localrun.get_run("run").run_uid


def test_what_was_read_goes_with_the_process(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work.run(1, run_name="run").wait()
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    code = """
        import os, signal, sys, localrun
        copy = localrun.get_run("run").to("memory", "x")
        assert copy.result() == {"x": 1}
        caches = os.listdir(os.environ["TMPDIR"])
        assert len(caches) == 1 and os.stat(f"{os.environ['TMPDIR']}/{caches[0]}").st_mode & 0o777 == 0o700, caches
        if not os.fork():
            assert copy.inputs()["args"] == [1]
            sys.exit()
        assert os.wait()[1] == 0 and copy.result() == {"x": 1} and os.listdir(os.environ["TMPDIR"]) == caches
        if sys.argv[1] == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
    """
    run_python(code, "kill", ok=False)
    assert len(os.listdir(tmp_path / "tmp")) == 1
    run_python(code, "end")
    assert os.listdir(tmp_path / "tmp") == []


def test_a_long_copy_shows_how_far_it_is(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    execute("run", "true")
    localrun.get_run("run").write(b"x" * (64 << 20), "checkpoints/state")
    controller, terminal = os.openpty()
    code = """
        import sys, localrun
        from localrun.api.moving import progress
        progress._QUIET_S = 0
        localrun.get_run("run").to("here", sys.argv[1])
        localrun.import_run(localrun.export_run("run", f"{sys.argv[1]}.tar.gz"), sys.argv[2])
    """
    run_python(code, tmp_path / "copy", "imported", stderr=terminal)
    os.close(terminal)
    shown = b""
    try:
        while piece := os.read(controller, 65536):
            shown += piece
    except OSError:
        pass  # nobody has the terminal any more
    os.close(controller)
    lines = shown.decode().split("\r\x1b[K")
    assert lines[0] == lines[-1] == "" and "copying run run: " in lines[1] and "of 64" in lines[1], lines
    assert any(line.startswith("reading back what was copied: ") and "of 64" in line for line in lines), lines
    assert any(line.startswith("exporting run run: ") and "of 64" in line for line in lines), lines
    assert any(line.startswith("importing copy.tar.gz: ") for line in lines), lines
    silent = run_python(code, tmp_path / "again", "imported-too")
    assert silent.stderr == ""


def test_a_mirror_fetches_whatever_is_read_of_a_folder() -> None:
    """A path that `RunFolder` gains is either fetched, or nothing that a copy has."""
    from localrun.api.moving.mirror import Mirror
    from localrun.model.folder import RunFolder

    only_here = {"lock", "connected", "untrusted", "gate", "outcome", "venv", "logs", "log_source"}
    only_here |= {"archived", "is_archived"}
    not_read = {"checkpoints", "work", "code", "export"}
    layout = {name for name, value in vars(RunFolder).items() if isinstance(value, property) or callable(value)}
    named = {name for name in layout if not name.startswith("_")}
    assert named - only_here - not_read == {name for name in vars(Mirror) if name in named}
