"""What is done to a run that exists: stopped, restarted, renamed, archived, its schedule and metadata changed.

Each is one change of the record or one move under the queue lock; whoever is killed in the middle leaves the run as it
was or as it was to be.
"""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Mapping
from typing import Any

from localrun import files
from localrun.engine import processes
from localrun.engine.dispatch import submission
from localrun.engine.queue import Queue
from localrun.engine.supervision.signals import NEWS, STOP
from localrun.errors import IllegalTransitionError, RunConfigError, RunExistsError
from localrun.model import journal, times
from localrun.model import record as records
from localrun.model.folder import RunFolder, is_own
from localrun.model.record import Record
from localrun.model.status import CONTEXT, Reason, RunStatus


def request_stop(
    queue: Queue, folder: RunFolder, reason: str | None = None, *, only_waiting: bool = False
) -> Record:
    """Stop a run that waits; ask the supervisor of one that is active; leave one that has ended as it is.

    With ``only_waiting`` one that is active is left alone too.
    """
    message = f"stopped by {user_name()}" + (f": {reason}" if reason else "")

    def change(record: Record) -> None:
        status = records.status(record)
        if status in (RunStatus.PENDING, RunStatus.QUEUED):
            records.advance(record, RunStatus.STOPPED, reason=Reason.STOPPED_BY_USER, message=message)
        elif status.is_active() and record["stop_requested"] is None and not only_waiting:
            record["stop_requested"] = {"time": times.now(), "message": message}
            records.add_event(record, "stop", message)

    before = records.read(folder)
    if records.status(before).is_terminal():
        return before
    try:
        record, kind = records.update(folder, change, sync=True), NEWS
    except OSError:
        if before["supervisor"] is None:
            raise
        record, kind = before, STOP  # a run that has filled the disk must be stoppable
    supervisor = record["supervisor"]
    if record["run_type"] == CONTEXT and record["ranks"] and not only_waiting:
        process = record["ranks"][0]  # the user's own: it is interrupted as if by Ctrl-C, if that can be
        is_deaf = processes.ignores(process["pid"], signal.SIGINT)  # a script's background job, say
        processes.signal_pid(process["pid"], process["start"], signal.SIGTERM if is_deaf else signal.SIGINT)
    elif supervisor is not None and not only_waiting:
        processes.signal_pid(supervisor["pid"], supervisor["start"], kind)
    elif records.status(record) is RunStatus.STOPPED:
        submission.withdraw(queue, folder, record["uid"])
    return record


def restart(queue: Queue, folder: RunFolder) -> Record:
    """Queue an ended run again, with the environment of whoever asks.

    Raises:
        RunConfigError: it is a traced block, which is not localrun's to execute.
        IllegalTransitionError: it lies in the archive.
    """
    record = records.read(folder)
    refuse_block(record)
    if folder.is_archived:
        raise IllegalTransitionError(f"run {record['name']} was deleted or replaced: only a clone of it can run")
    return submission.resubmit(queue, folder)


def refuse_block(record: Record) -> None:
    """Refuse to execute a traced block; RunConfigError."""
    if record["run_type"] == CONTEXT:
        raise RunConfigError(f"run {record['name']} is a block of a program: it runs again when the program enters it")


def move_to_archive(queue: Queue, folder: RunFolder) -> RunFolder:
    """Take an ended run out of the list of runs."""
    queue.prepare()  # where the run was put by hand, there may be none yet
    with queue.lock():
        record = records.read(folder)
        if not records.status(record).is_terminal():
            raise IllegalTransitionError(f"run {record['name']} was started again meanwhile: it was not deleted")
        return RunFolder(submission.archive(folder.path, record["uid"]), record["uid"])


def rename(queue: Queue, folder: RunFolder, name: str, *, overwrite: bool) -> RunFolder:
    """Give an ended run another name, and its folder with it."""
    from localrun.model.names import validate_name

    target = RunFolder(os.path.join(os.path.dirname(folder.path), validate_name(name)), folder.uid)

    def change(record: Record) -> None:
        record["name"] = name

    queue.prepare()
    with queue.lock():
        record = records.read(folder)
        if not records.status(record).is_terminal():
            raise IllegalTransitionError(
                f"run {record['name']} is {record['status']}: it can be renamed when it has ended"
            )
        if target.path != folder.path:  # else that was done by who was killed before the record was changed
            _make_way(target, name, overwrite=overwrite)
            with records.held(folder), journal.Change(folder.path, target.path):
                os.rename(folder.path, target.path)
        records.update(target, change)
    return target


def _make_way(target: RunFolder, name: str, *, overwrite: bool) -> None:
    """Archive the ended run that has the name, if there is one. The caller holds the queue lock."""
    if not os.path.lexists(target.path):
        return
    there = records.read(RunFolder(target.path))
    if not overwrite or not records.status(there).is_terminal():
        raise RunExistsError(f"name: {name!r} is taken by a run that is {there['status']}")
    submission.archive(target.path, there["uid"])


def update_scheduling(queue: Queue, folder: RunFolder, wanted: Mapping[str, Any]) -> Record:
    """Change scheduling fields of a run that has not ended, in its record and in its place in the queue."""
    from localrun.model.config import RunConfig
    from localrun.model.request import Request

    def put_into(record: Record) -> None:
        config = RunConfig.from_mapping(record["config"])
        for field, value in wanted.items():
            setattr(config, field, value)
        checked = Request.from_config(config, needs_command=False)
        record["config"] = config.to_mapping()
        record["request"].update({field: getattr(checked, field) for field in wanted})

    def change(record: Record) -> None:
        if records.status(record).is_terminal():
            raise IllegalTransitionError(f"run {record['name']} is {record['status']}: it can't be updated any more")
        put_into(record)

    put_into(records.read(folder))  # what is wrong with the values is said first, whatever the run is
    record = records.update(folder, change, sync=True)
    queue.reschedule(record["uid"], record["request"])
    if record["supervisor"] is not None:
        processes.signal_pid(record["supervisor"]["pid"], record["supervisor"]["start"], NEWS)
    return record


def update_metadata(folder: RunFolder, metadata: Mapping[str, Any]) -> Record:
    """Merge keys into a run's metadata; nothing changes if the whole would be too large."""
    from localrun.model.rules import validate_metadata

    def change(record: Record) -> None:
        record["metadata"] = validate_metadata({**record["metadata"], **validate_metadata(metadata)})

    return records.update(folder, change, sync=True)


def write(folder: RunFolder, data: Any, path: str) -> None:
    """Write a file inside a run's folder; nothing outside it, and nothing that is the run's own."""
    path = checked_name(path)
    records.read(folder)  # another run may have its place by now, or none
    target = f"{folder.path}/{path}"
    inside = f"{os.path.realpath(folder.path)}/"
    real = os.path.join(os.path.realpath(os.path.dirname(target)), os.path.basename(target))
    if not real.startswith(inside) or is_own(real.removeprefix(inside)) or os.path.islink(target):
        raise RunConfigError(f"path: {path!r} leads by a link to where nothing is to be written")
    os.makedirs(os.path.dirname(target), exist_ok=True)
    files.replace(target, as_bytes(data))


def checked_name(path: str | os.PathLike[str]) -> str:
    """The path of a file of the user's own inside a run's folder. RunConfigError if it is any other."""
    path = files.text_of(path, "path", "a path inside the run's folder")
    parts = path.split("/")
    if os.path.isabs(path) or not all(parts) or any(part in (".", "..") for part in parts):
        raise RunConfigError(f"path: {path!r} must be a relative path inside the run's folder, without '..'")
    if is_own(path):
        raise RunConfigError(f"path: {path!r} is one of the run's own files")
    return path


def as_bytes(data: Any) -> bytes:
    """What the user gives to be written: text as UTF-8, bytes as they are, else its pickle."""
    if isinstance(data, str):
        return data.encode()
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    from localrun.model.pickles import payload

    return payload.dumps(data)


@functools.cache
def user_name() -> str:
    """The name of the user this process belongs to."""
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"uid {os.geteuid()}"
