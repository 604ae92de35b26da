"""What a supervisor hears of while it waits: signals, and that its run's record has changed."""

from __future__ import annotations

import os
import select
from collections.abc import Iterable, Mapping

from localrun.engine.supervision.signals import NEWS
from localrun.errors import LocalrunError
from localrun.model import record as records
from localrun.model.folder import RunFolder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class News:
    """The signals that have come and are still to be heeded; ``NEWS`` among them says to read the record again.

    ``pipe`` is where this process's signals appear.
    """

    def __init__(self, pipe: int, folder: RunFolder) -> None:
        self._pipe = pipe
        self._folder = folder
        self._signals: set[int] = set()
        self._seen: tuple[int, int] | None = None  # which record, for all that is known, has been read

    def __contains__(self, number: int) -> bool:
        return number in self._signals

    def add(self, number: int) -> None:
        """Take a signal for one that has come."""
        self._signals.add(number)

    def hear(self) -> None:
        """Take in what has come by now."""
        self._poll(0.0, ())

    def wait(self, timeout: float, fds: Iterable[int]) -> set[int]:
        """Sleep until a signal, until one of these can be read, or the timeout in seconds; those that can."""
        ready = self._poll(timeout, fds)
        self._look()
        return ready

    def reread(self, record: Mapping[str, Any]) -> Mapping[str, Any]:
        """The record, read again if there was a signal that it has changed."""
        if NEWS not in self._signals:
            return record
        self._signals.discard(NEWS)
        try:
            return records.read(self._folder)
        except LocalrunError:
            return record  # a damaged record stops nobody's work

    def _poll(self, timeout: float, fds: Iterable[int]) -> set[int]:
        poll = select.poll()
        for fd in (self._pipe, *fds):
            poll.register(fd, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(timeout * 1000)}
        if self._pipe in ready:
            self._signals.update(os.read(self._pipe, 4096))
        return ready

    def _look(self) -> None:
        """Have the record read again if it is another one than it was: a signal may be lost with who was to send it."""
        try:
            there = os.stat(self._folder.record)
        except OSError:
            return
        seen = there.st_ino, there.st_mtime_ns
        if seen != self._seen:
            self._seen = seen
            self._signals.add(NEWS)
