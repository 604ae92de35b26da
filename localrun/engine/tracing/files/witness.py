"""A process beside a program, which looks at the files that the program opens: while that goes on, and afterwards.

It is there from the beginning, as a shell that waits for a moment: what is over by then wasn't slowed down, where two
processors share a core, and has lost nothing if it was killed. When the program says that it is done, or is killed, it
looks at what is left, answers, and ends. Nobody waits for that but who wants to know what it has noted. This is the
program's end of it; what it executes is `witnessprogram`.
"""

from __future__ import annotations

import os
import select
import signal
from contextlib import contextmanager

from localrun.engine.tracing import beside
from localrun.engine.tracing.files import witnessprogram
from localrun.files import ByteLock, moved_up
from localrun.model import artifacts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from localrun.model.folder import RunFolder

# What ends the program or its run leaves it the moment that it needs.
_NOT_ITS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_ASLEEP = f'[ "$(timeout -s KILL 0.5 head -c 1)" = {witnessprogram.NOTHING_LEFT.decode()} ] || {beside.GO}'

SURELY_ASLEEP_S = 0.4


class Witness:
    """One that has been started: the journal, which is locked, and two pipes, to say that it is over, and to hear."""

    def __init__(self, pid: int, journal: int, is_over: int, answer: int) -> None:
        self._pid = pid
        self._journal = journal
        self._is_over = is_over
        self._answer = answer

    def leave(self, ended: int) -> None:
        """Let it look at what is left of what the program had done by then, in nanoseconds; the lock is its own now."""
        self._say(witnessprogram.GO_ON + str(ended).encode())
        os.close(self._journal)
        os.close(self._is_over)
        self._journal = self._is_over = -1

    def dismiss(self) -> None:
        """Let it end: nothing is left for it."""
        self._say(witnessprogram.NOTHING_LEFT)
        ByteLock(self._journal, 0).unlock()
        self.close()
        beside.reap(self._pid)  # where this process is everybody's parent

    def has_ended(self, within: float = 0.0) -> bool:
        """True if it has noted everything, or was killed, now or in so many seconds."""
        poll = select.poll()
        poll.register(self._answer, select.POLLIN)
        return bool(poll.poll(within * 1000))

    def end(self) -> bool:
        """Wait until it has noted everything; False if it was killed."""
        try:
            return os.read(self._answer, len(witnessprogram.DONE)) == witnessprogram.DONE
        finally:
            self.close()
            beside.reap(self._pid)

    def close(self) -> None:
        """Have nothing to do with it any more."""
        fds = self._journal, self._is_over, self._answer
        self._journal = self._is_over = self._answer = -1
        for fd in fds:
            if fd >= 0:
                os.close(fd)

    def _say(self, word: bytes) -> None:
        try:
            os.write(self._is_over, word)
        except BrokenPipeError:
            pass  # it was killed


def start(folder: RunFolder, opened: int, words: Sequence[str]) -> Witness:
    """Start one: what is in that file it looks at as the ``words`` say, and notes it in the run's journal.

    Raises:
        OSError: the system can't start it now.
    """
    with _descriptors() as made:
        made.append(artifacts.open_journal(folder))
        made.extend(os.pipe2(os.O_CLOEXEC))
        made.extend(os.pipe2(os.O_CLOEXEC))
        for _ in range(len(made)):
            made.append(moved_up(made.pop(0)))
        journal, over, is_over, answer, its_answer = made
        ByteLock.of_open(journal)
        its = (its_answer, witnessprogram.ANSWER), (journal, witnessprogram.JOURNAL), (opened, witnessprogram.OPENED)
        actions: list[tuple[Any, ...]] = [(os.POSIX_SPAWN_DUP2, *each) for each in its]
        actions.append((os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_RDWR, 0))
        pid = beside.start(
            witnessprogram, *words, stdin=over, actions=actions, blocked=_NOT_ITS, setsid=True, what=_ASLEEP
        )
        made[:] = over, its_answer
        return Witness(pid, journal, is_over, answer)


_being_made: list[list[int]] = []  # the descriptors of witnesses that are being started


@contextmanager
def _descriptors() -> Iterator[list[int]]:
    """A list of those that are to be closed in the end, and in a child that is forked meanwhile."""
    made: list[int] = []
    _being_made.append(made)
    try:
        yield made
    finally:
        _being_made.remove(made)
        for fd in made:
            os.close(fd)


def close_being_made() -> None:
    """In a forked child, have nothing to do with the witnesses that its parent was about to start."""
    while _being_made:
        for fd in _being_made.pop():
            os.close(fd)
