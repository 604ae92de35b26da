"""The commands of a run as one process; several of them one after another, each in a shell of its own.

A run of several goes on when one fails, and has the exit code of the first that did. How each ended and which part of
the logs is its own is noted beside them, a line ``code size-of-stdout size-of-stderr`` as each ends.
"""

from __future__ import annotations

from collections.abc import Sequence

from localrun import files
from localrun.tuples import NamedTuple

# Descriptor 3 is the log of errors: what this shell itself has to say, of a child that was killed, doesn't go there.
# In a container there may be no bash: this is for any shell.
_SCRIPT = r"""
exec 3>&2 2>/dev/null
notes=$1 first=0
shift
for command; do
    "${BASH:-sh}" -c "$command" 2>&3 3>&-
    code=$?
    printf '%s %s %s\n' "$code" $(stat -Lc %s /proc/$$/fd/1 /proc/$$/fd/3) >>"$notes"
    [ "$first" -ne 0 ] || first=$code
done
exit "$first"
"""


class Note(NamedTuple):
    """How a command ended, as a shell has it (128 + N for signal N), and how long both logs were by then, in bytes."""

    code: int
    stdout: int
    stderr: int


def argv(cmds: Sequence[str], notes: str) -> list[str]:
    """What is executed for the commands of a run; ``notes`` is the file for the notes on several of them."""
    if len(cmds) == 1:
        return ["/bin/bash", "-c", cmds[0]]
    return ["/bin/bash", "-c", _SCRIPT, "localrun", notes, *cmds]


def read(notes: str) -> list[Note]:
    """The notes on the commands that have ended so far, in order."""
    try:
        lines = files.read(notes).splitlines()
    except FileNotFoundError:
        return []
    return [Note(*map(int, line.split())) for line in lines]
