"""What holds for processes and containers alike: the same tests, made with both."""

from __future__ import annotations

import functools
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
from support import Home, execute, record_of, start_python, stderr_bytes, stdout_bytes, submit, wait_until

import localrun

Kind = dict[str, Any]


def wrote(run: Any) -> bytes:
    """What a run has written by now, nothing before it started."""
    try:
        return stdout_bytes(run)
    except FileNotFoundError:
        return b""


@pytest.mark.parametrize(
    ("command", "status", "reason", "code", "name"),
    [
        ("true", "COMPLETED", "Completed", 0, None),
        ("exit 3", "FAILED", "Error", 3, None),
        ("exit 125", "FAILED", "Error", 125, None),
        ("exit 255", "FAILED", "Error", 255, None),
        ("touch f; ./f", "FAILED", "Error", 126, None),
        ("no-such-command-here", "FAILED", "Error", 127, None),
        ("kill -SEGV $$", "FAILED", "Killed", 139, "SIGSEGV"),
        ("kill -KILL $$", "FAILED", "Killed", 137, "SIGKILL"),
        ("kill -TERM $$", "FAILED", "Killed", 143, "SIGTERM"),
    ],
)
def test_how_a_command_ends(
    kind: Kind, home: Home, tmp_path: Path, command: str, status: str, reason: str, code: int, name: str | None
) -> None:
    run = execute("run", command, cwd=str(tmp_path), **kind)
    assert (run.status.value, run.reason, run.exit_code, run.signal) == (status, reason, code, name)
    record = home.record("run")
    phases = [phase["status"] for phase in record["lifecycle"]]
    assert phases == ["PENDING", "QUEUED", "STARTING", "RUNNING", "TERMINATING", status]
    assert (record["supervisor"], record["ranks"]) == (None, [])


def test_bytes_are_exact(kind: Kind, home: Home, tmp_path: Path) -> None:
    data = b"\xff\xfe\x80 \x00\x00\r\n" + bytes(range(256)) + b"no newline"
    (tmp_path / "data").write_bytes(data)
    run = execute("run", "cat data; cat data >&2", cwd=str(tmp_path), **kind)
    assert stdout_bytes(run) == data
    assert stderr_bytes(run) == data


def test_much_output_is_all_there(kind: Kind, home: Home, tmp_path: Path) -> None:
    run = execute("run", "seq 300000; seq 300000 >&2", cwd=str(tmp_path), **kind)
    wanted = "".join(f"{i}\n" for i in range(1, 300001)).encode()
    assert stdout_bytes(run) == stderr_bytes(run) == wanted


def test_what_a_run_is_told(kind: Kind, home: Home, tmp_path: Path) -> None:
    given = {"A": "1", "MULTI": "a\nb", "LONG": "x" * 90_000, "PATH": os.environ["PATH"], "E": "", "HASH": "'\" #$A"}
    run = execute("run", "env -0", cwd=str(tmp_path), env_variables=given, stop_grace=2.5, parameters={"a": 1}, **kind)
    seen = dict(entry.split("=", 1) for entry in stdout_bytes(run).decode().split("\0") if entry)
    folder = str(home.runs / "run")
    own = {
        "RUN_NAME": "run", "LOCALRUN_RUN_NAME": "run", "LOCALRUN_RUN_DIR": folder, "RESUMPTION_INDEX": "0",
        "LOCALRUN_CHECKPOINT_DIR": f"{folder}/checkpoints", "LOCALRUN_STOP_GRACE_S": "2.5",
        "PARAMETERS": f"{folder}/parameters.yaml", "NODE_RANK": "0", "WORLD_SIZE": "1", "CUDA_VISIBLE_DEVICES": "",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID", "PYTHONUNBUFFERED": "1",
    }  # fmt: skip
    assert {name: seen.get(name) for name in given | own} == given | own


def test_its_surroundings(kind: Kind, home: Home, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        run = submit("run", "pwd; umask; readlink /proc/self/fd/0; id -u; id -g; touch made", cwd=str(tmp_path), **kind)
    finally:
        os.umask(before)
    assert run.result(60).split() == [str(tmp_path), "0027", "/dev/null", str(os.geteuid()), str(os.getegid())]
    made = (tmp_path / "made").stat()
    assert (made.st_uid, made.st_gid, made.st_mode & 0o777) == (os.geteuid(), os.getegid(), 0o640)


def test_its_cpus_and_niceness(kind: Kind, home: Home, tmp_path: Path) -> None:
    code = f"""
import os, localrun
os.nice(5)
os.sched_setaffinity(0, {{max(os.sched_getaffinity(0))}})
command = "echo $(awk '/Cpus_allowed_list/ {{print $2}}' /proc/self/status) $(awk '{{print $19}}' /proc/self/stat)"
print(max(os.sched_getaffinity(0)), 5, "=", localrun.create_run(
    localrun.RunConfig(name="run", command=command, **{kind!r}), ).result(60))
"""
    child = start_python(code, cwd=tmp_path)
    out, _ = child.communicate(timeout=90)
    assert out.split("=")[0].split() == out.split("=")[1].split()


def test_its_folder_holds_what_it_should(kind: Kind, home: Home, tmp_path: Path) -> None:
    run = execute("run", "true", cwd=str(tmp_path), **kind)
    files = {"config.json", "provenance.json", ".lock"}
    assert {path.name for path in Path(run.path).iterdir()} == files | {"checkpoints", "logs"}
    assert {path.name for path in Path(run.path, "logs", "0").iterdir()} == {"rank_0.out", "rank_0.err"}


class TestStopping:
    def test_every_process_is_asked_once(self, kind: Kind, home: Home, tmp_path: Path) -> None:
        trap = "trap 'echo asked; sleep 0.3; exit 7' TERM; echo up; while :; do sleep 0.05; done"
        run = submit("run", f"({trap}) & setsid sh -c \"{trap}\" & {trap}", cwd=str(tmp_path), **kind)
        wait_until(lambda: wrote(run).count(b"up") == 3)
        run.stop()
        assert (run.status.value, run.reason, run.exit_code) == ("STOPPED", "StoppedByUser", 7)
        assert stdout_bytes(run).count(b"asked") == 3

    def test_after_the_grace_it_is_killed(self, kind: Kind, home: Home, tmp_path: Path) -> None:
        command = "trap '' TERM; echo up; while :; do sleep 0.05; done"
        run = submit("run", command, cwd=str(tmp_path), stop_grace=1, **kind)
        wait_until(lambda: wrote(run))
        began = time.monotonic()
        run.stop()
        assert time.monotonic() - began >= 1
        assert (run.status.value, run.exit_code, run.signal) == ("STOPPED", 137, "SIGKILL")

    def test_a_stop_while_it_starts(self, kind: Kind, home: Home, tmp_path: Path) -> None:
        run = submit("run", "sleep 1000", cwd=str(tmp_path), **kind)
        wait_until(lambda: home.status("run") != "QUEUED")
        run.stop(timeout=20)
        assert (run.status.value, run.reason) == ("STOPPED", "StoppedByUser")

    def test_max_duration(self, kind: Kind, home: Home, tmp_path: Path) -> None:
        run = execute("run", "sleep 1000", cwd=str(tmp_path), max_duration=1.5 / 3600, stop_grace=5, **kind)
        assert (run.status.value, run.reason) == ("STOPPED", "MaxDurationExceeded")


def test_retries(kind: Kind, home: Home, tmp_path: Path) -> None:
    command = 'echo $RESUMPTION_INDEX; [ $RESUMPTION_INDEX = 1 ] || exit 4'
    run = execute("run", command, cwd=str(tmp_path), max_retries=3, **kind)
    assert (run.status.value, run.resumption_count) == ("COMPLETED", 1)
    assert [stdout_bytes(run, attempt) for attempt in (0, 1)] == [b"0\n", b"1\n"]
    assert [each["exit_code"] for each in home.record("run")["resumptions"]] == [4, 0]


def test_preemption(kind: Kind, home: Home, tmp_path: Path) -> None:
    from localrun.engine.dispatch.capacity import capacity

    every = capacity().cpus
    command = "trap 'exit 0' TERM; echo $RESUMPTION_INDEX; [ $RESUMPTION_INDEX = 1 ] || while :; do sleep 0.05; done"
    low = submit("low", command, cwd=str(tmp_path), cpus=every, priority="low", preemptible=True, **kind)
    wait_until(lambda: wrote(low))
    execute("high", "true", cwd=str(tmp_path), cpus=every, priority="high", **kind)
    low.wait(60)
    assert (low.status.value, low.resumption_count) == ("COMPLETED", 1)
    assert home.record("low")["resumptions"][0]["reason"] == "Preempted"


class TestRanks:
    def test_each_has_its_number_and_logs(self, kind: Kind, home: Home, tmp_path: Path) -> None:
        run = execute("run", "echo $RANK/$WORLD_SIZE $MASTER_ADDR", cwd=str(tmp_path), nproc_per_node=3, **kind)
        assert run.status.value == "COMPLETED"
        assert [run.stdout(rank=rank) for rank in range(3)] == [f"{rank}/3 127.0.0.1\n" for rank in range(3)]

    def test_they_share_memory_and_network(self, kind: Kind, home: Home, tmp_path: Path) -> None:
        command = """
            if [ $RANK = 0 ]; then echo hello >/dev/shm/$RUN_NAME.$MASTER_PORT
            else until [ -e /dev/shm/$RUN_NAME.$MASTER_PORT ]; do sleep 0.01; done; cat /dev/shm/$RUN_NAME.$MASTER_PORT
                rm /dev/shm/$RUN_NAME.$MASTER_PORT; fi
            readlink /proc/self/ns/net /proc/self/ns/ipc
        """
        run = execute("run", command, cwd=str(tmp_path), nproc_per_node=2, **kind)
        assert run.stdout(rank=1) == "hello\n" + run.stdout(rank=0)

    def test_one_that_fails_ends_the_others(self, kind: Kind, home: Home, tmp_path: Path) -> None:
        command = "[ $RANK = 1 ] && exit 5; trap 'echo asked; exit' TERM; while :; do sleep 0.05; done"
        run = execute("run", command, cwd=str(tmp_path), nproc_per_node=3, **kind)
        assert (run.status.value, run.reason, run.exit_code, run.failed_rank) == ("FAILED", "Error", 5, 1)
        assert "rank 1" in run.message


def test_commands_one_after_another(kind: Kind, home: Home, tmp_path: Path) -> None:
    cluster = localrun.get_cluster()
    ended = cluster.run(["echo a", "echo b >&2; exit 3", "echo c"], cwd=str(tmp_path), stream_logs=False, **kind)
    assert ended == [(0, "a\n", ""), (3, "", "b\n"), (0, "c\n", "")]


def test_secrets(kind: Kind, home: Home, tmp_path: Path) -> None:
    localrun.create_secret(localrun.Secret("token", value="hush"))
    localrun.create_secret(localrun.Secret("file", "mounted", "line\nline"))
    run = execute("run", 'echo $TOKEN; cat "$SECRET_PATH_FILE"', cwd=str(tmp_path), **kind)
    assert run.stdout() == "hush\nline\nline"
    assert "hush" not in Path(run.path, "config.json").read_text()


class CustomError(Exception):
    """An exception of the user's own."""


def add(a: int, b: int = 0) -> int:
    import sys

    print("adding", file=sys.stderr)
    return a + b


def fail(text: str) -> None:
    raise CustomError(text)


def leave(code: int) -> None:
    os._exit(code)


def rank_of() -> str:
    return os.environ["RANK"]


class TestFunctions:
    @pytest.fixture
    def function(self, kind: Kind, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.chdir(tmp_path)
        return functools.partial(localrun.function, **kind)

    def test_a_value(self, function: Any) -> None:
        run = function()(add).run(1, b=2)
        assert run.result(60) == 3
        assert run.stderr() == "adding\n"

    def test_an_exception(self, function: Any) -> None:
        run = function()(fail).run("why")
        with pytest.raises(CustomError, match="why"):
            run.result(60)
        assert "in fail" in run.stderr()
        assert (run.status.value, run.reason) == ("FAILED", "Error")

    @pytest.mark.parametrize("code", [0, 7])
    def test_one_that_leaves(self, function: Any, code: int) -> None:
        run = function()(leave).run(code).wait(60)
        assert (run.status.value, run.reason, run.exit_code) == ("FAILED", "Error", code)
        assert re.search("returned nothing", run.message)

    def test_ranks(self, function: Any) -> None:
        assert function(nproc_per_node=2)(rank_of).run().result(60) == ["0", "1"]

    def test_files_are_the_callers(self, function: Any) -> None:
        run = function()(add).run(1).wait(60)
        for path in Path(run.path).rglob("*"):
            assert (path.stat().st_uid, path.stat().st_mode & 0o077) == (os.geteuid(), 0), path
        assert record_of(run.path)["status"] == "COMPLETED"
