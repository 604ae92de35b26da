"""Waiting for a run to get somewhere: woken by the record's replacement, and never by a dead dispatcher's silence."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from localrun.engine.dispatch import submission
from localrun.engine.queue import Queue
from localrun.engine.watch import CREATED, MODIFIED, REPLACED, Watch
from localrun.errors import RunConfigError, RunTimeoutError, SystemFailureError
from localrun.model import record as records
from localrun.model.configtext import described
from localrun.model.folder import RunFolder
from localrun.model.record import Record
from localrun.model.status import CONTEXT, RunStatus

# How often a waiter makes sure that somebody is at work on what it waits for.
_PROGRESS_S = 1.0
# So many dispatchers in a row may be killed before they come up, or find nothing that they could do.
_MOST_STARTS = 20


def wait_until(
    queue: Queue,
    folder: RunFolder,
    done: Callable[[Record], bool],
    timeout: float | None = None,
    *,
    meanwhile: Callable[[Record], None] | None = None,
    also: tuple[str, ...] = (),
) -> Record:
    """Return a run's record once ``done`` says so of it.

    ``meanwhile`` is called with the record at each wake-up before that; ``also`` names files and folders whose change
    wakes it too. They may come into being later.

    Raises:
        RunTimeoutError: ``timeout`` seconds went by first.
        RunNotFoundError: the folder went away.
        SystemFailureError: the folder is a copy of one whose run had not ended, or another user's who lost it.
    """
    check_timeout(timeout)
    deadline = None if timeout is None else time.monotonic() + timeout
    with Watch.borrow() as watch:
        watch.add(folder.path, REPLACED)
        unwatched = set(also)
        care = _Care(queue, folder)
        while True:
            unwatched = {path for path in unwatched if not watch.add(path, CREATED | MODIFIED)}
            record = up_to_date(folder)
            if done(record):
                return record
            if meanwhile is not None:
                meanwhile(record)
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                raise RunTimeoutError(f"run {record['name']} is {record['status']} after {timeout:g} s")
            if now >= care.due:
                care.take(record)
            watch.wait(min(care.due, deadline or care.due) - now)


class _Care:
    """What a waiter does from time to time so that somebody is at work on what it waits for."""

    def __init__(self, queue: Queue, folder: RunFolder) -> None:
        self._queue = queue
        self._folder = folder
        self._helpless = 0
        self.due = time.monotonic() + _PROGRESS_S

    def take(self, record: Record) -> None:
        """See that the run is looked after; SystemFailureError if nobody does, or can."""
        if not ensure_looked_after(self._queue, self._folder, record):
            raise SystemFailureError(
                f"run {record['name']}: {self._folder.path} is another user's, or a copy that was made while it was "
                f"{record['status']}: nothing looks after it, and it will not end"
            )
        self._helpless = self._helpless + 1 if _is_nobody_there(self._queue, self._folder, record) else 0
        if self._helpless > _MOST_STARTS:
            raise SystemFailureError(
                f"run {record['name']} is {record['status']}, and no dispatcher stays alive to look after it: "
                f"{self._queue.log} may say why"
            )
        self.due = time.monotonic() + _PROGRESS_S


def check_timeout(timeout: object) -> None:
    """Refuse, with a RunConfigError, what is neither a number of seconds nor None."""
    if timeout is None:
        return
    try:
        is_number = not isinstance(timeout, str | bytes | bool) and float(timeout) == float(timeout)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        is_number = False
    if not is_number:
        raise RunConfigError(f"timeout: must be a number of seconds or None, not {described(timeout)}")


def _is_nobody_there(queue: Queue, folder: RunFolder, record: Record) -> bool:
    """True if what was started to look after the run is not there. It takes a moment to come up."""
    return not (records.status(record).is_active() and records.is_supervised(folder)) and not queue.dispatcher_pid()


def up_to_date(folder: RunFolder) -> Record:
    """A run's record; that of a traced block whose process is gone is ended first."""
    record = records.read(folder)
    if record["run_type"] == CONTEXT and records.status(record).is_active():
        from localrun.engine.tracing import block

        return block.end_if_lost(folder, record)
    return record


def ensure_looked_after(queue: Queue, folder: RunFolder, record: Record) -> bool:
    """Start a dispatcher if there is work and none is alive; False if nothing will ever look after this run."""
    status = records.status(record)
    if status.is_active() and records.is_supervised(folder):
        return True
    submission.ensure_progress(queue)  # also by way of a run that has ended: others may be waiting
    if status.is_terminal() or status is RunStatus.UNKNOWN:
        return True
    if record["run_type"] == CONTEXT:  # `up_to_date` ends those that are lost, but for another user's
        return os.stat(folder.path).st_uid == os.geteuid() or not records.status(records.read(folder)).is_active()
    return submission.readmit(queue, folder, record)
