"""The logs of a run, read back: one stream as it was written, or both merged in the order of time.

Ranks write two files; the supervisor notes beside them when each had grown to which size. Merging goes by those notes,
line by line; what the notes don't cover (nobody was there to take them) comes last. Everything here is bytes.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from localrun.errors import RunConfigError
from localrun.model.folder import RunFolder

_CHUNK = 1 << 20


class LogText(str):
    """The text of a log. Iterating gives its lines, with their line ends: ``\\n``, and nothing else, ends a line."""

    __slots__ = ()

    def __iter__(self) -> Iterator[str]:
        start = 0
        while start < len(self):
            end = self.find("\n", start) + 1 or len(self)
            yield self[start:end]
            start = end


class Line(NamedTuple):
    """A line of a merged log, or several (see `blocks`), or what there is of one. ``time``: seconds since the epoch."""

    data: bytes
    time: float | None


class StreamReader:
    """Reads one log file from where it last left off; a file that isn't there yet is empty."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.position = 0

    def read(self, up_to: int | None = None, limit: int = _CHUNK) -> bytes:
        """What was written since, up to a position in the file, at most ``limit`` bytes."""
        wanted = limit if up_to is None else min(up_to - self.position, limit)
        if wanted <= 0:
            return b""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return b""
        try:
            data = os.pread(fd, wanted, self.position)
        finally:
            os.close(fd)
        self.position += len(data)
        return data

    def read_all(self, up_to: int | None = None) -> Iterator[bytes]:
        """All that was written since, in pieces."""
        while data := self.read(up_to):
            yield data


class MergedReader:
    """Reads both streams of a rank, or one of them, in time order and by whole lines, from where it last left off."""

    def __init__(self, folder: RunFolder, resumption: int, rank: int, stream: str | None = None) -> None:
        paths = {"o": folder.stdout(resumption, rank), "e": folder.stderr(resumption, rank)}
        wanted = {"stdout": "o", "stderr": "e", None: "oe"}[stream]
        self._streams = {letter: StreamReader(paths[letter]) for letter in wanted}
        self._partial: dict[str, list[bytes]] = {letter: [] for letter in wanted}
        self._times = StreamReader(folder.log_times(resumption, rank))
        self._unparsed = b""
        self._last: float | None = None

    def lines(self) -> Iterator[Line]:
        """The lines that are complete and whose time is known by now."""
        return split(self.blocks())

    def rest(self) -> Iterator[Line]:
        """All that is left once the run has ended: lines nobody timed, and last lines without an end."""
        return split(self.blocks(over=True))

    def blocks(self, *, over: bool = False) -> Iterator[Line]:
        """What `lines` gives, or with ``over`` what `rest` does, in pieces of as many lines as were read at once."""
        while notes := self._times.read():
            *complete, self._unparsed = (self._unparsed + notes).split(b"\n")
            for at, stream, size in filter(None, map(_parsed, complete)):
                if stream in self._streams:
                    self._last = at
                    yield from self._read(stream, size)
        if not over:
            return
        for stream in self._streams:
            yield from self._read(stream, None)
            yield from self._unfinished(stream)

    def unfinished(self) -> Iterator[Line]:
        """What there is by now of lines that have no end yet; what comes of them later is a line of its own."""
        for stream in self._partial:
            yield from self._unfinished(stream)

    def has_news(self) -> bool:
        """True if growth was noted that nobody has read."""
        try:
            return os.stat(self._times.path).st_size > self._times.position
        except FileNotFoundError:
            return False

    def _read(self, stream: str, up_to: int | None) -> Iterator[Line]:
        """What a stream has up to there, by whole lines."""
        for data in self._streams[stream].read_all(up_to):
            end = data.rfind(b"\n") + 1
            if end:
                yield Line(b"".join([*self._partial[stream], data[:end]]), self._last)
                self._partial[stream].clear()
            if end < len(data):
                self._partial[stream].append(data[end:])

    def _unfinished(self, stream: str) -> Iterator[Line]:
        if self._partial[stream]:
            yield Line(b"".join(self._partial[stream]), self._last)
            self._partial[stream].clear()


def _parsed(note: bytes) -> tuple[float, str, int] | None:
    """A note's time, stream and size; None if a full disk has cut it short: what it dates goes with the next one."""
    try:
        at, stream, size = note.decode().split()
        return float(at), stream, int(size)
    except ValueError:
        return None


def split(blocks: Iterable[Line]) -> Iterator[Line]:
    """These blocks line by line."""
    for data, time in blocks:
        *complete, unfinished = data.split(b"\n")
        for line in complete:
            yield Line(line + b"\n", time)
        if unfinished:
            yield Line(unfinished, time)


def last_lines(blocks: Iterable[Line], count: int) -> Iterable[Line]:
    """The last so many lines of these blocks, without splitting all of them."""
    kept: deque[tuple[int, Line]] = deque()
    there = 0
    for block in blocks:
        lines = block.data.count(b"\n") + (not block.data.endswith(b"\n"))
        kept.append((lines, block))
        there += lines
        while kept and there - kept[0][0] >= count:
            there -= kept.popleft()[0]
    return deque(split(block for _, block in kept), count)


def ranks(folder: RunFolder, resumption: int) -> list[int]:
    """The ranks that have logs in a resumption, in order."""
    try:
        names = os.listdir(folder.resumption_logs(resumption))
    except FileNotFoundError:
        return []
    found = [name[5:-4] for name in names if name.startswith("rank_") and name.endswith(".out")]
    return sorted(int(rank) for rank in found if rank.isascii() and rank.isdigit())


def choose_rank(folder: RunFolder, resumption: int, rank: int | None) -> int:
    """The rank asked for, or the lowest there is (0 before any has started).

    Raises:
        RunConfigError: that rank has no logs; the message says which have.
    """
    there = ranks(folder, resumption)
    if rank is None:
        return there[0] if there else 0
    if there and rank not in there:
        have = ", ".join(map(str, there))
        raise RunConfigError(f"rank: {rank} has no logs in resumption {resumption}; these have: {have}")
    return rank


def text(folder: RunFolder, resumption: int, rank: int) -> bytes:
    """The merged log of a rank as it is now."""
    return b"".join(block.data for block in MergedReader(folder, resumption, rank).blocks(over=True))


def stream(path: str) -> bytes:
    """One log file, whole; empty if nothing was ever written."""
    return b"".join(StreamReader(path).read_all())
