"""The status of a run: the enum, its order, and the one table of legal transitions.

Names and methods follow ``mcli.RunStatus``. What a status *means* for processes and leases is the engine's business.
"""

from __future__ import annotations

from enum import Enum

from localrun.errors import RunConfigError


class RunStatus(Enum):
    """Where a run is in its lifecycle. Members compare in the order in which runs pass through them."""

    UNKNOWN = "UNKNOWN"
    PENDING = "PENDING"
    QUEUED = "QUEUED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    TERMINATING = "TERMINATING"
    COMPLETED = "COMPLETED"
    STOPPED = "STOPPED"
    FAILED = "FAILED"

    def before(self, other: RunStatus | str, inclusive: bool = False) -> bool:
        """True if this status comes before ``other``; with ``inclusive``, also if it is ``other``."""
        other = known_status(other)
        return _RANK[self] < _RANK[other] or (inclusive and self is other)

    def after(self, other: RunStatus | str, inclusive: bool = False) -> bool:
        """True if this status comes after ``other``; with ``inclusive``, also if it is ``other``."""
        other = known_status(other)
        return _RANK[self] > _RANK[other] or (inclusive and self is other)

    def is_terminal(self) -> bool:
        """True for COMPLETED, STOPPED and FAILED: the run has ended."""
        return self in TERMINAL

    def is_active(self) -> bool:
        """True for STARTING, RUNNING and TERMINATING: a supervisor stands behind the run."""
        return self in ACTIVE

    @classmethod
    def from_string(cls, run_status: str | RunStatus) -> RunStatus:
        """The status of that name in any case or in camelCase, older names included; UNKNOWN for anything else."""
        if isinstance(run_status, cls):
            return run_status
        text = str(run_status)
        if text in _BY_NAME:  # as records have it
            return _BY_NAME[text]
        return _BY_NAME.get("".join(c for c in text if c.isalnum()).upper(), cls.UNKNOWN)

    def __str__(self) -> str:
        return self.value

    def __lt__(self, other: RunStatus) -> bool:
        return self.before(other) if isinstance(other, RunStatus) else NotImplemented

    def __le__(self, other: RunStatus) -> bool:
        return self.before(other, inclusive=True) if isinstance(other, RunStatus) else NotImplemented

    def __gt__(self, other: RunStatus) -> bool:
        return self.after(other) if isinstance(other, RunStatus) else NotImplemented

    def __ge__(self, other: RunStatus) -> bool:
        return self.after(other, inclusive=True) if isinstance(other, RunStatus) else NotImplemented


_RANK = {status: rank for rank, status in enumerate(RunStatus)}
_OLDER_NAMES = {
    "SCHEDULED": RunStatus.QUEUED,
    "STOPPING": RunStatus.TERMINATING,
    "FAILEDPULL": RunStatus.FAILED,
    "NOTSTARTED": RunStatus.PENDING,
    "ERROR": RunStatus.FAILED,
    "CANCELLED": RunStatus.STOPPED,
    "CANCELED": RunStatus.STOPPED,
}
_BY_NAME = {status.value: status for status in RunStatus} | _OLDER_NAMES


def known_status(status: RunStatus | str, field: str = "status") -> RunStatus:
    """The status of that name, as `RunStatus.from_string` reads it; RunConfigError if there is none of it."""
    known = RunStatus.from_string(status)
    if known is RunStatus.UNKNOWN and status is not known and str(status).upper() != known.value:
        raise RunConfigError(f"{field}: {status!r} is none of {', '.join(each.value for each in RunStatus)}")
    return known


TERMINAL = frozenset({RunStatus.COMPLETED, RunStatus.STOPPED, RunStatus.FAILED})
ACTIVE = frozenset({RunStatus.STARTING, RunStatus.RUNNING, RunStatus.TERMINATING})

TRANSITIONS: dict[RunStatus, frozenset[RunStatus]] = {
    RunStatus.UNKNOWN: frozenset(),
    RunStatus.PENDING: frozenset({RunStatus.QUEUED, RunStatus.STOPPED, RunStatus.FAILED}),
    RunStatus.QUEUED: frozenset({RunStatus.STARTING, RunStatus.STOPPED, RunStatus.FAILED}),
    RunStatus.STARTING: frozenset({RunStatus.RUNNING, RunStatus.TERMINATING}),
    RunStatus.RUNNING: frozenset({RunStatus.TERMINATING}),
    # Back to QUEUED: a run that is retried or was preempted never shows a terminal status.
    RunStatus.TERMINATING: frozenset({*TERMINAL, RunStatus.QUEUED}),
    # A restart by hand.
    RunStatus.COMPLETED: frozenset({RunStatus.PENDING}),
    RunStatus.STOPPED: frozenset({RunStatus.PENDING}),
    RunStatus.FAILED: frozenset({RunStatus.PENDING}),
}


CONTEXT = "CONTEXT"  # the run_type of traced blocks, which nobody but their own process executes


class Reason:
    """Why a run is in its terminal status: the documented set of ``reason`` values."""

    COMPLETED = "Completed"
    STOPPED_BY_USER = "StoppedByUser"
    PREEMPTED = "Preempted"
    MAX_DURATION = "MaxDurationExceeded"
    ERROR = "Error"
    KILLED = "Killed"
    OUT_OF_MEMORY = "OutOfMemory"
    FAILED_TO_START = "FailedToStart"
    FAILED_IMAGE_PULL = "FailedImagePull"
    DEPENDENCY_FAILED = "DependencyFailed"
    SYSTEM_FAILURE = "SystemFailure"
