"""What the process executes that looks at the files a program opens: see `witness`, who starts it.

It has the run's journal open, and locked for as long as it is at work: so it finds the journal wherever the run's
folder is moved to, and everybody sees that it is at work. It imports as little as it can: the program may be over
before it is up.
"""

from __future__ import annotations

import marshal
import os
import struct

from localrun.engine.tracing.files.scope import Scope
from localrun.engine.tracing.files.sightings import Sightings
from localrun.model import artifacts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

LENGTH = struct.Struct("<I")  # before each message
DONE = b"done"
JOURNAL = 3  # its descriptor


def main() -> None:
    """Read what is told to the end, then answer."""
    os.closerange(JOURNAL + 1, os.sysconf("SC_OPEN_MAX"))
    messages = _messages()
    roots, left_out, cwd, since = next(messages)
    sightings = Sightings(lambda found: artifacts.append_to(JOURNAL, found), Scope(roots, left_out), cwd, since)
    for events in messages:
        sightings.take(events)
    sightings.finish()
    os.close(JOURNAL)  # before it is said: who hears it may want the lock
    try:
        os.write(0, DONE)
    except BrokenPipeError:
        pass  # the program was killed


def _messages() -> Iterator[Any]:
    with open(0, "rb", closefd=False) as line:
        while len(head := line.read(LENGTH.size)) == LENGTH.size:
            (length,) = LENGTH.unpack(head)
            data = line.read(length)
            if len(data) < length:
                return  # the program was killed, and the rest with it
            yield marshal.loads(data)  # noqa: S302 - it is our own parent's
