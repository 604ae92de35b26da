"""How far a copy is, on standard error, if that is a terminal: one line that is rewritten and then removed."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from localrun.model.sizes import size

_QUIET_S = 1.0
_EVERY_S = 0.2


class Progress:
    """Counts bytes up to a total, for one thing after another. What is over within a second shows nothing."""

    def __init__(self) -> None:
        self._doing = ""
        self._total = self._done = 0
        self._shows = _is_terminal(sys.stderr)
        self._next = time.monotonic() + _QUIET_S
        self._is_shown = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        if self._is_shown:
            self._write("")

    def begin(self, doing: str, total: int) -> None:
        """Something begins that has so many bytes."""
        self._doing, self._total, self._done = doing, total, 0
        if self._is_shown:  # something else
            self._next = time.monotonic()

    def add(self, count: int) -> None:
        """So many bytes more are done."""
        self._done += count
        if self._shows and time.monotonic() >= self._next:
            self._is_shown = True
            self._next = time.monotonic() + _EVERY_S
            percent = min(100 * self._done // max(self._total, 1), 100)
            self._write(f"{self._doing}: {size(self._done)} of {size(self._total)}, {percent}%")

    def _write(self, text: str) -> None:
        try:
            sys.stderr.write(f"\r\033[K{text}")
            sys.stderr.flush()
        except (OSError, ValueError):
            self._shows = self._is_shown = False  # the terminal is gone: the copy goes on


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError, OSError):
        return False  # there is none, it is closed, or something of the program's own
