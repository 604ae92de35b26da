"""Files that are the same in one run after another of a submitter: written and synced once, and then linked.

What a run comes from, and often its function, doesn't change within a sweep. The links are ordinary files: each lives
as long as its own run.
"""

from __future__ import annotations

import os

from localrun.tuples import NamedTuple

# They are kept in mind to be compared.
_MOST = 1 << 20


class _Made(NamedTuple):
    path: str
    data: bytes
    seen: tuple[int, int, int]


_last: dict[str, _Made] = {}  # by name; what was last made of it


def link(path: str, data: bytes) -> bool:
    """Have a file with this content at ``path`` if the last one of its name has it, and is as it was; else False."""
    made = _last.get(os.path.basename(path))
    if made is None or made.data != data:
        return False
    try:
        os.link(made.path, path, follow_symlinks=False)
    except OSError:  # its run was deleted or moved, is on another file system, or has as many as there can be
        return False
    if _look(os.lstat(path)) == made.seen:
        return True
    os.unlink(path)
    return False


def remember(path: str, data: bytes, fd: int) -> None:
    """Let a file be linked that was made with this content, and synced."""
    if len(data) <= _MOST:
        _last[os.path.basename(path)] = _Made(path, data, _look(os.fstat(fd)))


def _look(state: os.stat_result) -> tuple[int, int, int]:
    return state.st_ino, state.st_size, state.st_mtime_ns
