"""What mcli's calls have in common: ``timeout`` and ``future`` on every one, names or Runs or lists of them."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar, cast

C = TypeVar("C", bound=Callable[..., Any])


def call(work: C) -> C:
    """Give a function that declares mcli's ``timeout`` and ``future`` the latter's meaning.

    With ``future=True`` it returns a ``concurrent.futures.Future`` at once and works in the background, without regard
    to ``timeout``. Calls that have nothing to wait for are local and short, and are simply made, whatever ``timeout``.
    """

    @functools.wraps(work)
    def called(*args: Any, future: bool = False, **kwargs: Any) -> Any:
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
            promise.set_result(work())
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever asks for the result
            promise.set_exception(error)

    threading.Thread(target=fulfil, name="localrun-call", daemon=True).start()
    return promise
