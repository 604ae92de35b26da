"""A stretch of code that nothing of the user's program breaks into: no handler of a signal, no finalizer.

A block's beginning and its end each change several things that belong together, streams, locks and a record, and an
exception raised between any two of them would leave them half changed. What handles signals in Python may raise, and
so may what the garbage collector ends: a generator, say, that is in a block of its own.
"""

from __future__ import annotations

import gc
import signal
import sys
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType, TracebackType
    from typing import Any

_HANDLED = (
    signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF,
    signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD, signal.SIGXCPU,
)  # fmt: skip


class Undisturbed:
    """Signals that come inside are handled after it; but a second Ctrl-C at once: then somebody insists."""

    def __init__(self) -> None:
        self._handlers: dict[int, Any] = {}
        self._waiting: list[int] = []
        self._collects = gc.isenabled()

    def __enter__(self) -> None:
        gc.disable()
        try:
            if threading.current_thread() is threading.main_thread():  # which alone executes handlers
                for number in _HANDLED:
                    self._put_off(number)
        except BaseException:
            self._put_back()  # one came before it was put off
            raise

    def _put_off(self, number: int) -> None:
        handler = signal.getsignal(number)
        if callable(handler):
            self._handlers[number] = handler
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number not in self._waiting:
            self._waiting.append(number)
        elif number == signal.SIGINT:
            self._waiting.remove(number)
            self._handlers[number](number, frame)

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        try:
            self._put_back()
        finally:
            self._handle()

    def _put_back(self) -> None:
        try:
            if self._collects:
                gc.enable()
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
        except BaseException:
            self._put_back()  # one that was back already has raised
            raise

    def _handle(self) -> None:
        if self._waiting:
            number = self._waiting.pop(0)
            try:
                self._handlers[number](number, sys._getframe())
            finally:
                self._handle()
