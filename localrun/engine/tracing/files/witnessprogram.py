"""What the process executes that looks at the files a program opens: see `witness`, who starts it.

It has the run's journal open, and locked for as long as it is at work: so it finds the journal wherever the run's
folder is moved to, and everybody sees that it is at work.
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from localrun.engine.tracing.files.scope import Folders
    from localrun.engine.tracing.files.sightings import Sightings

DONE = b"done"
# Its descriptors: one that has something to be read, or no other end any more, when the program is done; where it
# answers that it is, too; the journal; and where it is written down what the program does.
IS_OVER, ANSWER, JOURNAL, OPENED = 0, 1, 3, 4
# What it is told, of which a shell may have taken the first byte: that it is to go on, and when the program was done,
# or that it isn't needed.
GO_ON, NOTHING_LEFT = b".", b"q"

_IDLE_S = 0.25
_MODESTY = 5  # with which it asks for a processor, where there are more who want one


def words(folders: Folders, cwd: str, since: int) -> list[str]:
    """What it is given on its command line: the folders that count, where the program was at first, and when."""
    roots, left_out = folders
    return [cwd, str(since), str(len(roots)), *roots, *left_out]


def main() -> None:
    """Look at what the program opens, to the end, then answer."""
    os.closerange(OPENED + 1, os.sysconf("SC_OPEN_MAX"))
    os.nice(_MODESTY)
    import sys

    from localrun.engine.tracing.files.scope import Scope
    from localrun.engine.tracing.files.sightings import Sightings
    from localrun.model import artifacts

    cwd, since, count, *folders = sys.argv[2:]
    scope = Scope(folders[: int(count)], folders[int(count) :])
    _look(Sightings(lambda found: artifacts.append_to(JOURNAL, found), scope, cwd, int(since)))
    os.close(JOURNAL)  # before it is said: who hears it may want the lock
    try:
        os.write(ANSWER, DONE)
    except BrokenPipeError:
        pass  # the program was killed


def _look(sightings: Sightings) -> None:
    from localrun.engine.tracing.files.opened import Reader

    reader, program = Reader(OPENED), _Program()
    program.wait(0)
    while True:
        is_last = program.ended is not None  # what was written before that is there
        while events := reader.read(is_all=is_last):
            sightings.take(events, program.ended or time.time_ns())
            reader.give_back()
        if is_last:
            return sightings.finish()
        program.wait(_IDLE_S)


class _Program:
    """The program that is looked at: when it had done all that there is to be looked at, in nanoseconds, if it has."""

    def __init__(self) -> None:
        self.ended: int | None = None

    def wait(self, seconds: float) -> None:
        """Wait for so long, or until it is done."""
        import select

        poll = select.poll()
        poll.register(IS_OVER, select.POLLIN)
        if self.ended is None and poll.poll(seconds * 1000):
            said = os.read(IS_OVER, 100).strip(GO_ON)
            if said == NOTHING_LEFT:
                os._exit(0)
            self.ended = int(said) if said else time.time_ns()  # it was killed
