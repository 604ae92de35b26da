"""Submissions whose submitter was killed: none was accepted, and what there is of one is cleared away or failed."""

from __future__ import annotations

import os
from collections.abc import Callable

from localrun import files
from localrun.engine.queue import SUBMITTING, Queue
from localrun.engine.scheduling.ticket import Ticket
from localrun.errors import LocalrunError, NotARunError, RunNotFoundError
from localrun.model import record as records
from localrun.model.folder import RunFolder
from localrun.model.record import Record
from localrun.model.status import Reason, RunStatus


def clean(queue: Queue, log: Callable[[str], None]) -> None:
    """End the submissions that nobody goes on with: those whose file isn't locked."""
    for name in queue.names(SUBMITTING):
        with queue.lock():
            if not os.path.exists(queue.path(SUBMITTING, name)):
                continue  # accepted meanwhile
            lock = files.ByteLock.try_acquire(queue.path(SUBMITTING, name))
            if lock is None:
                continue
            try:
                ticket = queue.read(SUBMITTING, name)
            except LocalrunError:
                ticket = None  # its writing broke off, and with it the submission: nothing else was made
            if ticket is not None:
                _clean_one(ticket, log)
            queue.drop(name, SUBMITTING)
            lock.release()


def _clean_one(ticket: Ticket, log: Callable[[str], None]) -> None:
    import shutil

    shutil.rmtree(ticket.building, ignore_errors=True)

    def fail(record: Record) -> None:
        if record["uid"] == ticket.uid:
            message = "its submission was interrupted before it was in the queue: submit it again"
            records.advance(record, RunStatus.FAILED, reason=Reason.SYSTEM_FAILURE, message=message)

    try:
        records.update(RunFolder(ticket.folder), fail, sync=True)
    except (RunNotFoundError, NotARunError):
        return  # it had not come so far
    except (LocalrunError, OSError) as error:
        log(f"run {ticket.run}, whose submission was interrupted: {error}")
