"""Runs that start after others: whether those are over, as their records say, and the end of a run that can't start."""

from __future__ import annotations

from enum import Enum

from localrun.engine.queue import Dependency, Ticket
from localrun.errors import LocalrunError, NotARunError, RunNotFoundError
from localrun.model import record as records
from localrun.model.folder import RunFolder
from localrun.model.record import Record
from localrun.model.status import Reason, RunStatus


class Verdict(Enum):
    """What a dependency says about the run that has it."""

    MET = "met"
    OPEN = "open"
    FAILED = "failed"


def judge(dependency: Dependency) -> tuple[Verdict, str]:
    """The verdict, and why, in words."""
    try:
        record = records.read(RunFolder(dependency.folder, dependency.uid))
    except (RunNotFoundError, NotARunError):
        return Verdict.FAILED, f"run {dependency.name} was deleted"
    except (LocalrunError, OSError) as error:
        return Verdict.OPEN, f"run {dependency.name} can't be read: {error}"
    status = records.status(record)
    if not status.is_terminal():
        return Verdict.OPEN, f"run {record['name']} is {status}"
    if status is RunStatus.COMPLETED or dependency.any_end:
        return Verdict.MET, f"run {record['name']} is {status}"
    return Verdict.FAILED, f"run {record['name']} ended {status} ({record['reason']})"


def fail(ticket: Ticket, why: str) -> None:
    """End a waiting run that can never start.

    Raises:
        LocalrunError, OSError: its record can't be read or written now.
    """

    def change(record: Record) -> None:
        if record["uid"] == ticket.uid and records.status(record) is RunStatus.QUEUED:
            message = f"never started, because {why}"
            records.advance(record, RunStatus.FAILED, reason=Reason.DEPENDENCY_FAILED, message=message)

    records.update(RunFolder(ticket.folder), change, sync=True)
