"""Getting a run into the queue: all of it or nothing, whenever the submitter is killed.

The folder is assembled out of sight and gets its name by one rename; the ticket says from before the first file to the
last what is being made, and its lock says whether its maker lives. What a killed submitter leaves is cleared away, or
failed, by the dispatcher.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import Any

from localrun import files
from localrun.engine import dispatcher
from localrun.engine.queue import SUBMITTING, WAITING, Need, Queue, Ticket, context_key, encode_context, ticket_name
from localrun.errors import RunExistsError, RunNotFoundError, SystemFailureError
from localrun.model import record as records
from localrun.model.folder import RunFolder
from localrun.model.record import Record
from localrun.model.status import RunStatus

ARCHIVE = ".archive"


def submit(
    queue: Queue,
    record: Record,
    path: str,
    contents: Mapping[str, bytes],
    need: Need,
    *,
    replace_uid: str | None = None,
) -> Record:
    """Make the run folder at ``path`` with this record and these files, and queue the run. Durable when it returns.

    ``replace_uid``: the uid of the terminal run that lies there and is archived in the same step.

    Raises:
        RunExistsError: the path is taken (by another run than ``replace_uid``). Nothing was changed.
        SystemFailureError: the runs folder can't be written.
    """
    queue.prepare()
    parent, base = os.path.split(path)
    records.advance(record, RunStatus.QUEUED)
    try:
        with _Submission(queue, record, path, f"{parent}/.{base}.{record['uid']}.new", need) as submission:
            submission.assemble(contents)
            submission.accept(replace_uid)
    except OSError as error:
        raise SystemFailureError(f"run {record['name']} could not be submitted: {error.strerror} ({parent})") from error
    return record


def resubmit(queue: Queue, folder: RunFolder, need: Need) -> Record:
    """Queue a terminal run again, for another resumption.

    Raises:
        IllegalTransitionError: the run has not ended.
    """
    queue.prepare()

    def restart(record: Record) -> None:
        records.advance(record, RunStatus.PENDING)
        records.advance(record, RunStatus.QUEUED)

    with _Submission(queue, records.read(folder), folder.path, "", need) as submission:
        record = records.update(folder, restart, sync=True)
        submission.enqueue()
    return record


def announce(queue: Queue, hint: str = "") -> None:
    """Wake the dispatcher, starting it if none is alive."""
    queue.wake(hint)
    dispatcher.ensure(queue)


def ensure_progress(queue: Queue) -> None:
    """Start a dispatcher if there is something in the queue and none is alive. Cheap when there isn't."""
    if queue.exists() and queue.dispatcher_pid() is None and not queue.is_quiet():
        dispatcher.ensure(queue)


def withdraw(queue: Queue, uid: str) -> None:
    """Take a run's ticket out of the waiting ones, after its record says that it won't start."""
    with queue.lock():
        name = queue.find(WAITING, uid)
        if name is not None:
            queue.drop(name, WAITING)


def archive(path: str, uid: str) -> str:
    """Move an ended run's folder out of its name's way; returns where it lies now. The caller holds the queue lock."""
    parent, base = os.path.split(path)
    os.makedirs(f"{parent}/{ARCHIVE}", mode=0o700, exist_ok=True)
    target = f"{parent}/{ARCHIVE}/{base}.{uid}"
    os.rename(path, target)
    return target


class _Submission:
    """One submission under way; leaving its ``with`` block by an exception takes everything back."""

    def __init__(self, queue: Queue, record: Record, path: str, building: str, need: Need) -> None:
        self._queue = queue
        self._context = encode_context(submitter_context())
        self.ticket = Ticket(
            name=ticket_name(record["request"]["priority"], record["uid"]),
            uid=record["uid"],
            run=record["name"],
            folder=path,
            building=building,
            environment=context_key(self._context),
            need=need,
        )
        record["submission"] = self.ticket.submission()
        self._record = records.encode(record)
        self._unsynced: list[int] = []

    def __enter__(self) -> _Submission:
        # Under the queue lock, because the dispatcher takes an unlocked file here for a dead submitter's.
        with self._queue.lock():
            self._lock = files.ByteLock.create(self._queue.path(SUBMITTING, self.ticket.name), self._record)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            import shutil

            shutil.rmtree(self.ticket.building, ignore_errors=True)
            self._queue.drop(self.ticket.name, SUBMITTING)
        for fd in self._unsynced:
            os.close(fd)
        self._lock.release()

    def assemble(self, contents: Mapping[str, bytes]) -> None:
        """Make the folder, still under a name that nobody looks for."""
        building = RunFolder(self.ticket.building)
        os.makedirs(os.path.dirname(building.path), exist_ok=True)
        os.mkdir(building.path, 0o700)
        os.mkdir(building.checkpoints, 0o700)
        for name, data in contents.items():
            self._unsynced.append(files.create(f"{building.path}/{name}", data))
        try:
            os.link(self._queue.path(SUBMITTING, self.ticket.name), building.record)
        except OSError:  # on another file system than the queue, or one without links
            self._unsynced.append(files.create(building.record, self._record))

    def accept(self, replace_uid: str | None) -> None:
        """Give the folder its name and the ticket its place: the moment in which the run is accepted."""
        with self._queue.lock():
            if replace_uid is not None:
                self._make_way(replace_uid)
            try:
                # A rename replaces an empty folder, which would be someone's own: that is refused like any other.
                if os.path.lexists(self.ticket.folder):
                    raise FileExistsError(errno.EEXIST, "exists")
                os.rename(self.ticket.building, self.ticket.folder)
            except (FileExistsError, NotADirectoryError):
                raise RunExistsError(
                    f"{self.ticket.folder} exists already: choose another name, or delete that run"
                ) from None
            except OSError as error:
                if error.errno == errno.ENOTEMPTY:
                    raise RunExistsError(f"{self.ticket.folder} exists already") from None
                raise
            self._enqueue_locked()
        self._announce_and_sync()

    def enqueue(self) -> None:
        """Give the ticket its place; from here on the run is the dispatcher's."""
        with self._queue.lock():
            self._enqueue_locked()
        self._announce_and_sync()

    def _enqueue_locked(self) -> None:
        self._queue.keep_environment(self.ticket.environment, self._context)
        self._queue.move(self.ticket.name, SUBMITTING, WAITING)

    def _announce_and_sync(self) -> None:
        """Let the run start, and meanwhile make it survive a power cut: it is promised when the submission returns.

        The ticket, which is the record, comes last: file systems log changes in order, so what is logged with it
        includes the renames before it.
        """
        announce(self._queue, self.ticket.name)
        for fd in (*self._unsynced, self._lock.fd):
            os.fsync(fd)

    def _make_way(self, uid: str) -> None:
        """Archive the terminal run that is to be replaced, if it is still that one."""
        folder = RunFolder(self.ticket.folder)
        try:
            record = records.read(folder)
        except RunNotFoundError:
            return  # somebody archived or deleted it: the name is free
        if record["uid"] != uid or not records.status(record).is_terminal():
            raise RunExistsError(f"run {record['name']} was replaced by another process meanwhile")
        archive(folder.path, uid)


def submitter_context() -> dict[str, Any]:
    """What a process run inherits from its submitter: the environment and the umask."""
    return {"environ": dict(os.environ), "umask": _umask()}


def _umask() -> int:
    # os.umask can only be read by setting it, which other threads would see.
    _, found, rest = files.read("/proc/self/status").partition(b"Umask:\t")
    return int(rest[:4], 8) if found else 0o022
