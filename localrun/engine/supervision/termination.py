"""Ending the processes of a run: asked to first, and then made to, until none is left."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence

from localrun.engine import processes
from localrun.engine.launchers.process import ProcessLauncher
from localrun.engine.supervision.attempt import Attempt

_RECHECK_S = 0.1
_KILL_ROUND_S = 0.02


def terminate(launcher: ProcessLauncher, attempt: Attempt, grace: float, wait: Callable[[float], None]) -> None:
    """SIGTERM to every process of the run, ``grace`` seconds, SIGKILL to all, until nothing is left.

    ``wait`` sleeps so many seconds at most, less if something happens.
    """
    _ask(launcher, attempt, time.monotonic() + grace, wait)
    _kill(launcher, attempt)


def _ask(launcher: ProcessLauncher, attempt: Attempt, deadline: float, wait: Callable[[float], None]) -> None:
    left = launcher.signal(signal.SIGTERM)
    told = {process.pid for process in left}
    if launcher.strangers:
        launcher.signal(signal.SIGCONT)  # the jobs that are stopped in a shell don't hear of it else
    while left and time.monotonic() < deadline:
        wait(min(_RECHECK_S, deadline - time.monotonic()))
        left = launcher.alive() if attempt.reap() or launcher.strangers else []
        _tell_orphans(left, told)
        if launcher.strangers:
            launcher.hang_up(left)


def _kill(launcher: ProcessLauncher, attempt: Attempt) -> None:
    # Rounds, because a process may fork and exit while the others are being killed: nothing is left when two
    # looks in a row found nothing, and nothing has exited in between.
    pause, empty = 0.0, 0
    while empty < 2 and (attempt.reap() or launcher.strangers):  # else nothing of it lives
        time.sleep(pause)
        exited = attempt.exited
        left = launcher.signal(signal.SIGKILL)
        attempt.reap()
        empty = 0 if left or attempt.exited != exited else empty + 1
        pause = 0.0 if empty else min(max(pause * 2, _KILL_ROUND_S), 1.0)


def _tell_orphans(left: Sequence[processes.Process], told: set[int]) -> None:
    """SIGTERM to what was forked while its parent was told, and was left behind by it; not to what a handler starts."""
    for process in left:
        if process.parent == os.getpid() and process.pid not in told:
            processes.send(process, signal.SIGTERM)
            told.add(process.pid)
