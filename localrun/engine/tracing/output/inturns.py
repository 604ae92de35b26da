"""Showing a block's two streams in the order in which Python wrote to them: the times of their logs say it.

They often lead to one terminal or file. What C code and subprocesses wrote to both between two lines of Python's is
shown stream by stream.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Protocol

    class Showable(Protocol):
        """A log of which something is not shown yet."""

        def size(self) -> int:
            """How long it is."""

        def shown(self) -> int:
            """How much of it is shown."""

        def show(self, up_to: int | None = None) -> None:
            """Show what was not shown, up to that position or to the end."""


class InTurns:
    """Shows streams, by their letters in the file of the times."""

    def __init__(self, times: str, streams: Mapping[str, Showable]) -> None:
        self._times = times
        self._streams = streams
        self._read = 0  # bytes of the times

    def show(self) -> None:
        """Show what has come by now."""
        sizes = {letter: stream.size() for letter, stream in self._streams.items()}
        shown = {letter: stream.shown() for letter, stream in self._streams.items()}
        # What was written by then has its turns noted: a turn is noted before the other stream is written to.
        for letter, size in self._turns():
            if size > shown[letter]:  # else another process has shown it
                self._streams[letter].show(size)
                shown[letter] = size
        for letter, size in sizes.items():
            self._streams[letter].show(size)

    def _turns(self) -> list[tuple[str, int]]:
        """The turns since the last time: a stream, and how long it was as the other took over."""
        found = []
        for line in self._new_lines():
            try:
                _, letter, size = line.split()
                found.append((letter.decode(), int(size)))
            except ValueError:
                continue  # of a disk that was full
        return [turn for turn in found if turn[0] in self._streams]

    def _new_lines(self) -> list[bytes]:
        try:
            fd = os.open(self._times, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return []  # the folder is gone, but not what was written
        try:
            data = os.pread(fd, max(os.fstat(fd).st_size - self._read, 0), self._read)
        finally:
            os.close(fd)
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        return whole.splitlines()
