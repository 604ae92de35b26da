"""Every environment variable localrun reads, each with its precedence in one expression.

Values are read when asked for, never at import, so that a test or a notebook can change them.
"""

from __future__ import annotations

import os

from localrun.errors import RunConfigError


def home() -> str:
    """The folder of the queue, the dispatcher's log and, by default, the runs: ``LOCALRUN_HOME`` or ``~/.localrun``."""
    return os.path.abspath(os.path.expanduser(os.environ.get("LOCALRUN_HOME") or "~/.localrun"))


def runs_dir() -> str:
    """The folder of run folders: ``LOCALRUN_RUNS_DIR`` or ``<home>/runs``."""
    chosen = os.environ.get("LOCALRUN_RUNS_DIR")
    return os.path.abspath(os.path.expanduser(chosen)) if chosen else f"{home()}/runs"


def idle_seconds() -> float:
    """How long the dispatcher stays after its last work, in seconds: ``LOCALRUN_IDLE_S`` or 5."""
    text = os.environ.get("LOCALRUN_IDLE_S") or "5"
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise RunConfigError(f"LOCALRUN_IDLE_S: must be a number of seconds, 0 or more, not {text!r}")
    return seconds
