"""Watching a run: a new handle at each change of its status (``watch_run_status``, from mcli)."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Literal, overload

from localrun.api.calls import futures_of
from localrun.api.listing import find as listing
from localrun.api.run import Run
from localrun.engine.dispatch.waiting import check_timeout, wait_until
from localrun.model.record import Record


@overload
def watch_run_status(run: str | Run, timeout: float | None = None, future: Literal[False] = False) -> Iterator[Run]: ...
@overload
def watch_run_status(
    run: str | Run, timeout: float | None = None, *, future: Literal[True]
) -> Iterator[Future[Run]]: ...
def watch_run_status(
    run: str | Run, timeout: float | None = None, future: bool = False
) -> Iterator[Run] | Iterator[Future[Run]]:
    """A new `Run` for the status the run has, and for each it comes to, until it has ended.

    No status is left out, however short it lasts: a `Run` shows the run as it was then. With ``future`` there is a
    ``Future`` for each; the one behind the last raises StopAsyncIteration.

    Raises:
        RunNotFoundError: there is no run of that name (404).
        RunTimeoutError: it has not ended after ``timeout`` seconds (not with ``future``).
    """
    check_timeout(timeout)
    found = listing.find(run)
    return futures_of(_changes(found, None)) if future else _changes(found, timeout)


def _changes(run: Run, timeout: float | None) -> Iterator[Run]:
    deadline = None if timeout is None else time.monotonic() + timeout
    seen = len(run._record["lifecycle"]) - 1
    while True:
        record = run._record
        for phase in range(seen, len(record["lifecycle"])):
            then = copy.copy(run)
            then._record = as_of(record, phase)
            yield then
        seen = len(record["lifecycle"])
        if run.status.is_terminal():
            return
        _wait_for_phase(run, seen, None if deadline is None else max(deadline - time.monotonic(), 0))


def _wait_for_phase(run: Run, phase: int, timeout: float | None) -> None:
    def has_begun(record: Record) -> bool:
        return len(record["lifecycle"]) > phase

    run._record = run._in_folder(lambda folder: wait_until(run._queue, folder, has_begun, timeout))


def as_of(record: Record, phase: int) -> Record:
    """A record as it was when a phase of its lifecycle began, as far as it still tells; the last phase is as it is."""
    phases = record["lifecycle"]
    if phase == len(phases) - 1:
        return record
    now = phases[phase]["started_at"]
    began = [attempt for attempt in record["resumptions"] if attempt["started_at"] <= now]
    if began and (began[-1]["ended_at"] or now) > now:
        began[-1] = dict.fromkeys(began[-1]) | {key: began[-1][key] for key in ("index", "started_at")}
    later = ("message", "exit_code", "signal", "failed_rank", "end_time", "error", "error_traceback", "result")
    return {
        **record,
        **dict.fromkeys(later),
        "status": phases[phase]["status"],
        "reason": phases[phase]["reason"],
        "updated_at": now,
        "start_time": record["start_time"] if began else None,
        "resumptions": began,
        "lifecycle": [*phases[:phase], {**phases[phase], "ended_at": None}],
    }
