"""What the scheduling fields promise, with real runs: attempts, delays, time limits, places in the queue."""

from __future__ import annotations

from support import CPUS, Home, execute, submit, wait_until

import localrun
from localrun import RunStatus
from localrun.model import record as records
from localrun.model import times
from localrun.model.folder import RunFolder


def test_a_run_that_fails_twice_completes_and_nobody_saw_it_end_before(home: Home) -> None:
    run = submit("run", "test $RESUMPTION_INDEX = 2", max_retries=2)
    seen = []
    wait_until(lambda: seen.append(home.status("run")) or seen[-1] == "COMPLETED", 60)
    assert not {"FAILED", "STOPPED"}.intersection(seen)
    assert run.wait(60).status is RunStatus.COMPLETED
    assert [each.status for each in run.resumptions] == [RunStatus.FAILED, RunStatus.FAILED, RunStatus.COMPLETED]
    assert (len(run.resumptions), run.resumption_count) == (3, 2)
    first, second, third = run.resumptions
    assert (second.started_at - first.ended_at).total_seconds() >= 0.9
    assert (third.started_at - second.ended_at).total_seconds() >= 1.9


def test_a_short_run_slips_in_before_a_big_one_that_waits(home: Home) -> None:
    assert CPUS >= 2
    holder = submit("holder", "exec sleep 1000", cpus=1, max_duration=1, stop_grace=1)
    localrun.wait_for_run_status(holder, "RUNNING")
    big = submit("big", "true", cpus=CPUS)
    endless = submit("endless", "true", cpus=1)
    long = submit("long", "true", cpus=1, max_duration=2)
    short = submit("short", "true", cpus=1, max_duration=0.5, stop_grace=1)
    assert short.wait(30).status is RunStatus.COMPLETED
    assert {run.refresh().status for run in (big, endless, long)} == {RunStatus.QUEUED}
    holder.stop()
    assert big.wait(30).started_at < min(endless.wait(30).started_at, long.wait(30).started_at)


def test_a_waiting_run_is_moved_by_its_priority(home: Home) -> None:
    holder = submit("holder", "exec sleep 1000", cpus=CPUS)
    localrun.wait_for_run_status(holder, "RUNNING")
    first, second = (submit(name, "true", cpus=CPUS, priority="low") for name in ("first", "second"))
    localrun.update_run(second, priority="high")
    holder.stop()
    assert second.wait(30).started_at < first.wait(30).started_at
    assert second.priority == "high"


def test_a_change_while_it_runs_counts_for_its_next_attempt(home: Home) -> None:
    run = submit("run", "test $RESUMPTION_INDEX = 1 || { sleep 1; exit 1; }", cpus=CPUS, priority="low", max_retries=1)
    localrun.wait_for_run_status(run, "RUNNING")
    localrun.update_run(run, priority="high", max_duration=1)
    [ticket] = wait_until(lambda: home.status("run") == "QUEUED" and home.tickets("waiting"))
    assert ticket.startswith("0-")
    assert execute("other", "true").status is RunStatus.COMPLETED
    assert run.wait(30).status is RunStatus.COMPLETED


def test_time_goes_on_while_it_waits_for_another_attempt(home: Home) -> None:
    run = submit("run", "echo start $RESUMPTION_INDEX; exit 1", max_retries=50, max_duration=2 / 3600, cpus=CPUS)
    wait_until(lambda: home.status("run") == "QUEUED" and home.record("run")["resumptions"])
    holder = submit("holder", "exec sleep 1000", cpus=CPUS)
    assert run.wait(60).reason == "MaxDurationExceeded"
    assert (run.status, run.completed_at is not None) == (RunStatus.STOPPED, True)
    assert run.refresh().resumption_count <= 1
    holder.stop()


def test_what_is_written_and_not_signalled_is_seen_all_the_same(home: Home) -> None:
    """As when whoever asks for a stop is killed between the two."""
    run = submit("run", "exec sleep 1000", cpus=0)
    localrun.wait_for_run_status(run, "RUNNING")
    asked = {"time": times.now(), "message": "stopped by a test"}
    records.update(RunFolder(run.path), lambda record: record.update(stop_requested=asked))
    assert run.wait(60).reason == "StoppedByUser"


def test_updates_at_once_are_all_kept(home: Home) -> None:
    holder = submit("holder", "exec sleep 1000", cpus=CPUS)
    run = submit("run", "true", cpus=CPUS)
    wanted = {"max_retries": 3, "priority": "low", "preemptible": True, "max_duration": 5}
    for future in [localrun.update_run(run, future=True, **{field: value}) for field, value in wanted.items()]:
        future.result(60)
    assert run.refresh().config.scheduling == wanted
    assert {field: getattr(run, field) for field in wanted} == wanted
    localrun.stop_runs([run, holder])
