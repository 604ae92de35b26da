"""Interactive runs hold what they asked for, for their time; whoever connects to a run is in it, and ends with it."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support import TERMINAL, Home, find_processes, is_alive, kill, start_python, submit, wait_until

from localrun import (
    RunConfig,
    RunConfigError,
    RunNotFoundError,
    RunNotRunningError,
    Secret,
    connect,
    create_interactive_run,
    create_secret,
    get_run,
    wait_for_run_status,
)
from localrun.engine import processes
from localrun.engine.supervision import connection

CONNECT = "import sys, localrun; sys.exit(localrun.connect(sys.argv[1], sys.argv[2] if sys.argv[2:] else None))"


def started(name: str, command: str = "sleep 1000", **fields: object) -> Any:
    """A run that is RUNNING."""
    return wait_for_run_status(submit(name, command, **fields), "RUNNING", 60)


def inside(run: str, command: str | None = None) -> subprocess.Popen[str]:
    """A process that connects to a run, with the command it starts there."""
    return start_python(CONNECT, run, *([] if command is None else [command]), stdin=subprocess.PIPE)


def said(run: str, command: str) -> str:
    """What a command inside a run says."""
    child = inside(run, command)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (0, ""), err
    return str(out)


def words(place: Path, name: str, count: int = 1) -> list[int]:
    """Numbers that processes have written, once there are so many."""
    return wait_until(lambda: read if len(read := _numbers(place / name)) >= count else [])


def _numbers(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()] if path.exists() else []


# -- interactive runs -------------------------------------------------------------------------------------------------


def test_it_is_completed_when_its_time_is_over(home: Home) -> None:
    run = create_interactive_run(RunConfig(), seconds=0.1).wait(60)
    assert (run.status.value, run.reason, run.run_type) == ("COMPLETED", "Completed", "INTERACTIVE")
    assert run.name.startswith("interactive-")


def test_its_time_and_its_name(home: Home) -> None:
    config = RunConfig(name="desk", command="mine", metadata={"for": ["me"]})
    before = config.to_mapping()
    run = create_interactive_run(config, hours=0.5)
    assert (run.name, run.cmds, run.metadata) == ("desk", ["sleep 1800"], {"for": ["me"]})
    assert config.to_mapping() == before
    by_default = create_interactive_run({"compute": {"cpus": 0}}, future=True).result(60)
    assert by_default.cmds == ["sleep 3600"]
    long = create_interactive_run({"compute": {"cpus": 0}}, seconds=1234567.25)
    assert long.cmds == ["sleep 1234567.25"]
    for each in (run, by_default, long):
        each.stop(timeout=60)


def test_a_copy_of_it_is_interactive_too(home: Home) -> None:
    run = create_interactive_run({"name": "desk"}, seconds=0.1).wait(60)
    again = run.clone().wait(60)
    assert (again.run_type, again.cmds, again.status.value) == ("INTERACTIVE", ["sleep 0.1"], "COMPLETED")


@pytest.mark.parametrize("time", [0, -1, float("nan"), float("inf"), True, "2", 1e9])
@pytest.mark.parametrize("unit", ["hours", "seconds"])
def test_a_time_that_is_none_is_refused(home: Home, unit: str, time: object) -> None:
    with pytest.raises(RunConfigError, match=rf"^{unit}: must be a number, more than 0 and at most a year") as refused:
        create_interactive_run({}, **{unit: time})
    assert refused.value.status == 400
    assert not home.runs.exists()


def test_two_times_are_refused(home: Home) -> None:
    with pytest.raises(RunConfigError, match="hours: give either hours or seconds"):
        create_interactive_run({}, hours=1, seconds=1)


def test_when_its_time_is_over_its_shells_end_with_it(home: Home, tmp_path: Path) -> None:
    create_interactive_run({"name": "desk"}, seconds=4)
    wait_for_run_status("desk", "RUNNING", 60)
    shell = inside("desk", f"setsid sleep 1000 & echo $! $$ >'{tmp_path}/pids'; sleep 1000")
    pids = words(tmp_path, "pids", 2)
    run = get_run("desk").wait(60)
    assert run.status.value == "COMPLETED"
    assert not any(map(is_alive, pids))
    assert shell.wait(60) == 128 + signal.SIGTERM


# -- inside a run -----------------------------------------------------------------------------------------------------


def test_a_command_has_what_the_run_has(home: Home, tmp_path: Path) -> None:
    place = tmp_path / "a 'b'"
    place.mkdir()
    run = started("run", env_variables={"MINE": "a\n'b'"}, cwd=str(place))
    program = 'printf "%s|" "$RUN_NAME" "$RESUMPTION_INDEX" "$CUDA_VISIBLE_DEVICES" "$MINE" "$LOCALRUN_RUN_UID" "$PWD"'
    assert said("run", program) == f"run|0||a\n'b'|{run.run_uid}|{place}|"
    run.stop()


@pytest.mark.parametrize(("command", "code"), [("true", 0), ("exit 7", 7), ("kill -9 $$", 137), ("no-such", 127)])
def test_its_exit_code_is_given_back(home: Home, command: str, code: int) -> None:
    run = started("run")
    assert inside("run", command).wait(60) == code
    assert run.refresh().status.value == "RUNNING"
    run.stop()


def test_a_list_is_a_program_and_its_arguments(home: Home) -> None:
    run = started("run")
    assert connect("run", ["test", "$HOME; exit 1", "=", "$HOME; exit 1"]) == 0
    run.stop()


def test_without_a_command_it_is_the_users_shell(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    run = started("run", env_variables={"SHELL": "/bin/false"})
    monkeypatch.setenv("SHELL", "/bin/sh")
    child = inside("run")
    assert child.communicate("echo $0 $RUN_NAME; exit 3\n", timeout=60) == ("/bin/sh run\n", "")
    assert child.returncode == 3
    run.stop()


def test_the_terminal_is_that_of_whoever_connects(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    run = started("run")
    monkeypatch.setenv("TERM", "xterm-special")
    assert said("run", "echo $TERM") == "xterm-special\n"
    run.stop()


def test_a_function_can_be_looked_into(home: Home) -> None:
    code = """
        import localrun, time
        @localrun.function
        def work():
            time.sleep(1000)
        work.run(run_name="run")
    """
    start_python(code).wait(60)
    run = wait_for_run_status("run", "RUNNING", 60)
    assert said("run", "echo $RUN_NAME ${LOCALRUN_SYS_PATH-none}") == "run none\n"
    run.stop()


def test_it_has_the_runs_secrets(home: Home) -> None:
    create_secret(Secret("token", value="hush"))
    run = started("run")
    assert said("run", "echo $TOKEN") == "hush\n"
    assert b"hush" not in Path(run.path, "config.json").read_bytes()
    run.stop()


def test_each_rank_has_its_own(home: Home) -> None:
    run = started("run", "[ $RANK = 0 ] && exit 0; sleep 1000", nproc_per_node=3, cpus=0)
    first = home.rank("run")
    assert first is not None
    wait_until(lambda: not is_alive(first))
    assert said("run", "echo $RANK") == "1\n"
    with pytest.raises(RunNotRunningError, match="run run: its rank 0 isn't running"):
        connect("run", "true", rank=0)
    with pytest.raises(RunConfigError, match="rank: run run has ranks 0 to 2, not 3"):
        connect("run", "true", rank=3)
    run.stop()


# -- refused ----------------------------------------------------------------------------------------------------------


def test_a_run_that_waits_has_no_inside(home: Home, tmp_path: Path) -> None:
    first = started("first", cpus=len(os.sched_getaffinity(0)))
    second = submit("second", "true")
    with pytest.raises(RunNotRunningError, match="run second is QUEUED, not RUNNING: 'localrun wait second") as refused:
        connect("second")
    assert refused.value.status == 409
    second.stop()
    first.stop()


def test_a_run_that_has_ended_has_none_either(home: Home) -> None:
    submit("run", "exit 3").wait(60)
    with pytest.raises(RunNotRunningError, match=r"run run has ended: it is FAILED \(Error: exit code 3\)"):
        connect("run", "true")


def test_no_run_and_no_program(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunNotFoundError):
        connect("none")
    run = started("run")
    monkeypatch.setenv("SHELL", "/no/such/shell")
    with pytest.raises(RunConfigError, match="/no/such/shell can't be started in run run: No such file"):
        connect("run")
    run.stop()


# -- the end ----------------------------------------------------------------------------------------------------------


def test_a_run_that_ends_by_itself_takes_them_along(home: Home, tmp_path: Path) -> None:
    run = started("run", f"until [ -e '{tmp_path}/go' ]; do sleep 0.02; done", stop_grace=60)
    inside("run", f"trap 'sleep 0.3; echo $$ >>\"{tmp_path}/left\"; exit' TERM; echo $$ >'{tmp_path}/pid'; "
           "while :; do sleep 0.02; done")  # fmt: skip
    pid = words(tmp_path, "pid")[0]
    (tmp_path / "go").touch()
    record = run.wait(60)
    assert (record.status.value, record.exit_code) == ("COMPLETED", 0)
    assert words(tmp_path, "left") == [pid]
    assert not is_alive(pid)


def test_a_stop_ends_every_process(home: Home, tmp_path: Path) -> None:
    run = started("run", stop_grace=0.3)
    daemon = f"(setsid bash -c 'echo $$ >>\"{tmp_path}/pids\"; trap \"\" TERM HUP; while :; do sleep 0.02; done' &)"
    for _ in range(2):
        assert inside("run", daemon).wait(60) == 0
    stopped = f"echo $$ >>'{tmp_path}/pids'; kill -STOP $$"
    inside("run", stopped)
    pids = words(tmp_path, "pids", 3)
    ended = run.stop(timeout=60)
    assert (ended.status.value, ended.reason) == ("STOPPED", "StoppedByUser")
    assert not any(map(is_alive, pids))
    assert not (Path(ended.path) / ".connected").exists()


def test_a_process_that_is_stopped_hears_of_the_end(home: Home, tmp_path: Path) -> None:
    run = started("run", stop_grace=1000)
    child = inside("run", f"trap 'echo saved; exit 5' TERM; echo $$ >'{tmp_path}/pid'; kill -STOP $$; sleep 1000")
    pid = words(tmp_path, "pid")[0]
    wait_until(lambda: Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T")
    run.stop(timeout=60)
    assert child.communicate(timeout=60)[0] == "saved\n"
    assert child.returncode == 5


def test_they_end_with_a_run_that_is_tried_again(home: Home, tmp_path: Path) -> None:
    command = f"[ $RESUMPTION_INDEX = 1 ] && exit; until [ -e '{tmp_path}/go' ]; do sleep 0.02; done; exit 1"
    run = started("run", command, max_retries=1)
    inside("run", f"echo $$ >'{tmp_path}/pid'; sleep 1000")
    pid = words(tmp_path, "pid")[0]
    (tmp_path / "go").touch()
    wait_until(lambda: not is_alive(pid))
    assert run.wait(60).status.value == "COMPLETED"


def test_they_end_with_a_run_whose_supervisor_is_lost(home: Home, tmp_path: Path) -> None:
    run = started("run", stop_grace=0.3)
    inside("run", f"trap '' HUP; echo $$ >'{tmp_path}/pid'; sleep 1000")
    pid = words(tmp_path, "pid")[0]
    kill(home.supervisor("run"))
    assert run.wait(60).reason == "SystemFailure"
    assert not is_alive(pid)


def test_whoever_loses_the_connection_is_hung_up(home: Home, tmp_path: Path) -> None:
    run = started("run")
    child = inside("run", f"echo $$ >'{tmp_path}/pid'; exec sleep 1000")
    pid = words(tmp_path, "pid")[0]
    child.kill()
    wait_until(lambda: not is_alive(pid))
    assert run.refresh().status.value == "RUNNING"
    run.stop()


def test_nobody_comes_in_unseen_while_a_run_ends(home: Home, tmp_path: Path) -> None:
    """Many connect over and over while runs end; whoever was let in is gone by the time the record says the end."""
    for number in range(3):
        name, go = f"run-{number}", tmp_path / f"go-{number}"
        run = started(name, f"until [ -e '{go}' ]; do sleep 0.01; done", stop_grace=60)
        code = """
            import sys, localrun
            try:
                while True:
                    localrun.connect(sys.argv[1], "sleep 0.01")
            except localrun.RunNotRunningError:
                pass
        """
        children = [start_python(code, name) for _ in range(2)]
        wait_until((Path(run.path) / ".connected").exists)
        go.touch()
        wait_until(lambda name=name: home.status(name) in TERMINAL, 60)
        assert find_processes(f"LOCALRUN_RUN_UID={run.run_uid}") == []
        assert [child.communicate(timeout=60)[1] for child in children] == ["", ""]
        assert home.status(name) == "COMPLETED"


def test_a_process_that_is_being_executed_has_no_environment_yet() -> None:
    mark = f"{processes.MARK}=0123456789abcdef"
    program = subprocess.Popen(["/bin/sh", "-c", f"sleep 0.3; exec env {mark} MINE=it sleep 1000"], env={})
    try:
        record = {"name": "run", "uid": "0123456789abcdef"}
        assert connection._environment(program.pid, record)["MINE"] == "it"
        assert connection._environment(program.pid, record | {"uid": "another"})["MINE"] == "it"
    finally:
        program.kill()
        program.wait()
