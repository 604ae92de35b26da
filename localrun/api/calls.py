"""What mcli's calls have in common: ``timeout`` and ``future`` on every one."""

from __future__ import annotations

import contextlib
import functools
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar, cast

from localrun.engine.dispatch.waiting import check_timeout

C = TypeVar("C", bound=Callable[..., Any])
T = TypeVar("T")


def call(work: C) -> C:
    """Give a function that declares mcli's ``timeout`` and ``future`` the latter's meaning.

    With ``future=True`` it returns a ``concurrent.futures.Future`` at once and works in the background, without regard
    to ``timeout``; what is an iterator otherwise is one of futures then, as `futures_of` makes it. Calls that have
    nothing to wait for are local and short, and are simply made, whatever ``timeout``.
    """

    @functools.wraps(work)
    def called(*args: Any, future: bool = False, **kwargs: Any) -> Any:
        check_timeout(kwargs.get("timeout"))
        if not future:
            return work(*args, **kwargs)
        return _in_background(functools.partial(work, *args, **{**kwargs, "timeout": None}))

    return cast(C, called)


def _in_background(work: Callable[[], Any]) -> Future[Any]:
    """The future of a call that runs in a thread of its own: many may wait for runs at once, none holds up an exit."""
    promise: Future[Any] = Future()
    promise.set_running_or_notify_cancel()

    def fulfil() -> None:
        try:
            made = work()
            promise.set_result(futures_of(made) if isinstance(made, Iterator) else made)
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever asks for the result
            promise.set_exception(error)

    threading.Thread(target=fulfil, name="localrun-call", daemon=True).start()
    return promise


def futures_of(values: Iterator[T]) -> Iterator[Future[T]]:
    """A future for each value that is to come, made as it is asked for; the values are waited for in a thread.

    The end is known only when it comes: the future behind the last value raises StopAsyncIteration, and is the last.
    """
    asked: queue.SimpleQueue[Future[T] | None] = queue.SimpleQueue()

    def fulfil() -> None:
        for promise in iter(asked.get, None):
            try:
                promise.set_result(next(values))
            except StopIteration:
                promise.set_exception(StopAsyncIteration())
            except BaseException as error:  # noqa: BLE001 - it belongs to whoever asks for the result
                promise.set_exception(error)

    threading.Thread(target=fulfil, name="localrun-call", daemon=True).start()
    try:
        while True:
            promise: Future[T] = Future()
            promise.set_running_or_notify_cancel()
            asked.put(promise)
            yield promise
            if promise.done() and promise.exception() is not None:
                return
    finally:
        asked.put(None)


@contextlib.contextmanager
def undisturbed(protect: bool) -> Iterator[None]:
    """Hold back a SIGTERM until the end, if asked to. Signals are the main thread's: elsewhere it does nothing."""
    if not protect or threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        if held:
            os.kill(os.getpid(), signal.SIGTERM)
