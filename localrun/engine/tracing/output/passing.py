"""Passing on what came into a log to where it would have gone."""

from __future__ import annotations

import os
import select

_CHUNK = 1 << 16


def shown_of(log: int) -> int:
    """How much was passed on of the log that a descriptor reads: nothing of one that was cut since."""
    position = os.lseek(log, 0, os.SEEK_CUR)
    return position if position <= os.fstat(log).st_size else 0


def pass_on(log: int, target: int | None, up_to: int | None = None) -> None:
    """Copy from where a log's descriptor stands to a target, up to a position or to the end."""
    if os.fstat(log).st_size < os.lseek(log, 0, os.SEEK_CUR):
        os.lseek(log, 0, os.SEEK_SET)  # somebody wrote to /dev/stdout as to a file, which begins anew then
    while True:
        wanted = _CHUNK if up_to is None else min(_CHUNK, up_to - os.lseek(log, 0, os.SEEK_CUR))
        data = os.read(log, wanted) if wanted > 0 else b""
        if not data:
            return
        try:
            while data and target is not None:
                data = data[_write(target, data) :]
        except OSError:
            pass  # nobody reads it any more: the log has it


def _write(fd: int, data: bytes) -> int:
    """Write some of this, once there is room: the pipe or terminal may be one that somebody made non-blocking."""
    while True:
        try:
            return os.write(fd, data)
        except BlockingIOError:
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            poll.poll()
