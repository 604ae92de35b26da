"""The record of a run, ``config.json``, and the one door through which it changes.

A record is a plain JSON mapping. ``update`` takes the record lock, reads, lets the caller change the mapping, checks
that every status change was made by ``advance`` (which knows the transition table), writes a temporary file and
replaces. Readers never lock. What the fields mean to people is in ``api.run``; who may change what, in the engine.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable

from localrun import files
from localrun.errors import IllegalTransitionError, NotARunError, RunNotFoundError, SystemFailureError
from localrun.model import catalogue, journal, times
from localrun.model.folder import RECORD_BYTE, SUPERVISOR_BYTE, RunFolder
from localrun.model.status import TRANSITIONS, RunStatus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

Record: TypeAlias = "dict[str, Any]"

SCHEMA = 1


def new(*, uid: str, name: str, run_type: str, **fields: Any) -> Record:
    """The record of a run that is being submitted: PENDING, with every field the record holds, in reading order."""
    at = times.now()
    record: Record = {
        "schema": SCHEMA, "uid": uid, "name": name, "run_type": run_type,
        "status": RunStatus.PENDING.value, "reason": None, "message": None, "exit_code": None, "signal": None,
        "failed_rank": None, "created_at": at, "updated_at": at, "start_time": None, "end_time": None,
        "fn_name": None, "cmds": None, "creator": None, "creation_stacktrace": None, "host": None, "python": None,
        "cwd": None, "error": None, "error_traceback": None, "upstream_artifacts": [], "downstream_artifacts": [],
        "config": {}, "request": {}, "fingerprints": None, "given": {}, "exception": None, "result": None,
        "gpus": [], "driver": None, "port": None, "supervisor": None, "ranks": [],
        "stop_requested": None, "preempt_requested": None, "dependencies": [],
        "first_resumption": 0, "resumptions": [], "lifecycle": [], "events": [], "metadata": {},
        "submission": {},
    }  # fmt: skip
    record.update(fields)
    record["lifecycle"].append(_phase(RunStatus.PENDING, at, 0))
    return record


def status(record: Record) -> RunStatus:
    """The status a record says."""
    return RunStatus.from_string(record["status"])


def resumption_index(record: Record) -> int:
    """The number of the latest attempt, counted from 0; 0 before the first one starts."""
    return max(len(record["resumptions"]) - 1, 0)


def latest_attempt(record: Record) -> int:
    """The number of the attempt that is under way or was the last; of a run that is started again, of the next one."""
    return max(resumption_index(record), int(record["first_resumption"]))


def advance(
    record: Record, to: RunStatus, *, reason: str | None = None, message: str | None = None, at: str | None = None
) -> None:
    """Change a record's status by the table of transitions, and its lifecycle with it.

    A run enters its next resumption when it enters STARTING; a requeue (TERMINATING to QUEUED) ends one.

    Raises:
        IllegalTransitionError: the table does not allow it; the record is as it was.
    """
    current = status(record)
    if to not in TRANSITIONS[current]:
        raise IllegalTransitionError(f"run {record['name']}: cannot go from {current} to {to}")
    at = at or times.now()
    if to is RunStatus.STARTING:
        record["resumptions"].append(_resumption(len(record["resumptions"]), at))
        record["start_time"] = record["start_time"] or at
    if current is RunStatus.TERMINATING:
        record["resumptions"][-1].update(ended_at=at)
    if to is RunStatus.PENDING:
        for field in ("exit_code", "signal", "failed_rank", "end_time", "error", "error_traceback", "exception",
                      "stop_requested", "preempt_requested"):
            record[field] = None
        record["result"], record["first_resumption"] = None, len(record["resumptions"])
    if to.is_terminal():
        record["end_time"] = at
    record["lifecycle"][-1]["ended_at"] = at
    record["lifecycle"].append(_phase(to, at, resumption_index(record), reason))
    record["status"], record["reason"], record["message"] = to.value, reason, message


def add_event(record: Record, kind: str, message: str) -> None:
    """Append to a record's events: something that happened and is no change of status."""
    record["events"].append({"time": times.now(), "type": kind, "message": message})


def read(folder: RunFolder) -> Record:
    """A run's record as it is on disk.

    Raises:
        RunNotFoundError: there is no such folder, or another run's than ``folder.uid``.
        NotARunError: the folder has no ``config.json``.
        SystemFailureError: ``config.json`` is not the record of a run.
    """
    try:
        try:
            record = files.read_json(folder.record)
        except (FileNotFoundError, NotADirectoryError):
            record = _read_inside(folder)
    except (ValueError, IsADirectoryError, RecursionError) as error:
        raise SystemFailureError(f"{folder.record} is not readable as JSON ({error})") from None
    if not isinstance(record, dict) or not record.keys() >= _REQUIRED:
        missing = ", ".join(sorted(_REQUIRED - record.keys())) if isinstance(record, dict) else "everything"
        raise SystemFailureError(f"{folder.record} is not the record of a run: it lacks {missing}")
    if folder.uid not in (None, record["uid"]):
        raise RunNotFoundError(f"run {record['name']} at {folder.path} is another one by now")
    return record


def _read_inside(folder: RunFolder) -> Any:
    """Read the record by way of the folder's descriptor, which tells a folder that has none from one not there yet."""
    try:
        inside = os.open(folder.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise RunNotFoundError(f"no run at {folder.path}") from None
    try:
        return files.read_json(f"/proc/self/fd/{inside}/config.json")
    except FileNotFoundError:
        raise NotARunError(f"{folder.path} is not a run folder: it has no config.json") from None
    finally:
        os.close(inside)


def update(folder: RunFolder, change: Callable[[Record], None], *, sync: bool = False) -> Record:
    """The door: change a record under its lock, and return it as written.

    ``change`` edits the mapping in place; if it raises, nothing is written. With ``sync`` it survives a power cut.
    A run's end takes in the journal of its artifacts.
    """
    with held(folder):
        record = read(folder)
        before, name = status(record), record["name"]
        change(record)
        _check(record, before)
        ends = status(record).is_terminal() and not before.is_terminal()
        are_taken_in = ends and catalogue.take_in(folder, record)
        record["updated_at"] = times.now()
        if (status(record), record["name"]) != (before, name):
            journal.note(folder)
        files.replace(folder.record, encode(record), sync=sync)
        if are_taken_in:
            catalogue.forget(folder)
    return record


def is_supervised(folder: RunFolder) -> bool:
    """True if a live supervisor (or the dispatcher about to fork it) holds the run's lock."""
    return files.is_locked(folder.lock, SUPERVISOR_BYTE)


def encode(record: Record) -> bytes:
    """A record as JSON text with a field a line: readable, and made by the fast encoder."""
    lines = [f'  "{key}": {"null" if value is None else _encode_json(value)}' for key, value in record.items()]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode("utf-8", "surrogatepass")


_encode_json = json.JSONEncoder(ensure_ascii=False).encode

_REQUIRED = frozenset(
    {"schema", "uid", "name", "status", "run_type", "lifecycle", "resumptions", "events", "created_at"}
)


def held(folder: RunFolder) -> files.ByteLock:
    """The record's lock, held: for what must not happen while somebody changes the record."""
    try:
        return files.ByteLock.acquire(folder.lock, RECORD_BYTE)
    except (FileNotFoundError, NotADirectoryError):
        raise RunNotFoundError(f"no run at {folder.path}") from None


def _check(record: Record, before: RunStatus) -> None:
    """Hold the door's promise: the status is what the lifecycle ends with, and only `advance` adds to that."""
    assert record["lifecycle"] and record["lifecycle"][-1]["status"] == record["status"], "status was set by hand"
    assert before is not RunStatus.UNKNOWN, "a record of unknown status is never rewritten"


def _phase(of: RunStatus, at: str, resumption: int, reason: str | None = None) -> dict[str, Any]:
    return {"resumption_index": resumption, "status": of.value, "started_at": at, "ended_at": None, "reason": reason}


def _resumption(index: int, at: str) -> dict[str, Any]:
    return {
        "index": index, "status": None, "started_at": at, "ended_at": None, "reason": None, "message": None,
        "exit_code": None, "signal": None, "failed_rank": None,
    }  # fmt: skip
