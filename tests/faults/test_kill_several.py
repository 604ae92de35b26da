"""Supervisors, workers, and several processes at once killed at random moments: what was accepted ends, and once."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from journal import Journal
from support import CPUS, TERMINAL, Home, is_alive, kill, look, record_of, start_python, submit, wait_until

import localrun
from localrun import RunStatus


@pytest.fixture
def journal(home: Home) -> Journal:
    return Journal(home.place)


def told(run: localrun.Run, count: int) -> list[int]:
    """The pids that a run has printed, once there are so many and it is RUNNING."""
    wait_until(lambda: record_of(run.path)["status"] not in ("QUEUED", "STARTING"))

    def printed() -> list[int]:
        path = Path(run.path, "logs/0/rank_0.out")
        found = [int(line) for line in path.read_text().split()] if path.exists() else []
        return found if len(found) >= count else []

    return wait_until(printed)


class TestSupervisor:
    def test_its_ranks_end_with_it_and_its_place_is_free(self, home: Home) -> None:
        run = submit("run", "echo $$; sleep 1000 & echo $!; setsid sleep 1000 & echo $!; wait", cpus=CPUS)
        behind = submit("behind", "true", cpus=CPUS)
        pids = told(run, 3)
        kill(home.supervisor("run"))
        statuses = home.all_ended()  # the dispatcher is there to notice
        assert statuses == {"run": "FAILED", "behind": "COMPLETED"}
        assert run.refresh().reason == "SystemFailure"
        assert "supervisor" in run.message
        assert [str(look(pid)) for pid in pids if is_alive(pid)] == []
        assert behind.refresh().status is RunStatus.COMPLETED
        record = home.record("run")
        assert [phase["status"] for phase in record["lifecycle"]][-3:] == ["RUNNING", "TERMINATING", "FAILED"]

    def test_its_run_is_tried_again_if_it_asked_for_that(self, home: Home) -> None:
        run = submit("run", "echo $$; [ $RESUMPTION_INDEX = 2 ] || sleep 1000", retry_on_system_failure=True)
        seen = set()
        for attempt in range(2):
            wait_until(lambda attempt=attempt: len(home.record("run")["resumptions"]) == attempt + 1)
            wait_until(lambda: home.status("run") == "RUNNING")
            kill(home.supervisor("run"))
            wait_until(lambda: seen.add(home.status("run")) or home.status("run") == "QUEUED")
        run.wait(60)
        assert run.status is RunStatus.COMPLETED
        assert [each.reason for each in run.resumptions] == ["SystemFailure", "SystemFailure", "Completed"]
        assert [phase.status.value for phase in run.lifecycle if phase.status.is_terminal()] == ["COMPLETED"]
        assert not seen & TERMINAL

    def test_max_retries_has_nothing_to_do_with_it(self, home: Home) -> None:
        run = submit("run", "sleep 1000", max_retries=5)
        wait_until(lambda: home.status("run") == "RUNNING")
        kill(home.supervisor("run"))
        assert (run.wait(30).status, run.resumption_count) == (RunStatus.FAILED, 0)

    def test_a_stop_that_was_asked_for_is_kept(self, home: Home) -> None:
        run = submit("run", "trap '' TERM; echo $$; while :; do sleep 1; done", stop_grace=30)
        told(run, 1)
        assert run.stop(timeout=0).status in (RunStatus.RUNNING, RunStatus.TERMINATING)
        wait_until(lambda: home.status("run") == "TERMINATING")
        localrun.update_run_metadata("run", {"still": "here"})
        kill(home.supervisor("run"))
        # The new supervisor gives the grace anew; kill what ignores it.
        wait_until(lambda: home.supervisor("run") is not None)
        kill(home.rank("run"))
        run.wait(60)
        assert (run.status, run.reason) == (RunStatus.STOPPED, "StoppedByUser")

    def test_one_that_is_killed_while_it_ends_another_ones_run(self, home: Home) -> None:
        """The supervisor that recovers is killed too, again and again."""
        run = submit("run", "trap '' TERM; echo $$; while :; do sleep 0.1; done", stop_grace=0.5)
        (pid,) = told(run, 1)
        kill(home.supervisor("run"))
        killed = 0

        def is_over() -> bool:
            nonlocal killed
            recovering = [each for each in home.leftovers() if "dispatch.service" in each.command]
            if killed < 2 and recovering and home.status("run") in ("RUNNING", "TERMINATING"):
                killed += sum(kill(each.pid) for each in recovering)
            return home.status("run") in TERMINAL

        wait_until(is_over, 60)
        assert (home.status("run"), home.record("run")["reason"]) == ("FAILED", "SystemFailure")
        assert not is_alive(pid)

    def test_with_the_dispatcher_at_once(self, home: Home) -> None:
        run = submit("run", "echo $$; sleep 1000 & echo $!; setsid sleep 1000 & echo $!; wait", cpus=CPUS)
        submit("behind", "true", cpus=CPUS)
        pids = told(run, 3)
        supervisor = home.supervisor("run")
        kill(home.dispatcher())
        kill(supervisor)
        assert run.wait(60).reason == "SystemFailure"
        assert home.all_ended()["behind"] == "COMPLETED"
        assert [str(look(pid)) for pid in pids if is_alive(pid)] == []

    def test_with_a_run_folder_that_is_gone(self, home: Home) -> None:
        import shutil

        run = submit("run", "echo $$; sleep 1000", cpus=CPUS)
        (pid,) = told(run, 1)
        shutil.rmtree(run.path)
        kill(home.supervisor("run")) if home.runs.joinpath("run").exists() else None
        try:
            assert submit("other", "true", cpus=0).wait(30).status is RunStatus.COMPLETED
        finally:
            kill(pid)
        assert submit("behind", "true", cpus=CPUS).wait(60).status is RunStatus.COMPLETED


class TestSubmitter:
    def test_its_end_is_nothing_to_its_runs(self, home: Home) -> None:
        code = """
            import os, sys
            import localrun
            for i in range(3):
                localrun.create_run(localrun.RunConfig(name=f"run-{i}", command="sleep 0.3; echo done"))
            print("up", flush=True)
            sys.stdin.read()
        """
        with start_python(code, stdin=-1, start_new_session=True) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "up\n"
            os.killpg(child.pid, signal.SIGHUP)  # logout
            os.killpg(child.pid, signal.SIGKILL)
        assert set(home.all_ended().values()) == {"COMPLETED"}
        assert localrun.get_run("run-2").stdout() == "done\n"

    def test_killed_at_random_moments(self, home: Home, journal: Journal, thorough: bool) -> None:
        random_ = random.Random(11)
        code = """
            import sys
            import localrun
            from localrun import RunConfig
            print("up", flush=True)
            for i in range(1000):
                run = localrun.create_run(RunConfig(name=f"run-{sys.argv[1]}-{i}", command=sys.argv[2]))
                print(run.name, flush=True)
        """
        accepted = []
        for round_ in range(30 if thorough else 8):
            child = start_python(code, round_, journal.command())
            assert child.stdout is not None
            assert child.stdout.readline() == "up\n"
            end = time.monotonic() + random_.random() * 0.2
            wait_until(lambda end=end: time.monotonic() >= end)
            child.kill()
            accepted += child.communicate()[0].split()
        submit("touch", "true")
        statuses = home.all_ended()
        assert set(accepted) <= statuses.keys()
        assert {statuses[name] for name in accepted} <= {"COMPLETED"}
        for path, record in home.records().items():
            if record["status"] != "COMPLETED":
                assert (record["status"], record["reason"]) == ("FAILED", "SystemFailure"), path
        wait_until(lambda: not home.tickets())
        assert [name for name in os.listdir(home.runs) if name.startswith(".")] == []
        journal.check()


def test_several_at_random_moments(home: Home, journal: Journal, thorough: bool) -> None:
    """Whoever is killed: nothing accepted is lost, nothing runs twice, and every attempt ends in the record."""
    random_ = random.Random(5)
    count = 60 if thorough else 25
    names = [f"run-{i:03}" for i in range(count)]
    for name in names:
        submit(name, journal.command("sleep 0.$((RANDOM % 4))"), retry_on_system_failure=True, cpus=CPUS / 4)
    kills: Counter[str] = Counter()
    deadline = time.monotonic() + (60 if thorough else 12)
    while home.active() and time.monotonic() < deadline:
        end = time.monotonic() + random_.random() * 0.15
        wait_until(lambda end=end: time.monotonic() >= end)
        kind = random_.choice(["dispatcher", "supervisor", "rank", "all", "both"])
        victims: list[int | None] = [home.dispatcher()] if kind in ("dispatcher", "all", "both") else []
        active = [name for name in names if home.status(name) == "RUNNING"]
        if active and kind != "dispatcher":
            chosen = active if kind == "all" else [random_.choice(active)]
            victims += [home.rank(name) if kind == "rank" else home.supervisor(name) for name in chosen]
        kills[kind] += sum(kill(pid) for pid in victims)
        if random_.random() < 0.5:
            localrun.get_runs(limit=1)

    def ended() -> bool:
        localrun.get_runs(limit=count)  # a touch
        return not home.active()

    wait_until(ended, 180)
    records = {name: home.record(name) for name in names}
    reasons = Counter(record["reason"] for record in records.values())
    # A killed rank is the run's own failure; all else is tried again until it completes.
    assert set(reasons) <= {"Completed", "Killed"}, reasons
    journal.check()
    lines = journal.lines()
    for name, record in records.items():
        ends = [line for line in lines if line[:2] == ["end", name]]
        assert len(ends) <= len(record["resumptions"])
        if record["status"] == "COMPLETED":
            assert ends[-1][2] == str(record["resumptions"][-1]["index"]), (name, ends)
    assert kills.total() > 0
    wait_until(lambda: not home.tickets())
