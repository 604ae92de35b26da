"""Runs that make way for others, and what becomes of them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from support import CPUS, Home, submit, wait_until

import localrun
from localrun import Run, RunStatus


def low(name: str, command: str = "", **fields: object) -> Run:
    """A run that lasts until it is resumed, unless told otherwise, and may be made to make way."""
    command = command or "test $RESUMPTION_INDEX = 1 || exec sleep 1000"
    return submit(name, command, **{"priority": "low", "preemptible": True, "stop_grace": 10, **fields})  # type: ignore[arg-type]


def started(*runs: Run) -> None:
    for run in runs:
        localrun.wait_for_run_status(run, "RUNNING", timeout=60)


def history(run: Run) -> list[tuple[str, str | None]]:
    return [(str(each.status), each.reason) for each in run.refresh().resumptions]


def test_cpus_are_made_way_for_too(home: Home) -> None:
    runs = [low(f"low{i}", cpus=1) for i in range(CPUS)]
    started(*runs)
    needy = submit("needy", "true", cpus=1)
    assert needy.wait(60).status is RunStatus.COMPLETED
    assert runs[-1].wait(60).resumption_count == 1
    for run in runs[:-1]:
        assert history(run) == [("None", None)]
    localrun.stop_runs(runs)


@pytest.mark.parametrize(
    ("victim", "ahead"),
    [
        ({"preemptible": False}, {}),
        ({"priority": "auto"}, {}),
        ({"priority": "auto"}, {"priority": "low"}),
        ({}, {"cpus": 0}),
    ],
)
def test_nobody_makes_way_without_need(victim: dict[str, object], ahead: dict[str, object], home: Home) -> None:
    run = low("victim", cpus=CPUS, **victim)
    started(run)
    other = submit("other", "true", **{"cpus": 1, **ahead})  # type: ignore[arg-type]
    if "cpus" in ahead:
        assert other.wait(30).status is RunStatus.COMPLETED
    else:
        assert submit("idle", "true", cpus=0).wait(30).status is RunStatus.COMPLETED
        assert other.refresh().status is RunStatus.QUEUED
    assert run.refresh().status is RunStatus.RUNNING
    assert home.record("victim")["preempt_requested"] is None
    localrun.stop_runs([run, other])


def test_one_that_ignores_sigterm_is_killed_after_its_grace(home: Home) -> None:
    run = low("stubborn", "test $RESUMPTION_INDEX = 1 || { trap '' TERM; sleep 1000; }", cpus=CPUS, stop_grace=0.5)
    started(run)
    assert submit("needy", "true", cpus=1).wait(60).status is RunStatus.COMPLETED
    assert run.wait(60).status is RunStatus.COMPLETED
    assert history(run) == [("STOPPED", "Preempted"), ("COMPLETED", "Completed")]


def test_preemption_uses_up_no_retries(home: Home) -> None:
    command = "case $RESUMPTION_INDEX in 0) exec sleep 1000;; 1) exit 1;; esac"
    run = low("run", command, cpus=CPUS, max_retries=1)
    started(run)
    submit("needy", "true", cpus=1).wait(60)
    assert run.wait(60).status is RunStatus.COMPLETED
    assert [reason for _, reason in history(run)] == ["Preempted", "Error", "Completed"]


def test_a_stop_by_hand_counts_more(home: Home) -> None:
    run = low("run", "trap '' TERM; sleep 1000 & wait; wait", cpus=CPUS, stop_grace=3)
    started(run)
    needy = submit("needy", "true", cpus=1)
    wait_until(lambda: home.record("run")["preempt_requested"])
    run.stop(timeout=60)
    assert (run.status, run.reason) == (RunStatus.STOPPED, "StoppedByUser")
    assert needy.wait(60).status is RunStatus.COMPLETED


@pytest.mark.parametrize("role", ["supervisor", "dispatcher", "both"])
def test_whoever_is_killed_meanwhile_it_comes_back(role: str, home: Home) -> None:
    command = "test $RESUMPTION_INDEX = 1 || { trap '' TERM; sleep 1000 & wait; wait; }"
    run = low("run", command, cpus=CPUS, stop_grace=2)
    started(run)
    needy = submit("needy", "true", cpus=1)
    record = wait_until(lambda: (there := home.record("run"))["preempt_requested"] and there)
    if role != "dispatcher":
        os.kill(record["supervisor"]["pid"], signal.SIGKILL)
    if role != "supervisor":
        os.kill(home.dispatcher() or 0, signal.SIGKILL)
    assert needy.wait(60).status is RunStatus.COMPLETED
    assert run.wait(60).status is RunStatus.COMPLETED
    assert history(run) == [("STOPPED", "Preempted"), ("COMPLETED", "Completed")]


def test_its_time_goes_on_over_all_attempts(home: Home) -> None:
    run = low("run", "exec sleep 1000", cpus=CPUS, max_duration=4 / 3600)
    started(run)
    submit("needy", "sleep 1", cpus=1).wait(60)
    assert run.wait(60).reason == "MaxDurationExceeded"
    assert [reason for _, reason in history(run)] == ["Preempted", "MaxDurationExceeded"]
    first, second = run.resumptions
    whole, last = ((second.ended_at - each.started_at).total_seconds() for each in (first, second))
    assert whole >= 4 > last


def test_a_run_may_be_made_preemptible_while_it_runs(home: Home) -> None:
    run = submit("run", "test $RESUMPTION_INDEX = 1 || exec sleep 1000", cpus=CPUS, priority="low")
    started(run)
    needy = submit("needy", "true", cpus=1)
    assert submit("idle", "true", cpus=0).wait(30).status is RunStatus.COMPLETED
    assert needy.refresh().status is RunStatus.QUEUED
    localrun.update_run(run, preemptible=True)
    assert needy.wait(60).status is RunStatus.COMPLETED
    assert run.wait(60).status is RunStatus.COMPLETED


def test_functions_resume_from_their_checkpoints(home: Home) -> None:
    @localrun.function(cpus=CPUS, priority="low", preemptible=True)
    def count() -> int:
        import time

        place = Path(os.environ["LOCALRUN_CHECKPOINT_DIR"], "count")
        number = int(place.read_text()) if place.exists() else 0
        while number < 3 or os.environ["RESUMPTION_INDEX"] == "0":
            number += 1
            place.write_text(str(number))
            time.sleep(0.05)
        return number

    run = count.run(run_name="count")
    place = Path(run.path, "checkpoints/count")
    wait_until(lambda: place.exists() and place.read_text() >= "2")
    submit("needy", "true", cpus=1).wait(60)
    assert run.result(60) >= 2
    assert run.resumption_count == 1
