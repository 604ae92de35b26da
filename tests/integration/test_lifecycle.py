"""Retries, time limits, restarts, priorities: what a run goes through, and in which order runs go."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import CPUS, TERMINAL, Home, execute, run_python, start_python, stdout_bytes, submit, wait_until

import localrun
from localrun import IllegalTransitionError, RunConfigError, RunStatus


class TestRetries:
    def test_a_run_is_tried_as_often_as_it_may_be(self, home: Home) -> None:
        run = submit("run", "echo attempt $RESUMPTION_INDEX; exit 1", max_retries=1)
        seen = set()
        wait_until(lambda: seen.add(home.status("run")) or home.status("run") in TERMINAL)
        run.wait(30)
        assert (run.status, run.reason, run.resumption_count) == (RunStatus.FAILED, "Error", 1)
        assert [each.status for each in run.resumptions] == [RunStatus.FAILED, RunStatus.FAILED]
        assert [stdout_bytes(run, i) for i in (0, 1)] == [b"attempt 0\n", b"attempt 1\n"]
        assert run.stdout() == "attempt 1\n"
        assert run.logs(resumption=0) == "attempt 0\n"
        phases = [phase.status.value for phase in run.lifecycle]
        assert phases == [
            "PENDING", "QUEUED", "STARTING", "RUNNING", "TERMINATING",
            "QUEUED", "STARTING", "RUNNING", "TERMINATING", "FAILED",
        ]  # fmt: skip
        assert "QUEUED" in seen
        assert [event.type for event in run.events] == ["retry"]

    def test_a_run_that_succeeds_in_the_end_completed(self, home: Home) -> None:
        command = 'echo x >> "$LOCALRUN_CHECKPOINT_DIR/tries"; [ $RESUMPTION_INDEX = 1 ]'
        run = submit("run", command, max_retries=5)
        wait_until(lambda: home.record("run")["resumptions"] and home.status("run") == "QUEUED")
        record = home.record("run")
        # Between two attempts it is queued, and nothing says that it has ended.
        assert (record["reason"], record["end_time"], record["exit_code"]) == (None, None, None)
        assert "exit code 1" in record["message"]
        assert run.wait(30).status is RunStatus.COMPLETED
        assert (run.exit_code, run.failed_rank) == (0, None)
        assert Path(run.path, "checkpoints/tries").read_text() == "x\nx\n"
        first, second = run.resumptions
        assert 0.9 <= (second.started_at - first.ended_at).total_seconds() < 20
        assert run.started_at == first.started_at

    def test_others_run_meanwhile(self, home: Home) -> None:
        run = submit("run", "[ $RESUMPTION_INDEX = 1 ]", max_retries=1, cpus=CPUS)
        wait_until(lambda: home.record("run")["resumptions"] and home.status("run") == "QUEUED")
        other = execute("other", "true", cpus=CPUS)
        assert other.completed_at < run.wait(30).resumptions[1].started_at

    def test_a_killed_run_is_tried_again_too(self, home: Home) -> None:
        run = execute("run", "[ $RESUMPTION_INDEX = 1 ] || kill -9 $$", max_retries=1)
        assert [each.reason for each in run.resumptions] == ["Killed", "Completed"]

    def test_a_run_that_waits_for_its_retry_is_stopped(self, home: Home) -> None:
        run = submit("run", "exit 1", max_retries=10)
        wait_until(lambda: home.record("run")["resumptions"] and home.status("run") == "QUEUED")
        assert run.stop().status is RunStatus.STOPPED
        assert home.tickets() == []

    def test_a_function_is_tried_again_and_its_error_is_the_last(self, home: Home) -> None:
        @localrun.function(max_retries=1)
        def fails() -> None:
            raise ValueError(os.environ["RESUMPTION_INDEX"])

        with pytest.raises(ValueError, match="1"):
            fails(run_name="run")

        @localrun.function(max_retries=2)
        def succeeds() -> str:
            if os.environ["RESUMPTION_INDEX"] == "0":
                raise ValueError("not yet")
            return os.environ["RESUMPTION_INDEX"]

        assert succeeds(run_name="other") == "1"
        run = localrun.get_run("other")
        assert (run.error, run.error_traceback, run.exception()) == (None, None, None)


class TestMaxDuration:
    def test_a_run_is_stopped_when_its_time_is_over(self, home: Home) -> None:
        run = execute("run", "trap 'echo over; exit 0' TERM; sleep 1000 & wait", max_duration=0.5 / 3600)
        assert (run.status, run.reason) == (RunStatus.STOPPED, "MaxDurationExceeded")
        assert run.stdout() == "over\n"
        assert run.cumulative_running_time >= 0.4

    def test_the_time_goes_on_over_retries(self, home: Home) -> None:
        run = execute("run", "[ $RESUMPTION_INDEX = 0 ] && exit 1; sleep 1000", max_retries=9, max_duration=1.5 / 3600)
        assert (run.status, run.reason, run.resumption_count) == (RunStatus.STOPPED, "MaxDurationExceeded", 1)
        assert (run.completed_at - run.started_at).total_seconds() < 20

    def test_waiting_in_the_queue_does_not_count(self, home: Home) -> None:
        blocker = submit("blocker", "sleep 1", cpus=CPUS)
        run = submit("run", "sleep 0.05", cpus=CPUS, max_duration=0.5 / 3600)
        blocker.wait(30)
        assert run.wait(30).status is RunStatus.COMPLETED

    def test_a_running_run_is_given_another_limit(self, home: Home) -> None:
        run = submit("run", "sleep 1000", max_duration=1)
        wait_until(lambda: home.status("run") == "RUNNING")
        run.update(max_duration=0.1 / 3600)
        run.wait(8)
        assert (run.status, run.reason) == (RunStatus.STOPPED, "MaxDurationExceeded")

    def test_a_restart_has_its_time_anew(self, home: Home) -> None:
        run = execute("run", "[ $RESUMPTION_INDEX = 1 ] || sleep 1000", max_duration=0.5 / 3600)
        assert run.reason == "MaxDurationExceeded"
        assert run.start().wait(30).status is RunStatus.COMPLETED


class TestRestart:
    @pytest.mark.parametrize(("command", "ended"), [("true", "COMPLETED"), ("exit 1", "FAILED")])
    def test_an_ended_run_is_started_again_under_its_name(self, home: Home, command: str, ended: str) -> None:
        run = execute("run", f'echo $RESUMPTION_INDEX >> "$LOCALRUN_CHECKPOINT_DIR/seen"; {command}')
        uid, created = run.run_uid, run.created_at
        again = localrun.start_run("run")
        assert again.status in (RunStatus.QUEUED, RunStatus.STARTING)
        again.wait(30)
        assert (again.status.value, again.resumption_count) == (ended, 1)
        assert (again.run_uid, again.created_at) == (uid, created)
        assert Path(run.path, "checkpoints/seen").read_text() == "0\n1\n"
        assert [path.name for path in home.runs.iterdir()] == ["run"]

    def test_its_failures_count_anew(self, home: Home) -> None:
        run = execute("run", "exit 1", max_retries=1)
        assert run.resumption_count == 1
        assert run.start().wait(30).resumption_count == 3

    def test_it_gets_the_environment_of_whoever_asks(self, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WHO", "first")
        run = execute("run", "echo $WHO")
        monkeypatch.setenv("WHO", "second")
        assert run.start().result(30) == "second\n"

    def test_a_run_that_was_stopped_while_queued(self, home: Home) -> None:
        blocker = submit("blocker", "sleep 1000", cpus=CPUS)
        run = submit("run", "echo up", cpus=CPUS).stop()
        run.start()
        blocker.stop()
        assert run.wait(30).status is RunStatus.COMPLETED
        assert run.resumption_count == 0

    def test_an_active_run_is_refused(self, home: Home) -> None:
        run = submit("run", "sleep 1000")
        with pytest.raises(IllegalTransitionError):
            run.start()
        wait_until(lambda: home.status("run") == "RUNNING")
        with pytest.raises(IllegalTransitionError):
            localrun.start_run("run")
        assert home.status("run") == "RUNNING"
        run.stop()
        wait_until(lambda: home.tickets() == [])

    def test_a_function_gives_its_new_value(self, home: Home) -> None:
        @localrun.function
        def attempt() -> str:
            return os.environ["RESUMPTION_INDEX"]

        run = attempt.run(run_name="run")
        assert run.result(30) == "0"
        assert run.start().result(30) == "1"

    def test_a_function_that_failed_leaves_no_error_behind(self, home: Home) -> None:
        @localrun.function
        def second_time() -> str:
            if os.environ["RESUMPTION_INDEX"] == "0":
                raise ValueError("first")
            return "well"

        run = second_time.run(run_name="run")
        assert isinstance(run.exception(30), ValueError)
        assert run.start().result(30) == "well"
        assert run.exception() is None

    def test_two_that_restart_at_once_start_it_once(self, home: Home) -> None:
        execute("run", "sleep 0.1")
        code = """
            import sys, localrun
            sys.stdin.readline()
            try:
                localrun.start_run("run")
                print("started")
            except localrun.IllegalTransitionError:
                print("refused")
        """
        children = [start_python(code, stdin=-1) for _ in range(4)]
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        said = [child.communicate(timeout=60)[0].strip() for child in children]
        home.all_ended()
        assert len(home.record("run")["resumptions"]) == 1 + said.count("started")
        assert "started" in said


@contextmanager
def busy_machine(home: Home) -> Iterator[None]:
    """Nothing else starts meanwhile, of what needs a CPU."""
    blocker = submit("blocker", "sleep 1000", cpus=CPUS)
    wait_until(lambda: home.status("blocker") == "RUNNING")
    yield
    blocker.stop(timeout=30)


def starts(home: Home) -> list[str]:
    """The runs in the order of their starts."""
    records = [record for record in home.records().values() if record["name"] != "blocker"]
    return [record["name"] for record in sorted(records, key=lambda record: record["start_time"])]


class TestOrder:
    def test_priority_then_submit_time(self, home: Home) -> None:
        with busy_machine(home):
            for i, priority in enumerate(["low", "auto", "lowest", "high", "auto", "low", "high", "lowest"]):
                submit(f"{i}-{priority}", "true", cpus=CPUS, priority=priority)
        home.all_ended()
        assert starts(home) == [
            "3-high", "6-high", "1-auto", "4-auto", "0-low", "5-low", "2-lowest", "7-lowest",
        ]  # fmt: skip

    def test_a_priority_is_changed_while_it_waits(self, home: Home) -> None:
        with busy_machine(home):
            for name in "abc":
                submit(name, "true", cpus=CPUS)
            localrun.update_run("c", priority="high")
            localrun.get_run("a").update(priority="lowest")
        home.all_ended()
        assert starts(home) == ["c", "b", "a"]
        assert localrun.get_run("c").priority == "high"
        assert localrun.get_run("c").config.scheduling["priority"] == "high"

    def test_a_big_one_is_not_starved_by_small_ones(self, home: Home) -> None:
        with busy_machine(home):
            submit("small-1", "sleep 0.2", cpus=CPUS / 2)
            submit("big", "true", cpus=CPUS)
            for i in range(2, 8):
                submit(f"small-{i}", "sleep 0.05", cpus=CPUS / 2)
        home.all_ended()
        assert starts(home)[:2] == ["small-1", "big"]

    def test_those_a_waiting_one_held_back_start_when_it_is_stopped(self, home: Home) -> None:
        blocker = submit("blocker", "sleep 1000", cpus=CPUS / 2)
        wait_until(lambda: home.status("blocker") == "RUNNING")
        big = submit("big", "true", cpus=CPUS)
        submit("small", "true", cpus=CPUS / 2)
        submit("free", "true", cpus=0).wait(30)  # the dispatcher has seen them
        assert home.status("small") == "QUEUED"
        big.stop()
        try:
            wait_until(lambda: home.status("small") == "COMPLETED", 2)
        finally:
            blocker.stop()
        home.all_ended()

    def test_a_run_that_needs_nothing_waits_for_nobody(self, home: Home) -> None:
        with busy_machine(home):
            submit("big", "true", cpus=CPUS)
            assert execute("nothing", "true", cpus=0).status is RunStatus.COMPLETED
            assert home.status("big") == "QUEUED"

    def test_a_run_that_waits_for_memory_keeps_no_cpu_from_others(self, home: Home) -> None:
        from localrun.engine.dispatch.capacity import capacity

        memory = capacity().memory
        fat = submit("fat", "sleep 1000", cpus=0, memory=memory)
        wait_until(lambda: home.status("fat") == "RUNNING")
        submit("fat-2", "true", cpus=0, memory=memory)
        assert execute("lean", "true", cpus=CPUS).status is RunStatus.COMPLETED
        assert home.status("fat-2") == "QUEUED"
        fat.stop()
        home.all_ended()


class TestRefused:
    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"cpus": 100_000}, ["compute.cpus", "100000"]),
            ({"memory": "100000GiB"}, ["compute.memory"]),
            ({"gpus": 1}, ["compute.gpus"]),
            ({"cpus": -1}, ["compute.cpus"]),
            ({"nodes": 2}, ["compute.nodes"]),
            ({"priority": "urgent"}, ["scheduling.priority", "lowest"]),
            ({"max_retries": -1}, ["scheduling.max_retries"]),
            ({"max_duration": 0}, ["scheduling.max_duration"]),
            ({"stop_grace": "soon"}, ["scheduling.stop_grace"]),
            ({"env_variables": {"CUDA_VISIBLE_DEVICES": "0"}}, ["CUDA_VISIBLE_DEVICES", "gpus"]),
            ({"metadata": {"x" * 201: 1}}, ["metadata"]),
            ({"name": "a/b"}, ["name", "'/'"]),
            ({"name": "../up"}, ["name"]),
            ({"name": ""}, ["name"]),
            ({"name": "x" * 129}, ["name", "128"]),
            ({"name": ".hidden"}, ["name"]),
            ({"command": "  "}, ["command"]),
            ({"command": "a\0b"}, ["command"]),
        ],
    )
    def test_one_clear_error_and_nothing_created(self, home: Home, fields: dict[str, object], words: list[str]) -> None:
        with pytest.raises(RunConfigError) as caught:
            submit(**{"name": "run", "command": "true", **fields})
        assert caught.value.status == 400
        assert "\n" not in str(caught.value)
        for word in words:
            assert word in str(caught.value)
        assert not home.path.exists()

    def test_an_unknown_key_says_what_was_meant(self, home: Home) -> None:
        with pytest.raises(RunConfigError, match="did you mean"):
            localrun.create_run({"name": "run", "comand": "true"})
        assert not home.path.exists()

    def test_what_this_process_may_use_is_what_counts(self, home: Home) -> None:
        """Affinity, not the size of the box."""
        code = """
            import os
            os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
            import localrun
            try:
                localrun.create_run(localrun.RunConfig(name="run", command="true", compute={"cpus": 1.5}))
            except localrun.RunConfigError as error:
                print(error)
        """
        assert "1.5" in run_python(code).stdout

    def test_fractions_share_a_cpu(self, home: Home) -> None:
        names = [f"run-{i}" for i in range(5)]
        for name in names:
            submit(name, "sleep 1000", cpus=CPUS / 4)
        wait_until(lambda: [home.status(name) for name in names] == ["RUNNING"] * 4 + ["QUEUED"])
        localrun.stop_run("run-2")
        wait_until(lambda: home.status("run-4") == "RUNNING")
        localrun.stop_runs(names)


def test_time_spent_is_told_apart(home: Home) -> None:
    with busy_machine(home):
        run = submit("run", "sleep 0.3", cpus=CPUS)
        before = time.monotonic()
        wait_until(lambda: time.monotonic() - before > 0.3)
    run.wait(30)
    assert run.cumulative_pending_time >= 0.3
    assert run.cumulative_running_time >= 0.25
    assert run.created_at <= run.started_at <= run.completed_at <= run.updated_at
