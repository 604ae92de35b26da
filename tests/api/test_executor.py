"""``concurrent.futures`` over the queue keeps the promises of the standard library."""

from __future__ import annotations

import os
import threading
import time
from concurrent import futures

import pytest
from support import CPUS, Home, submit, wait_until

import localrun
from localrun import Executor, RunStatus


def double(x: int) -> int:
    return 2 * x


def fail(x: int) -> int:
    raise KeyError(x)


def wait_for(path: str) -> str:
    with open(path) as file:
        return file.readline()


def test_values_and_errors(home: Home) -> None:
    with Executor() as executor:
        good, bad = executor.submit(double, 2), executor.submit(fail, 3)
        assert good.result(60) == 4
        with pytest.raises(KeyError):
            bad.result(60)
        assert isinstance(bad.exception(), KeyError)
        assert good.run.status is RunStatus.COMPLETED
        assert good.done()


def test_it_is_an_executor(home: Home) -> None:
    with Executor() as executor:
        assert isinstance(executor, futures.Executor)
        assert list(executor.map(double, range(4), timeout=60)) == [0, 2, 4, 6]
        submitted = [executor.submit(double, i) for i in range(3)]
        done, waiting = futures.wait(submitted, timeout=60)
        assert (len(done), len(waiting)) == (3, 0)
        assert {future.result() for future in futures.as_completed(submitted)} == {0, 2, 4}


def test_options_are_those_of_functions(home: Home) -> None:
    with Executor(cpus=0, env_variables={"A": "x"}) as executor:
        future = executor.submit(os.getenv, "A")
        assert future.result(60) == "x"
        assert future.run.cpus == 0
    with pytest.raises(localrun.RunConfigError):
        Executor(cpu=1)


def test_a_decorated_function_keeps_its_own_options(home: Home) -> None:
    decorated = localrun.function(cpus=0.5, max_retries=2)(double)
    with Executor(max_retries=1) as executor:
        future = executor.submit(decorated, 2)
        assert future.result(60) == 4
        assert (future.run.cpus, future.run.max_retries) == (0.5, 1)


def test_shutdown_waits_and_refuses(home: Home) -> None:
    executor = Executor()
    future = executor.submit(double, 2)
    executor.shutdown()
    assert future.done()
    with pytest.raises(RuntimeError, match="shutdown"):
        executor.submit(double, 2)
    executor.shutdown()


def test_shutdown_without_waiting_returns_at_once(home: Home) -> None:
    os.mkfifo(home.place / "gate")
    executor = Executor()
    future = executor.submit(wait_for, str(home.place / "gate"))
    executor.shutdown(wait=False)
    assert not future.done()
    (home.place / "gate").write_text("go\n")
    assert future.result(60) == "go\n"


def test_a_waiting_call_is_cancelled(home: Home) -> None:
    blocker = submit("blocker", "sleep 1000", cpus=CPUS)
    wait_until(lambda: home.status("blocker") == "RUNNING")
    with Executor() as executor:
        future = executor.submit(double, 2)
        assert future.cancel()
        assert future.cancelled()
        assert future.run.refresh().status is RunStatus.STOPPED
        with pytest.raises(futures.CancelledError):
            future.result(10)
        assert future.cancel()
    assert futures.wait([future], timeout=10).done == {future}
    blocker.stop()


def test_a_running_call_is_not_cancelled_and_goes_on(home: Home) -> None:
    os.mkfifo(home.place / "gate")
    with Executor() as executor:
        future = executor.submit(wait_for, str(home.place / "gate"))
        wait_until(future.running)
        assert not future.cancel()
        (home.place / "gate").write_text("go\n")
        assert future.result(60) == "go\n"
        assert not future.cancel()


def test_a_call_that_has_just_started_is_not_stopped_by_cancel(home: Home) -> None:
    """Cancel looks, sees it waiting, and it starts: then it must go on."""
    for _ in range(10):
        with Executor() as executor:
            future = executor.submit(double, 2)
            if future.cancel():
                assert future.run.refresh().status is RunStatus.STOPPED
                assert future.run.started_at is None
            else:
                assert future.result(60) == 4


def test_shutdown_cancels_what_waits(home: Home) -> None:
    os.mkfifo(home.place / "gate")
    executor = Executor(cpus=CPUS)
    first = executor.submit(wait_for, str(home.place / "gate"))
    wait_until(first.running)
    others = [executor.submit(double, i) for i in range(5)]
    executor.shutdown(wait=False, cancel_futures=True)
    (home.place / "gate").write_text("go\n")
    executor.shutdown()
    assert first.result(60) == "go\n"
    assert all(future.cancelled() for future in others)


def test_callbacks_are_called(home: Home) -> None:
    seen: list[object] = []
    called = threading.Event()
    with Executor() as executor:
        future = executor.submit(double, 2)
        future.add_done_callback(lambda future: (seen.append(future.result()), called.set()))
    assert called.wait(30)
    assert seen == [4]


def test_a_run_that_is_stopped_by_others(home: Home) -> None:
    with Executor() as executor:
        future = executor.submit(time.sleep, 1000)
        wait_until(future.running)
        future.run.stop()
        with pytest.raises(localrun.RunStoppedError):
            future.result(30)


def test_a_run_that_is_deleted_by_others(home: Home) -> None:
    with Executor() as executor:
        future = executor.submit(time.sleep, 1000)
        wait_until(future.running)
        localrun.delete_run(future.run.name)
        with pytest.raises(localrun.LocalrunError):
            future.result(30)


def test_a_call_that_cannot_be_submitted_raises_at_once(home: Home) -> None:
    with Executor() as executor:
        with pytest.raises(localrun.PayloadError):
            executor.submit(double, threading.Lock())
        assert executor.submit(double, 1).result(60) == 2


def test_several_threads_submit(home: Home) -> None:
    with Executor(cpus=0) as executor, futures.ThreadPoolExecutor(4) as pool:
        inner = list(pool.map(lambda i: executor.submit(double, i), range(12)))
        assert [future.result(60) for future in inner] == [2 * i for i in range(12)]


def test_executors_leave_no_descriptor_behind(home: Home) -> None:
    """A user has 128 inotify instances by default."""
    with Executor() as executor:
        executor.submit(double, 1).result(60)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with Executor() as executor:
            executor.submit(double, 1).result(60)
    assert len(os.listdir("/proc/self/fd")) <= before


def test_many_calls(home: Home) -> None:
    with Executor(cpus=CPUS / 2) as executor:
        submitted = [executor.submit(double, i) for i in range(30)]
    assert [future.result() for future in submitted] == [2 * i for i in range(30)]
