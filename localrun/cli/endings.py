"""How a run's end is passed on: as an exit code, and in words where its own output doesn't tell."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from localrun.cli.output import one_line, say
from localrun.model.status import Reason, RunStatus

if TYPE_CHECKING:
    from localrun.api.run import Run

_STOPPED = 143  # as after SIGTERM
_TIMED_OUT = 124  # as timeout(1) has it


def exit_code(run: Run) -> int:
    """The code a shell would have for a run that has ended: its own, or 128 + N for signal N; stopped 143, over its
    ``max_duration`` 124, failed without a code 1."""
    if run.status is RunStatus.COMPLETED:
        return 0
    if run.status is RunStatus.STOPPED:
        return _TIMED_OUT if run.reason == Reason.MAX_DURATION else _STOPPED
    return run.exit_code or 1


def tell_how_it_ended(run: Run) -> None:
    """Say on stderr how a run ended, if that is to be said.

    In a pipe nothing is added to the streams of a run that ended by itself: they are exactly what it wrote.
    """
    by_itself = run.reason in (Reason.COMPLETED, Reason.ERROR, Reason.KILLED)
    if run.status is not RunStatus.COMPLETED and (sys.stderr.isatty() or not by_itself):
        say(f"localrun: run {run.name} {run.status}, {run.reason}: {one_line(run.message or '')}")
