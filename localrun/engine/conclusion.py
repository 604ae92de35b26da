"""What a record says becomes of a run: when it must end, why it is to be ended, and how an ending is put into it.

Pure functions of the record; who reads and writes it is the supervisor. What an ending is called is `outcome`'s.
"""

from __future__ import annotations

from collections.abc import Mapping

from localrun.engine import outcome
from localrun.engine.outcome import Cause, Ending
from localrun.model import record as records
from localrun.model.record import Record
from localrun.model.status import Reason, RunStatus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def conclude(record: Record, ending: Ending) -> bool:
    """Put an ending into a record; True if the run goes back to the queue for another attempt."""
    current = records.status(record)
    if current in (RunStatus.STARTING, RunStatus.RUNNING):
        records.advance(record, RunStatus.TERMINATING, reason=ending.reason)
    facts = {field: getattr(ending, field) for field in ("exit_code", "signal", "failed_rank")}
    if current is not RunStatus.QUEUED:
        attempt = record["resumptions"][-1]
        attempt.update(facts, status=ending.status.value, reason=ending.reason, message=ending.message)
        if record["stop_requested"] is None and outcome.retries_left(attempts(record), ending, record["request"]):
            record["supervisor"], record["ranks"] = None, []
            records.add_event(record, "retry", f"attempt {attempt['index']} ended {ending.reason}: {ending.message}")
            records.advance(record, RunStatus.QUEUED, message=f"to be tried again after: {ending.message}")
            return True
    record.update(facts, error=ending.error, error_traceback=ending.traceback, result=ending.result)
    record["supervisor"], record["ranks"] = None, []
    records.advance(record, ending.status, reason=ending.reason, message=ending.message)
    return False


def attempts(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The resumptions since the run was last started by hand."""
    return list(record["resumptions"][record["first_resumption"] :])


def deadline(record: Mapping[str, Any]) -> float | None:
    """When `max_duration` is over, in seconds since the epoch; it counts from the first attempt."""
    hours = record["request"]["max_duration"]
    return None if hours is None else records.seconds(attempts(record)[0]["started_at"]) + hours * 3600


def stop_cause(record: Mapping[str, Any]) -> Cause | None:
    asked = record["stop_requested"]
    return None if asked is None else Cause(RunStatus.STOPPED, Reason.STOPPED_BY_USER, asked["message"])
