"""A stop leaves nothing of a run: whatever it ignores, wherever its processes hide, and in the time that was given."""

from __future__ import annotations

import os
import re
import signal
import sys
import textwrap
import time
from pathlib import Path

import pytest
from support import CPUS, Home, is_alive, kill, look, record_of, start_python, stdout_bytes, submit, wait_until

import localrun
from localrun import RunStatus

# Ignores SIGTERM; has a grandchild in a session of its own, a daemon forked twice, one of each without environment.
STUBBORN = r"""
trap '' TERM
sleep_forever='trap "" TERM; echo pid $BASHPID; while :; do sleep 100; done'
setsid bash -c "$sleep_forever" &
( ( setsid bash -c "$sleep_forever" & ) & )
env -i setsid /bin/bash -c "$sleep_forever" &
( ( env -i setsid /bin/bash -c "$sleep_forever" </dev/null & ) & )
bash -c "$sleep_forever" &
echo pid $$
while :; do sleep 100; done
"""
COUNT = 6


def pids(run: localrun.Run, count: int = COUNT) -> list[int]:
    """The processes that a run told of, once all have."""

    def told() -> list[int]:
        found = [int(pid) for pid in re.findall(rb"pid (\d+)\n", stdout_bytes(run))]
        assert len(found) >= count, found
        return found

    wait_until(lambda: record_of(run.path)["status"] not in ("QUEUED", "STARTING"))
    return wait_until(told)


def all_gone(found: list[int]) -> bool:
    left = [str(look(pid)) for pid in found if is_alive(pid)]
    assert not left, left
    return True


def test_nothing_is_left_of_a_stubborn_run(home: Home) -> None:
    run = submit("run", STUBBORN, stop_grace=0.5)
    found = pids(run)
    start = time.monotonic()
    assert localrun.stop_run("run", timeout=60).status is RunStatus.STOPPED
    taken = time.monotonic() - start
    assert all_gone(found)
    assert taken >= 0.5
    record = home.record("run")
    assert (record["reason"], record["exit_code"], record["signal"]) == ("StoppedByUser", 137, "SIGKILL")
    assert [phase["status"] for phase in record["lifecycle"]][-3:] == ["RUNNING", "TERMINATING", "STOPPED"]


def test_nothing_is_left_of_a_stubborn_run_that_lost_its_supervisor(home: Home) -> None:
    run = submit("run", STUBBORN, stop_grace=0.2)
    found = pids(run)
    kill(home.supervisor("run"))
    assert run.wait(60).status is RunStatus.FAILED
    assert run.reason == "SystemFailure"
    assert all_gone(found)


def test_nothing_is_left_of_a_stubborn_run_whose_command_ends(home: Home) -> None:
    run = submit("run", STUBBORN.replace("while :; do sleep 100; done\n", "sleep 0.3; exit 7\n"), stop_grace=0.2)
    found = pids(run)
    assert run.wait(60).exit_code == 7
    assert all_gone(found)


@pytest.mark.parametrize("grace", [0, 0.5, 1.5])
def test_the_grace_is_honoured_to_within_half_a_second(home: Home, grace: float) -> None:
    """Measured by the run itself: from the signal to its last sign of life."""
    command = """
        trap 'date +%s.%N' TERM
        echo up
        while :; do date +%s.%N > alive.tmp; mv alive.tmp alive; sleep 0.01; done
    """
    run = submit("run", command, stop_grace=grace, cwd=str(home.place))
    wait_until(lambda: (home.place / "alive").exists())
    run.stop(timeout=60)
    assert run.status is RunStatus.STOPPED
    termed = [float(each) for each in re.findall(r"\d+\.\d+", run.stdout())]
    killed = float((home.place / "alive").read_text())
    if grace:
        assert len(termed) == 1
        assert grace - 0.5 <= killed - termed[0] <= grace + 0.5
    else:
        assert run.signal in ("SIGKILL", "SIGTERM")


def test_a_run_that_uses_the_grace_well_is_not_kept_waiting(home: Home) -> None:
    run = submit("run", "trap 'echo saved; exit 3' TERM; echo up; while :; do sleep 0.01; done", stop_grace=1000)
    wait_until(lambda: Path(run.path, "logs/0/rank_0.out").exists() and stdout_bytes(run))
    run.stop(timeout=60)
    assert (run.status, run.reason, run.exit_code) == (RunStatus.STOPPED, "StoppedByUser", 3)
    assert run.stdout() == "up\nsaved\n"


def test_every_process_gets_the_signal_itself(home: Home) -> None:
    """A child of the command is told to save its work too, not only its parent."""
    child = 'trap "echo child; exit" TERM; echo up; while :; do sleep 0.01; done'
    run = submit("run", f"setsid bash -c '{child}' & trap 'wait; echo parent; exit' TERM; wait", stop_grace=1000)
    wait_until(lambda: Path(run.path, "logs/0/rank_0.out").exists() and stdout_bytes(run))
    run.stop(timeout=60)
    assert sorted(run.stdout().split()) == ["child", "parent", "up"]


def test_a_fork_bomb_ends(home: Home) -> None:
    """New processes appear while the others are killed."""
    code = """
        import os, signal, sys, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("pid", os.getpid(), flush=True)
        until = time.monotonic() + 100  # whatever becomes of the test
        while time.monotonic() < until:
            time.sleep(0.02)
            if os.fork():
                os._exit(0)
            os.setsid()
    """
    program = home.place / "bomb.py"
    program.write_text(textwrap.dedent(code))
    run = submit("run", f"{sys.executable} {program}; sleep 1000", stop_grace=0.1)
    pids(run, 1)
    assert run.stop(timeout=60).status is RunStatus.STOPPED
    assert [each for each in home.leftovers() if "bomb.py" in each.command] == []


def test_a_stopped_process_is_killed_too(home: Home) -> None:
    run = submit("run", "echo pid $$; kill -STOP $$; sleep 1000", stop_grace=0.3)
    found = pids(run, 1)
    assert run.stop(timeout=60).status is RunStatus.STOPPED
    assert all_gone(found)


def test_a_process_whose_first_thread_has_ended_is_killed_too(home: Home) -> None:
    """In /proc it looks like a zombie."""
    program = home.place / "headless.py"
    program.write_text("""
import ctypes, os, signal, threading, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
def go_on():
    print("pid", os.getpid(), flush=True)
    time.sleep(1000)
threading.Thread(target=go_on).start()
ctypes.CDLL(None).pthread_exit(None)
""")
    run = submit("run", f"exec {sys.executable} {program}", stop_grace=0.3)
    found = pids(run, 1)
    try:
        assert run.stop(timeout=30).status is RunStatus.STOPPED
        assert all_gone(found)
    finally:
        for pid in found:
            kill(pid)


class TestMoment:
    def test_a_stop_that_comes_as_the_run_exits_changes_nothing(self, home: Home) -> None:
        """The run ends on its own about when it is asked to: STOPPED where the signal came first, else COMPLETED."""
        ends = set()
        for i in range(20):
            run = submit(f"run-{i}", "echo up; exit 0")
            wait_until(lambda run=run: Path(run.path, "logs/0/rank_0.out").exists())
            time_to_let_pass = i % 5
            for _ in range(time_to_let_pass):
                os.sched_yield()
            run.stop(timeout=60)
            record = home.record(f"run-{i}")
            ends.add(record["status"])
            if record["status"] == "COMPLETED":
                assert (record["reason"], record["exit_code"]) == ("Completed", 0)
            else:
                assert (record["status"], record["reason"]) == ("STOPPED", "StoppedByUser")
        assert ends <= {"COMPLETED", "STOPPED"}

    def test_a_stop_after_the_exit_and_before_the_record_leaves_completed(self, home: Home) -> None:
        os.mkfifo(home.place / "go")
        run = submit("run", "echo up; read < go; exit 0", cwd=str(home.place))
        supervisor, rank = home.freeze("run"), home.rank("run")
        assert rank is not None
        (home.place / "go").write_text("go\n")
        wait_until(lambda: not is_alive(rank))
        assert localrun.stop_run("run", timeout=0).status is RunStatus.RUNNING
        kill(supervisor, signal.SIGCONT)
        assert run.wait(30).status is RunStatus.COMPLETED
        assert (run.reason, run.exit_code) == ("Completed", 0)

    def test_a_queued_run_goes_straight_to_stopped(self, home: Home) -> None:
        blocker = submit("blocker", "sleep 1000", cpus=CPUS)
        wait_until(lambda: home.status("blocker") == "RUNNING")
        run = submit("run", "echo never")
        assert run.stop().status is RunStatus.STOPPED
        assert [phase.status.value for phase in run.lifecycle] == ["PENDING", "QUEUED", "STOPPED"]
        assert run.started_at is None
        assert home.tickets("waiting") == []
        blocker.stop()
        assert run.refresh().status is RunStatus.STOPPED

    def test_a_run_that_is_starting_is_stopped(self, home: Home) -> None:
        for i in range(10):
            run = submit(f"run-{i}", "sleep 1000", stop_grace=5)
            assert run.stop(timeout=30).status is RunStatus.STOPPED
        wait_until(lambda: home.tickets() == [])

    def test_stopping_twice_and_stopping_an_ended_one(self, home: Home) -> None:
        run = submit("run", "sleep 1000")
        wait_until(lambda: home.status("run") == "RUNNING")
        run.stop("first")
        run.stop("second")
        assert "first" in run.message
        ended = submit("ended", "true").wait(30)
        assert ended.stop().status is RunStatus.COMPLETED

    def test_a_stop_is_not_answered_by_a_retry(self, home: Home) -> None:
        run = submit("run", "echo up; sleep 1000", max_retries=5, retry_on_system_failure=True)
        wait_until(lambda: home.status("run") == "RUNNING")
        run.stop()
        assert run.status is RunStatus.STOPPED
        assert run.resumption_count == 0

    def test_a_stop_as_a_run_fails_starts_no_other_attempt(self, home: Home) -> None:
        os.mkfifo(home.place / "go")
        run = submit("run", "echo up; read < go; exit 1", cwd=str(home.place), max_retries=5)
        supervisor, rank = home.freeze("run"), home.rank("run")
        assert rank is not None
        (home.place / "go").write_text("go\n")
        wait_until(lambda: not is_alive(rank))
        run.stop(timeout=0)
        kill(supervisor, signal.SIGCONT)
        run.wait(60)
        assert run.status in (RunStatus.STOPPED, RunStatus.FAILED)
        assert len(run.resumptions) == 1

    def test_many_at_once(self, home: Home) -> None:
        runs = [
            submit(f"run-{i}", "trap '' TERM; sleep 1000 & wait; sleep 1000", cpus=0, stop_grace=0.5) for i in range(10)
        ]
        for run in runs:
            wait_until(lambda run=run: home.status(run.name) == "RUNNING")
        start = time.monotonic()
        stopped = localrun.stop_runs([run.name for run in runs], timeout=60)
        assert {run.status for run in stopped} == {RunStatus.STOPPED}
        assert time.monotonic() - start < 10 * 0.5  # at once, not one after another

    def test_stopped_by_several_at_once(self, home: Home) -> None:
        run = submit("run", STUBBORN, stop_grace=0.3)
        found = pids(run)
        code = "import localrun; print(localrun.stop_run('run', timeout=60).status)"
        children = [start_python(code) for _ in range(4)]
        assert {child.communicate(timeout=60)[0] for child in children} == {"STOPPED\n"}
        assert all_gone(found)


def test_sigterm_to_the_supervisor_is_a_system_failure(home: Home) -> None:
    """As when the machine shuts down: the run gets its grace, and is tried again if it asked for that."""
    run = submit("run", "trap 'echo saved; exit 0' TERM; echo up; while :; do sleep 0.01; done")
    wait_until(lambda: Path(run.path, "logs/0/rank_0.out").exists() and stdout_bytes(run))
    kill(home.supervisor("run"), signal.SIGTERM)
    run.wait(30)
    assert (run.status, run.reason) == (RunStatus.FAILED, "SystemFailure")
    assert run.stdout() == "up\nsaved\n"

    again = submit("again", "[ $RESUMPTION_INDEX = 1 ] || sleep 1000", retry_on_system_failure=True)
    wait_until(lambda: home.status("again") == "RUNNING")
    kill(home.supervisor("again"), signal.SIGTERM)
    assert again.wait(60).status is RunStatus.COMPLETED
    assert [each.reason for each in again.resumptions] == ["SystemFailure", "Completed"]


def test_other_signals_do_nothing_to_a_supervisor(home: Home) -> None:
    run = submit("run", "sleep 0.5")
    wait_until(lambda: home.status("run") == "RUNNING")
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD, signal.SIGPIPE):
        kill(home.supervisor("run"), number)
    assert run.wait(30).status is RunStatus.COMPLETED


def test_what_is_forked_while_its_parent_is_told_is_told_too(home: Home) -> None:
    """A shell that dies between two commands leaves the second behind, which the first look didn't find."""
    for number in range(10):
        run = submit(f"run-{number}", "echo up; /bin/true; bash -c 'sleep 1000; :'; :", stop_grace=1000)
        wait_until(lambda run=run: stdout_bytes(run) if Path(run.path, "logs", "0", "rank_0.out").exists() else b"")
        assert run.stop(timeout=60).status.value == "STOPPED"
