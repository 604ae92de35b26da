"""Runs that start after others."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest
from support import CPUS, Home, execute, submit, wait_until

import localrun
from localrun import RunConfigError, RunNotFoundError, RunStatus
from localrun.api.machine.utilization import why_waiting


def test_it_starts_when_those_completed(home: Home) -> None:
    first = [submit(f"first{i}", "sleep 0.5", cpus=0) for i in range(2)]
    then = submit("then", "true", cpus=0, after=["first0", first[1]])
    last = submit("last", "true", cpus=0, after=[then])
    assert last.wait(60).status is RunStatus.COMPLETED
    assert then.refresh().started_at >= max(run.refresh().completed_at for run in first)
    assert last.started_at >= then.completed_at
    assert then.config.scheduling == {"after": ["first0", "first1"]}
    assert home.record("then")["config"]["scheduling"] == {"after": ["first0", "first1"]}


def test_it_keeps_nothing_from_others_meanwhile(home: Home) -> None:
    first = submit("first", "exec sleep 1000", cpus=0)
    then = submit("then", "true", cpus=CPUS, priority="high", after=["first"])
    assert execute("other", "true", cpus=CPUS).status is RunStatus.COMPLETED
    assert then.refresh().status is RunStatus.QUEUED
    text = str(why_waiting(then))
    assert "starts after" in text
    assert "run first is" in text
    localrun.stop_run(first)
    assert (then.wait(60).status, then.reason) == (RunStatus.FAILED, "DependencyFailed")


@pytest.mark.parametrize("ending", ["exit 3", "kill -9 $$"])
def test_one_that_failed_fails_those_after_it(ending: str, home: Home) -> None:
    submit("first", f"sleep 0.3; {ending}", cpus=0)
    then = submit("then", "touch started", cpus=0, after=["first"], cwd=str(home.path.parent))
    anyway = submit("anyway", "true", cpus=0, after_any=["first"])
    last = submit("last", "true", cpus=0, after=["then"])
    assert (then.wait(60).status, then.reason) == (RunStatus.FAILED, "DependencyFailed")
    assert "first" in then.message
    assert (then.started_at, then.resumptions, then.exit_code) == (None, [], None)
    assert not (home.path.parent / "started").exists()
    assert [phase.status.value for phase in then.lifecycle] == ["PENDING", "QUEUED", "FAILED"]
    assert (last.wait(60).status, last.reason) == (RunStatus.FAILED, "DependencyFailed")
    assert "then" in last.message
    assert anyway.wait(60).status is RunStatus.COMPLETED


def test_one_that_is_tried_again_is_waited_for(home: Home) -> None:
    submit("first", "test $RESUMPTION_INDEX = 1", cpus=0, max_retries=1)
    assert submit("then", "true", cpus=0, after=["first"]).wait(60).status is RunStatus.COMPLETED
    assert localrun.get_run("first").resumption_count == 1


def test_those_that_are_over_already_count(home: Home) -> None:
    execute("good", "true")
    execute("bad", "exit 1")
    assert execute("a", "true", after=["good"], after_any=["bad"]).status is RunStatus.COMPLETED
    assert execute("b", "true", after=["good", "bad"]).reason == "DependencyFailed"


def test_a_stopped_one_and_a_deleted_one(home: Home) -> None:
    first = submit("first", "exec sleep 1000", cpus=0)
    then = submit("then", "true", cpus=0, after=["first"])
    anyway = submit("anyway", "true", cpus=CPUS, after_any=["first"])
    first.stop()
    assert then.wait(60).reason == "DependencyFailed"
    assert anyway.wait(60).status is RunStatus.COMPLETED
    localrun.delete_run(first)
    for after in ({"after": [first]}, {"after_any": [first]}):
        run = execute("late", "true", **after)
        assert (run.status, run.reason) == (RunStatus.FAILED, "DependencyFailed")
        assert "deleted" in run.message
    with pytest.raises(RunNotFoundError, match="first"):
        submit("named", "true", after=["first"])


def test_a_folder_that_was_removed(home: Home) -> None:
    first = submit("first", "exec sleep 1000", cpus=0)
    localrun.wait_for_run_status(first, "RUNNING")
    then = submit("then", "true", cpus=0, after=["first"])
    first.stop()
    assert then.wait(60).reason == "DependencyFailed"
    execute("second", "true")
    subprocess.run(["rm", "-rf", str(home.runs / "second")], check=True)
    with pytest.raises(RunNotFoundError, match="second"):
        submit("later", "true", after=["second"])


@pytest.mark.parametrize(
    ("after", "error", "match"),
    [
        (["nobody"], RunNotFoundError, "nobody"),
        ("first", RunConfigError, "scheduling.after: must be a list"),
        ([1], RunConfigError, r"scheduling.after\[0\]"),
        (["a/b"], RunConfigError, r"scheduling.after\[0\]"),
        ([None], RunConfigError, r"scheduling.after\[0\]"),
    ],
)
def test_what_is_refused(after: object, error: type[Exception], match: str, home: Home) -> None:
    with pytest.raises(error, match=match) as caught:
        submit("run", "true", after=after)
    assert "\n" not in str(caught.value)
    assert not (home.runs / "run").exists()


def test_it_survives_the_dispatcher(home: Home) -> None:
    first = submit("first", "sleep 1.5", cpus=0)
    localrun.wait_for_run_status(first, "RUNNING")
    then = submit("then", "true", cpus=0, after=["first"])
    pid = wait_until(home.dispatcher)
    os.kill(pid, signal.SIGKILL)
    assert then.wait(60).status is RunStatus.COMPLETED
    assert then.started_at >= first.refresh().completed_at


def test_functions_take_them_too(home: Home) -> None:
    @localrun.function(cpus=0)
    def double(x: int) -> int:
        return 2 * x

    first = double.run(4, run_name="first")
    second = double.options(after=[first]).run(5, run_name="second")
    assert second.result(60) == 10
    assert second.started_at >= first.refresh().completed_at


def test_many_wait_for_one(home: Home) -> None:
    first = submit("first", "exec sleep 1000", cpus=0)
    runs = [submit(f"then{i}", "true", cpus=0, after=["first"]) for i in range(50)]
    anyway = [submit(f"anyway{i}", "true", cpus=0, after_any=["first"]) for i in range(50)]
    first.stop()
    assert {run.wait(100).reason for run in runs} == {"DependencyFailed"}
    assert {run.wait(100).status for run in anyway} == {RunStatus.COMPLETED}


@pytest.mark.parametrize("how", ["killed", "updated"])
def test_what_was_met_stays_met(how: str, home: Home) -> None:
    first, second = execute("first", "true"), submit("second", "exec sleep 1000", cpus=0)
    then = submit("then", "true", cpus=0, after=[first], after_any=[second])
    [name] = home.tickets("waiting")
    wait_until(lambda: len(json.loads((home.queue / "waiting" / name).read_text())["dependencies"]) == 1)
    localrun.delete_run(first)
    if how == "killed":
        os.kill(wait_until(home.dispatcher), signal.SIGKILL)
    else:
        localrun.update_run(then, max_retries=1)
    second.stop()
    assert then.wait(60).status is RunStatus.COMPLETED
