"""Asking before much is done at once."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from localrun.cli.output import say
from localrun.errors import RunConfigError

_LISTED = 10


def is_confirmed(verb: str, kind: str, these: Sequence[tuple[str, object]], *, picked: bool, yes: bool) -> bool:
    """Ask the person, if more than one is meant or they were ``picked`` and not named; ``these`` are names and notes.

    Raises:
        RunConfigError: there is no terminal to ask on, and ``yes`` was not said.
    """
    if not these:
        say(f"no {kind}s to {verb}")
        return True
    if yes or (len(these) == 1 and not picked):
        return True
    which = f"{len(these)} {kind}s" if len(these) > 1 else f"{kind} {these[0][0]}"
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise RunConfigError(f"to {verb} {which} without being asked, give -y")
    for name, note in these[:_LISTED]:
        say(f"  {name}  {note}")
    if len(these) > _LISTED:
        say(f"  and {len(these) - _LISTED} more")
    sys.stderr.write(f"{verb} {which}? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    say("nothing was done")
    return False
