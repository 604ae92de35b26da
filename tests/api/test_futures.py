"""``timeout`` and ``future`` on every call, as in mcli."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
from support import Home, execute, submit, wait_until

import localrun
from localrun import RunStatus

_EXPORTED = [getattr(localrun, name) for name in localrun.__all__]
_HOMES = ("localrun.api.runs", "localrun.api.output.runlogs")
CALLS: list[Callable[..., Any]] = [each for each in _EXPORTED if each.__module__ in _HOMES]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
def test_every_call_says_what_it_takes(call: Callable[..., Any]) -> None:
    parameters = inspect.signature(call).parameters
    assert parameters["future"].default is False
    assert parameters["future"].kind is inspect.Parameter.KEYWORD_ONLY
    assert parameters["timeout"].default in (10, None)


def test_every_call_gives_a_future_when_asked(home: Home) -> None:
    execute("run", "echo hi")
    calls = {
        localrun.get_run: ("run",),
        localrun.get_runs: (),
        localrun.get_run_logs: ("run",),
        localrun.wait_for_run_status: ("run", "COMPLETED"),
        localrun.update_run_metadata: ("run", {"a": 1}),
        localrun.stop_run: ("run",),
        localrun.stop_runs: (["run"],),
        localrun.start_run: ("run",),
        localrun.start_runs: ([],),
        localrun.update_run: (submit("updated", "sleep 1000", cpus=0),),
        localrun.follow_run_logs: ("run",),
        localrun.create_run: (localrun.RunConfig(name="other", command="true"),),
        localrun.delete_run: ("updated",),
        localrun.delete_runs: ([],),
    }
    assert set(calls) == set(CALLS)
    for call, arguments in calls.items():
        promise = call(*arguments, future=True, timeout=1)
        assert isinstance(promise, Future), call
        promise.result(30)
    home.all_ended()


def test_an_error_is_in_the_future(home: Home) -> None:
    promise = localrun.get_run("nowhere", future=True)
    with pytest.raises(localrun.RunNotFoundError):
        promise.result(30)


def test_many_futures_wait_at_once(home: Home) -> None:
    run = submit("run", "sleep 1000")
    promises = [localrun.wait_for_run_status("run", "STOPPED", future=True) for _ in range(20)]
    wait_until(lambda: home.status("run") == "RUNNING")
    assert not any(promise.done() for promise in promises)
    run.stop()
    assert {promise.result(30).status for promise in promises} == {RunStatus.STOPPED}


def test_a_future_keeps_no_program_from_ending(home: Home) -> None:
    submit("run", "sleep 1000")
    promise = localrun.wait_for_run_status("run", "STOPPED", future=True)
    threads = [thread for thread in threading.enumerate() if thread.name == "localrun-call"]
    assert all(thread.daemon for thread in threads)
    localrun.stop_run("run")
    promise.result(30)


def test_a_timeout_is_taken_by_every_call(home: Home) -> None:
    execute("run", "true")
    assert localrun.get_run("run", timeout=5).status is RunStatus.COMPLETED
    assert len(localrun.get_runs(timeout=5)) == 1
    assert localrun.stop_run("run", timeout=5).status is RunStatus.COMPLETED
