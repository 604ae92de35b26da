"""What the process executes that shows a block's output: see `showing`, who starts it, and where a thread may do it.

It imports as little as it can: the block may be over before it is up.
"""

from __future__ import annotations

import os
import select
import sys
import time

from localrun import files
from localrun.engine.supervision.logclock import LogClock
from localrun.engine.watch import Watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

OUT_LOG, ERR_LOG = 3, 4  # its descriptors; it has the real standard output and error as 1 and 2
_CHUNK = 1 << 16


def main() -> None:
    """Show the logs that are open as 3 and 4 on 1 and 2, until something comes, or nothing can come, from 0."""
    os.closerange(ERR_LOG + 1, os.sysconf("SC_OPEN_MAX"))
    logs = (sys.argv[2], sys.argv[3], sys.argv[4])
    try:
        lock = files.ByteLock.try_acquire(logs[2])
    except OSError:
        return  # the folder is gone
    if lock is None:
        return  # too late: the block has ended

    def show() -> None:
        pass_on(OUT_LOG, 1)
        pass_on(ERR_LOG, 2)

    follow(logs, show, 0)
    os._exit(0)


def follow(logs: tuple[str, str, str], show: Callable[[], None], ended: int) -> None:
    """Note the growth of the logs and show it, until there is something to read from ``ended``."""
    with Watch.borrow() as watch:
        clock = LogClock(watch)
        clock.add(*logs)
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        is_over = False
        while not is_over:
            show()
            # A chatty block is looked at no more often than this; the first line after a pause is shown at once.
            is_over = bool(poll.poll(max(clock.due(time.monotonic()), 0) * 1000)) or _wait(poll, ended, clock.fd)
            clock.sample()
        show()
        clock.stop()


def _wait(poll: select.poll, ended: int, news: int | None) -> bool:
    """Wait until a log grew or the end has come; True for the end."""
    if news is None:
        return False
    poll.register(news, select.POLLIN)
    ready = {fd for fd, _ in poll.poll()}
    poll.unregister(news)
    return ended in ready


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
