"""The end of runs that wait, and must not: what they start after has failed, or their time is over."""

from __future__ import annotations

from localrun.engine.queue import WAITING, Queue
from localrun.engine.scheduling.ticket import Ticket
from localrun.model import record as records
from localrun.model.folder import RunFolder
from localrun.model.record import Record
from localrun.model.status import Reason, RunStatus


def fail_after(queue: Queue, ticket: Ticket, why: str) -> None:
    """End a run that can never start, because of a run that it was to start after.

    Raises:
        LocalrunError, OSError: its record can't be read or written now.
    """
    _end(queue, ticket, RunStatus.FAILED, Reason.DEPENDENCY_FAILED, f"never started, because {why}")


def stop_overdue(queue: Queue, ticket: Ticket) -> None:
    """End a run whose ``max_duration`` is over while it waits for another attempt; errors as in `fail_after`."""
    message = "its max_duration was over before it could be tried again"
    _end(queue, ticket, RunStatus.STOPPED, Reason.MAX_DURATION, message)


def _end(queue: Queue, ticket: Ticket, status: RunStatus, reason: str, message: str) -> None:
    def change(record: Record) -> None:
        if record["uid"] == ticket.uid and records.status(record) is RunStatus.QUEUED:
            records.advance(record, status, reason=reason, message=message)

    records.update(RunFolder(ticket.folder), change, sync=True)
    with queue.lock():
        queue.drop(ticket.name, WAITING)
