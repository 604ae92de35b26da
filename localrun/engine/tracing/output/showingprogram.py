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
from localrun.engine.tracing.output.inturns import InTurns
from localrun.engine.tracing.output.passing import pass_on, shown_of
from localrun.engine.watch import Watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

OUT_LOG, ERR_LOG = 3, 4  # its descriptors; it has the real standard output and error as 1 and 2


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

    follow(logs, InTurns(logs[2], {"o": _Log(OUT_LOG, 1), "e": _Log(ERR_LOG, 2)}).show, 0)
    os._exit(0)


class _Log:
    """A log's descriptor, and where what comes into it would have gone."""

    def __init__(self, fd: int, target: int) -> None:
        self._fd = fd
        self._target = target

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def shown(self) -> int:
        return shown_of(self._fd)

    def show(self, up_to: int | None = None) -> None:
        pass_on(self._fd, self._target, up_to)


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
