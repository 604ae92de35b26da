"""What a record says becomes of a run: when it must end, why it is to be ended, and how an ending is put into it.

Pure functions of the record; who reads and writes it is the supervisor. What an ending is called is `outcome`'s.
"""

from __future__ import annotations

from collections.abc import Mapping

from localrun.engine.supervision import outcome
from localrun.engine.supervision.outcome import Cause, Ending
from localrun.model import record as records
from localrun.model import times
from localrun.model.record import Record
from localrun.model.status import Reason, RunStatus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def conclude(record: Record, ending: Ending) -> bool:
    """Put an ending into a record; True if the run goes back to the queue for another attempt."""
    if ending.reason == Reason.PREEMPTED and (asked := stop_cause(record)) and asked.reason != ending.reason:
        ending = ending._replace(reason=asked.reason, message=asked.message)  # a user's stop came after
    current = records.status(record)
    if current in (RunStatus.STARTING, RunStatus.RUNNING):
        records.advance(record, RunStatus.TERMINATING, reason=ending.reason)
    facts = {field: getattr(ending, field) for field in ("exit_code", "signal", "failed_rank")}
    record["supervisor"], record["ranks"], record["preempt_requested"] = None, [], None
    if current is not RunStatus.QUEUED:
        attempt = record["resumptions"][-1]
        attempt.update(facts, status=ending.status.value, reason=ending.reason, message=ending.message)
        if record["stop_requested"] is None and _comes_back(record, ending):
            kind, verb = ("preemption", "resumed") if ending.reason == Reason.PREEMPTED else ("retry", "tried again")
            records.add_event(record, kind, f"attempt {attempt['index']} ended {ending.reason}: {ending.message}")
            records.advance(record, RunStatus.QUEUED, message=f"to be {verb} after: {ending.message}")
            return True
    record.update(facts, error=ending.error, error_traceback=ending.traceback)
    record.update(exception=ending.exception, result=ending.result)
    records.advance(record, ending.status, reason=ending.reason, message=ending.message)
    return False


def _comes_back(record: Mapping[str, Any], ending: Ending) -> bool:
    return ending.reason == Reason.PREEMPTED or outcome.retries_left(attempts(record), ending, record["request"])


def attempts(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The resumptions since the run was last started by hand."""
    return list(record["resumptions"][record["first_resumption"] :])


def first_started(record: Mapping[str, Any]) -> float:
    """When the first of these began, in seconds since the epoch; 0 before that."""
    tried = attempts(record)
    return times.seconds(tried[0]["started_at"]) if tried else 0.0


def deadline(record: Mapping[str, Any]) -> float | None:
    """When `max_duration` is over, in seconds since the epoch; it counts from the first attempt."""
    hours = record["request"]["max_duration"]
    return None if hours is None else first_started(record) + hours * 3600


def is_ending(record: Record) -> bool:
    """True if an active run is on its way out."""
    return stop_cause(record) is not None or records.status(record) is RunStatus.TERMINATING


def stop_cause(record: Mapping[str, Any]) -> Cause | None:
    """Why the record says that a run is to be ended; a user's word counts more than that of the queue."""
    if record["stop_requested"] is not None:
        return Cause(RunStatus.STOPPED, Reason.STOPPED_BY_USER, record["stop_requested"]["message"])
    if record["preempt_requested"] is not None:
        return Cause(RunStatus.STOPPED, Reason.PREEMPTED, record["preempt_requested"]["message"])
    return None


def preempt(record: Record, ahead: str) -> None:
    """Ask a run to make way for another one, which is named."""
    message = f"made way for {ahead}"
    record["preempt_requested"] = {"time": times.now(), "message": message, "ahead": ahead}
    records.add_event(record, "preemption", f"is to make way for {ahead}")
