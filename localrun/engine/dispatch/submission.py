"""Getting a run into the queue: all of it or nothing, whenever the submitter is killed.

The folder is assembled out of sight and gets its name by one rename; the ticket says from before the first file to the
last what is being made, and its lock says whether its maker lives. What a killed submitter leaves is cleared away, or
failed, by the dispatcher.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping

from localrun import files, settings
from localrun.engine.dispatch import service
from localrun.engine.launchers import surroundings
from localrun.engine.queue import ACTIVE, SUBMITTING, WAITING, Queue, context_key, encode_context
from localrun.engine.scheduling.ticket import Ticket, ticket_name
from localrun.errors import (
    IllegalTransitionError,
    LocalrunError,
    RunExistsError,
    RunNotFoundError,
    SystemFailureError,
)
from localrun.model import journal
from localrun.model import record as records
from localrun.model.folder import RunFolder
from localrun.model.record import Record
from localrun.model.status import RunStatus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

# What a file of the folder holds; or what is to be asked for it, as late as that can be.
Content: TypeAlias = "bytes | Callable[[], bytes]"


def submit(
    queue: Queue,
    record: Record,
    path: str,
    contents: Mapping[str, Content],
    *,
    replace_uid: str | None = None,
) -> Record:
    """Make the run folder at ``path`` with this record and these files, and queue the run. Durable when it returns.

    ``replace_uid``: the uid of the terminal run that lies there and is archived in the same step.

    Raises:
        RunExistsError: the path is taken (by another run than ``replace_uid``). Nothing was changed.
        SystemFailureError: the runs folder can't be written.
    """
    _check_settings()
    queue.prepare()
    parent, base = os.path.split(path)
    records.advance(record, RunStatus.QUEUED)
    try:
        with _Submission(queue, record, path, f"{parent}/.{base}.{record['uid']}.new") as submission:
            submission.assemble(contents)
            submission.accept(replace_uid)
    except OSError as error:
        raise _could_not("submitted", record["name"], parent, error) from error
    return record


def _check_settings() -> None:
    """Refuse here what the dispatcher could tell nobody."""
    settings.idle_seconds()
    service.check_can_start()


def _could_not(what: str, name: str, where: str, error: OSError) -> SystemFailureError:
    place = error.filename or where
    return SystemFailureError(f"run {name} could not be {what}: {error.strerror} ({os.fspath(place)})")


def resubmit(queue: Queue, folder: RunFolder) -> Record:
    """Queue a terminal run again, for another resumption.

    Raises:
        IllegalTransitionError: the run has not ended, or a copy of it is in the queue.
        SystemFailureError: its folder or the queue can't be written. Nothing was changed.
    """
    _check_settings()
    queue.prepare()

    def restart(record: Record) -> None:
        records.advance(record, RunStatus.PENDING)
        records.advance(record, RunStatus.QUEUED)
        # The folder may be a copy of the one that was submitted first.
        record.update(submission=before["submission"], home=queue.home, host=os.uname().nodename)

    before = records.read(folder)
    try:
        with _Submission(queue, before, folder.path, "") as submission:
            submission.refuse_twin()
            submission.keep_environment()
            record = records.update(folder, restart, sync=True)
            submission.enqueue()
    except OSError as error:
        raise _could_not("started again", before["name"], folder.path, error) from error
    return record


def announce(queue: Queue, hint: str = "") -> None:
    """Wake the dispatcher, starting it if none is alive."""
    queue.wake(hint)
    service.ensure(queue)


def ensure_progress(queue: Queue) -> None:
    """Start a dispatcher if there is something in the queue and none is alive. Cheap when there isn't."""
    # Not in the home of another user, whom a run that was copied from there may name: his tickets are commands.
    if queue.exists() and queue.dispatcher_pid() is None and not queue.is_quiet() and queue.is_ours():
        service.ensure(queue)


def readmit(queue: Queue, folder: RunFolder, record: Record) -> bool:
    """Give a run that has not ended its ticket back if it was lost, damaged, say, or with the queue's folder.

    False if the folder is not the one that was submitted, but a copy, or others can have written it: nobody's to
    execute.
    """
    if queue.holds(record["uid"]):
        return True
    asked = record.get("submission") or {}
    if asked.get("folder") != folder.path or record["host"] != os.uname().nodename:
        return False
    from localrun.model import trust

    if trust.refusal(folder) is not None:
        return False
    queue.prepare()
    with queue.lock():
        record = records.read(folder)
        status = records.status(record)
        if status.is_terminal() or records.is_supervised(folder) or queue.holds(record["uid"]):
            return True
        ticket = Ticket.of(record, ticket_name(record["request"]["priority"], record["uid"]))
        files.replace(queue.path(ACTIVE if status.is_active() else WAITING, ticket.name), ticket.encode(), sync=True)
    announce(queue)
    return True


def withdraw(queue: Queue, folder: RunFolder, uid: str) -> None:
    """Take a run's ticket out of the waiting ones, after its record says that it won't start."""
    with queue.lock():
        name = queue.find(WAITING, uid)
        # It may have been started again since.
        if name is not None and records.status(records.read(folder)).is_terminal():
            queue.drop(name, WAITING)
    queue.wake("")


def archive(path: str, uid: str) -> str:
    """Move an ended run's folder out of its name's way; returns where it lies now. The caller holds the queue lock."""
    target = RunFolder(path).archived(uid).path
    if target == path:
        return path
    if os.path.lexists(target):  # a copy of the same run, which had the name before
        os.rename(target, f"{target}.{os.urandom(3).hex()}")
    # Whoever writes to its record meanwhile finds that it is gone.
    with records.held(RunFolder(path)), journal.Change(path):
        os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
        with journal.Change(target):
            os.rename(path, target)
    return target


def _has_ended(ticket: Ticket) -> bool:
    """True if a ticket's run is over, and the ticket about to go."""
    try:
        return records.status(records.read(RunFolder(ticket.folder))).is_terminal()
    except RunNotFoundError:
        return True  # only then can it have been renamed or deleted
    except LocalrunError:
        return False


class _Submission:
    """One submission under way; leaving its ``with`` block by an exception takes everything back."""

    def __init__(self, queue: Queue, record: Record, path: str, building: str) -> None:
        self._queue = queue
        self._context = encode_context(surroundings.of_this_process())
        record["submission"] = {"folder": path, "building": building, "environment": context_key(self._context)}
        self.ticket = Ticket.of(record, ticket_name(record["request"]["priority"], record["uid"]))
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

    def assemble(self, contents: Mapping[str, Content]) -> None:
        """Make the folder, still under a name that nobody looks for."""
        building = RunFolder(self.ticket.building)
        os.makedirs(os.path.dirname(building.path), exist_ok=True)
        with journal.Change(building.path):
            os.mkdir(building.path, 0o700)
        os.mkdir(building.checkpoints, 0o700)
        os.close(files.create(building.lock, b""))
        for name, content in contents.items():
            data = content if isinstance(content, bytes) else content()
            self._unsynced.append(files.create(f"{building.path}/{name}", data))
        try:
            os.link(self._queue.path(SUBMITTING, self.ticket.name), building.record)
        except OSError:  # on another file system than the queue, or one without links
            self._unsynced.append(files.create(building.record, self._record))

    def accept(self, replace_uid: str | None) -> None:
        """Give the folder its name and the ticket its place: the moment in which the run is accepted."""
        self.keep_environment()
        with self._queue.lock():
            if replace_uid is not None:
                self._make_way(replace_uid)
            try:
                # A rename replaces an empty folder, which would be someone's own: that is refused like any other.
                if os.path.lexists(self.ticket.folder):
                    raise FileExistsError(errno.EEXIST, "exists")
                with journal.Change(self.ticket.folder):
                    os.rename(self.ticket.building, self.ticket.folder)
            except (FileExistsError, NotADirectoryError):
                raise RunExistsError(
                    f"{self.ticket.folder} exists already: choose another name, or delete that run"
                ) from None
            except OSError as error:
                if error.errno == errno.ENOTEMPTY:
                    raise RunExistsError(f"{self.ticket.folder} exists already") from None
                raise
            try:
                self._queue.move(self.ticket.name, SUBMITTING, WAITING)
            except OSError:
                os.rename(self.ticket.folder, self.ticket.building)  # refused as a whole
                raise
        self._announce_and_sync()

    def keep_environment(self) -> None:
        """Have what the run inherits where it will be looked for. Our ticket keeps it from being tidied away."""
        with self._queue.lock():
            self._queue.keep_environment(self.ticket.environment, self._context)

    def refuse_twin(self) -> None:
        """Refuse a run whose copy in another folder is in the queue: there a uid is one run."""
        with self._queue.lock():
            for other in self._queue.of_run(self.ticket.uid):
                if other.folder != self.ticket.folder and not _has_ended(other):
                    raise IllegalTransitionError(
                        f"run {self.ticket.run}: its copy {other.folder} is in the queue: wait for its end, or clone it"
                    )

    def enqueue(self) -> None:
        """Give the ticket of a restart its place; from here on the run is the dispatcher's."""
        with self._queue.lock():
            old = self._queue.find(WAITING, self.ticket.uid)
            if old is not None:
                self._queue.drop(old, WAITING)  # of a stop that has not come to that yet
            self._queue.move(self.ticket.name, SUBMITTING, WAITING)
        self._announce_and_sync()

    def _announce_and_sync(self) -> None:
        """Let the run start, and meanwhile make it survive a power cut: it is promised when the submission returns.

        The ticket, which is the record, comes last: file systems log changes in order, so what is logged with it
        includes all that was made and renamed before it. Only what files contain is written apart from that.
        """
        try:
            announce(self._queue, self.ticket.name)
        except OSError:
            pass  # no processes left, say: it is accepted, and whoever waits for it tries again
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


