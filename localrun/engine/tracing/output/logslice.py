"""The logs of a block inside others: a slice of the logs of the outermost one.

A process writes each of its streams to one file, the outermost block's log. Where a block inside it begins and ends are
positions there; its own logs are copied out when it ends. The source is noted in its folder, so that this can also be
done for one whose process was killed.
"""

from __future__ import annotations

import os
import time

from localrun import files
from localrun.model.folder import RunFolder
from localrun.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK = 1 << 20


class Sizes(NamedTuple):
    """Positions in the two logs of a block, in bytes."""

    out: int
    err: int


def note_source(folder: RunFolder, source: RunFolder, start: Sizes) -> None:
    """Say in a block's folder that its logs begin there, in another block's."""
    files.replace(folder.log_source, f"{start.out} {start.err} {source.path}".encode())


def sizes(folder: RunFolder) -> Sizes:
    """How long a block's logs are now."""
    return Sizes(os.stat(folder.stdout(0, 0)).st_size, os.stat(folder.stderr(0, 0)).st_size)


def take_out(folder: RunFolder, source: RunFolder, start: Sizes, end: Sizes) -> None:
    """Make a block's logs of the part of another's that is its own; what it had of them is replaced."""
    _copy(source.stdout(0, 0), folder.stdout(0, 0), start.out, end.out)
    _copy(source.stderr(0, 0), folder.stderr(0, 0), start.err, end.err)
    times = "".join(_times(source.log_times(0, 0), start, end))
    files.replace(folder.log_times(0, 0), times.encode())


def forget_source(folder: RunFolder) -> None:
    """The block's logs are complete, or its own from here on."""
    files.remove(folder.log_source)


def take_out_rest(folder: RunFolder) -> None:
    """Complete the logs of a block whose process was killed, if they are another's; all that came since is in them."""
    try:
        out, err, path = files.read(folder.log_source).decode().split(" ", 2)
    except FileNotFoundError:
        return
    source = RunFolder(path)
    try:
        take_out(folder, source, Sizes(int(out), int(err)), sizes(source))
    except FileNotFoundError:
        return  # deleted: there is nothing to be had any more
    forget_source(folder)


def take_late(folder: RunFolder, source: RunFolder, since: Sizes) -> None:
    """Add what came to another's logs after these positions."""
    _copy(source.stdout(0, 0), folder.stdout(0, 0), since.out, None)
    _copy(source.stderr(0, 0), folder.stderr(0, 0), since.err, None)


def _copy(source: str, target: str, start: int, end: int | None) -> None:
    """Copy a part of a file to another, which then holds that alone; without an ``end`` the rest, added to it."""
    reader = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        how = os.O_APPEND if end is None else os.O_TRUNC
        writer = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | how, 0o600)
        try:
            while data := os.pread(reader, _CHUNK if end is None else min(_CHUNK, max(end - start, 0)), start):
                files.write_all(writer, data)
                start += len(data)
        finally:
            os.close(writer)
    finally:
        os.close(reader)


def _times(path: str, start: Sizes, end: Sizes) -> Iterator[str]:
    """The notes of a log's growth, as far as they are about the slice, with its positions; the last say now."""
    left = {"o": (start.out, end.out), "e": (start.err, end.err)}
    for note in _notes(path):
        at, stream, size = note.split()
        first, last = left.get(stream, (0, 0))
        if first < min(int(size), last):
            yield f"{at} {stream} {min(int(size), last) - first}\n"
            if int(size) >= last:
                del left[stream]
    for stream, (first, last) in left.items():
        if first < last:
            yield f"{time.time():.3f} {stream} {last - first}\n"


def _notes(path: str) -> list[str]:
    try:
        *complete, _ = files.read(path).decode().split("\n")
    except FileNotFoundError:
        return []
    return [note for note in complete if note.count(" ") == 2]
