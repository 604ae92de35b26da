"""Runs that start after others: whether those are over, as their records say."""

from __future__ import annotations

from enum import Enum

from localrun.engine.scheduling.ticket import Dependency
from localrun.errors import LocalrunError, NotARunError, RunNotFoundError
from localrun.model import record as records
from localrun.model.folder import RunFolder
from localrun.model.status import RunStatus


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
