"""kill -9 of every role before each of its steps: nothing accepted is lost, nothing runs twice, nothing is left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from crashes import Crash
from journal import Journal
from support import CPUS, Home, run_python, submit, wait_until

import localrun
from localrun import RunStatus

# More steps than any of them takes; a loop ends at the first step that isn't reached.
MOST = 300


@pytest.fixture
def crash(home: Home, monkeypatch: pytest.MonkeyPatch) -> Crash:
    monkeypatch.setenv("LOCALRUN_IDLE_S", "0.05")
    return Crash(home.place, monkeypatch)


@pytest.fixture
def journal(home: Home) -> Journal:
    return Journal(home.place)


def is_clean(home: Home) -> bool:
    """Nothing half-made is anywhere."""
    names = os.listdir(home.runs) if home.runs.exists() else []
    left = [name for name in names if name.startswith(".") and name != ".archive"]
    left += home.tickets()
    assert not left, left
    return True


def settle(home: Home, where: str) -> None:
    """Touch localrun as anyone would, and wait until everything has ended and been cleared away."""
    submit(None, "true", cpus=0)  # what was never seen is cleared away by the next submission

    def settled() -> bool:
        statuses = {run.name: run.status for run in localrun.get_runs(limit=10_000)}
        running = {name: status for name, status in statuses.items() if not status.is_terminal()}
        assert not running, (where, running)
        return is_clean(home)

    wait_until(settled, 15, where)
    log = home.path / "dispatcher.log"
    if log.exists():
        assert "Traceback" not in log.read_text(), where


SUBMITTER = """
import sys, sitecustomize
import localrun
from localrun import RunConfig
{before}
sitecustomize.arm("submitter")
{work}
sitecustomize.arm(None)
print("accepted")
"""


@pytest.mark.parametrize(
    ("before", "work"),
    [
        ("", "localrun.create_run(RunConfig(name=sys.argv[1], command=sys.argv[2], parameters={'a': 1}))"),
        (
            "localrun.create_run(RunConfig(name=sys.argv[1], command=sys.argv[2])).wait(30)",
            "localrun.start_run(sys.argv[1])",
        ),
    ],
    ids=["submit", "restart"],
)
def test_a_submitter(home: Home, crash: Crash, journal: Journal, before: str, work: str) -> None:
    for step in range(1, MOST):
        crash.set("submitter", step)
        name = f"run-{step}"
        done = run_python(SUBMITTER.format(before=before, work=work), name, journal.command(), ok=False)
        where = f"step {step}: {crash.happened}"
        assert done.returncode == (-9 if crash.happened else 0), (where, done.stderr)
        crash.set("nobody", 0)
        settle(home, where)
        if Path(home.runs, name).exists():
            record = home.record(name)
            ended = (record["status"], record["reason"])
            assert ended in {("COMPLETED", "Completed"), ("FAILED", "SystemFailure")}, (where, ended)
            if record["status"] == "FAILED":
                assert "submi" in record["message"], where
        if done.stdout:
            assert home.status(name) == "COMPLETED"
            break
    else:
        pytest.fail("it never came to its end")
    journal.check()
    assert step > 10


def test_a_dispatcher(home: Home, crash: Crash, journal: Journal, thorough: bool) -> None:
    """Runs go on, and those that wait start when anything touches localrun."""
    for step in range(1, MOST, 1 if thorough else 3):
        crash.set("dispatcher", step)
        for i in range(3):
            submit(f"run-{step}-{i}", journal.command("sleep 0.05"), cpus=CPUS)
        wait_until(lambda: crash.happened or home.dispatcher() is None or not home.active())
        where = f"step {step}: {crash.happened}"
        settle(home, where)
        for i in range(3):
            record = home.record(f"run-{step}-{i}")
            assert record["status"] == "COMPLETED", (where, record["reason"], record["message"])
            assert len(record["resumptions"]) == 1, where
        if not crash.happened:
            break
        wait_until(lambda: home.dispatcher() is None)
    journal.check()
    assert step > 10


def test_a_supervisor(home: Home, crash: Crash, journal: Journal, thorough: bool) -> None:
    """Its run ends with it, unless it had not started or was over; what waits behind it runs."""
    ends = set()
    for step in range(1, MOST, 1 if thorough else 3):
        crash.set("supervisor", step)
        submit(f"first-{step}", journal.command("sleep 0.05"), cpus=CPUS)
        submit(f"second-{step}", journal.command(), cpus=CPUS)
        settle(home, f"step {step}: {crash.happened}")
        where = f"step {step}: {crash.happened}"
        first, second = home.record(f"first-{step}"), home.record(f"second-{step}")
        ended = {(record["status"], record["reason"]) for record in (first, second)}
        assert ended <= {("COMPLETED", "Completed"), ("FAILED", "SystemFailure")}, (where, ended)
        # One supervisor was lost: it may cost one run.
        assert ("COMPLETED", "Completed") in ended, (where, first["message"], second["message"])
        ends |= ended
        if not crash.happened:
            break
        # The dispatcher goes on with its environment; the next one is another.
        wait_until(lambda: home.dispatcher() is None)
    journal.check()
    assert len(ends) == 2


def test_a_supervisor_of_a_run_that_is_retried(home: Home, crash: Crash, journal: Journal, thorough: bool) -> None:
    for step in range(1, MOST, 1 if thorough else 5):
        crash.set("supervisor", step)
        name = f"run-{step}"
        run = submit(name, journal.command("sleep 0.02"), retry_on_system_failure=True)
        run.wait(60)
        where = f"step {step}: {crash.happened}"
        assert run.status is RunStatus.COMPLETED, (where, run.reason, run.message)
        assert [each.reason for each in run.resumptions] in (["Completed"], ["SystemFailure", "Completed"]), where
        if not crash.happened:
            break
        settle(home, where)
        wait_until(lambda: home.dispatcher() is None)
    journal.check()


def test_a_stop(home: Home, crash: Crash) -> None:
    """Whoever stops a run is killed: the run is stopped or it isn't, and can be stopped again."""
    code = SUBMITTER.format(before="run = localrun.get_run(sys.argv[1])", work="run.stop(timeout=30)")
    for kind in ("active", "queued"):
        for step in range(1, MOST):
            name = f"{kind}-{step}"
            blocker = submit(f"blocker-{step}", "sleep 1000", cpus=CPUS) if kind == "queued" else None
            run = submit(name, "sleep 1000", cpus=1)
            if kind == "active":
                wait_until(lambda name=name: home.status(name) == "RUNNING")
            crash.set("submitter", step)
            done = run_python(code, name, ok=False)
            where = f"step {step}: {crash.happened}"
            assert done.returncode == (-9 if crash.happened else 0), (where, done.stderr)
            crash.set("nobody", 0)
            assert run.stop(timeout=30).status is RunStatus.STOPPED
            if blocker is not None:
                blocker.stop(timeout=30)
            settle(home, where)
            if done.returncode == 0:
                break
        else:
            pytest.fail("it never came to its end")
