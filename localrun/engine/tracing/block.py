"""A traced block in its record: RUNNING from its first line, ended with its last, found out when its process is gone.

The process that executes the block holds the run's lock, as a supervisor does for runs in the queue, and nobody else
looks after it. So whoever meets an active block whose lock is free ends it in its record. What the block writes is
`capture`'s.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable

from localrun import files
from localrun.engine import processes
from localrun.engine.dispatch import submission
from localrun.engine.queue import Queue
from localrun.engine.supervision import conclusion
from localrun.engine.supervision.outcome import Ending
from localrun.engine.tracing.output import logslice
from localrun.errors import LocalrunError, NotARunError, RunExistsError, RunNotFoundError
from localrun.model import journal
from localrun.model import record as records
from localrun.model.folder import SUPERVISOR_BYTE, RunFolder
from localrun.model.record import Record
from localrun.model.status import CONTEXT, Reason, RunStatus

_held: dict[str, files.ByteLock] = {}  # the locks of this process's blocks, by uid
# Blocks that have ended, which could not be written, on a full disk, say: they stay ours until it can.
_unwritten: dict[str, tuple[RunFolder, Ending, files.ByteLock]] = {}


def begin(queue: Queue, record: Record, path: str, provenance: Callable[[], bytes], *, delete: bool) -> None:
    """Make the folder of a block that this process enters, and its record, RUNNING.

    ``provenance`` gives the content of its ``provenance.json``, asked for as late as that can be. A run there that has
    ended is archived, and with ``delete`` deleted from there once the new one has its record.

    Raises:
        RunExistsError: the place is taken: by a run that has not ended, or by something that is no run.
        OSError: it can't be written; nothing is there then but what was there before.
    """
    folder = RunFolder(path, record["uid"])
    queue.prepare()
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with queue.lock():
        archived = _make_way(path)
        lock = _claim(folder)
    try:
        for needed in (folder.checkpoints, folder.logs, folder.resumption_logs(0)):
            os.makedirs(needed, 0o700, exist_ok=True)
        for status in (RunStatus.QUEUED, RunStatus.STARTING, RunStatus.RUNNING):
            records.advance(record, status)
        files.replace(folder.provenance, provenance())
        pid = os.getpid()
        record["ranks"] = [{"rank": 0, "pid": pid, "start": processes.start_time(pid)}]
        journal.note(folder)
        files.replace(folder.record, records.encode(record), sync=True)
    except BaseException:
        try:
            with queue.lock():
                _remove(path)
                if archived is not None:
                    with journal.Change(archived, path):
                        os.rename(archived, path)
        finally:
            lock.release()
        raise
    _held[record["uid"]] = lock
    if delete and archived is not None:
        _remove(archived)


def _remove(path: str) -> None:
    import shutil

    with journal.Change(path):
        shutil.rmtree(path)


def end(queue: Queue, folder: RunFolder, ending: Ending) -> Record:
    """Write how a block of this process ended.

    Raises:
        OSError: that can't be written now. It is, when this process looks at the run again, or ends, and it can be.
    """
    record = _write_end(folder, ending, _held.pop(str(folder.uid)))
    if queue.exists():  # what starts after it may be waiting
        submission.ensure_progress(queue)
        queue.wake("")
    return record


def _write_end(folder: RunFolder, ending: Ending, lock: files.ByteLock) -> Record:
    try:
        record = _conclude(folder, ending)
    except OSError:
        _unwritten[str(folder.uid)] = folder, ending, lock
        raise
    except BaseException:
        lock.release()
        raise
    lock.release()
    return record


@atexit.register
def _write_ends() -> None:
    for uid in [*_unwritten]:
        try:
            _write_end(*_unwritten.pop(uid))
        except (OSError, LocalrunError):
            pass  # whoever looks at the run finds that it was lost: the lock goes with this process


def is_mine(uid: str) -> bool:
    """True in the process that executes the block: a forked child leaves the ``with`` statement, but not the run."""
    return uid in _held


def end_if_lost(folder: RunFolder, record: Record) -> Record:
    """The record of a block, ended if it is active and its process is gone."""
    if record["run_type"] != CONTEXT or not records.status(record).is_active():
        return record
    unwritten = _unwritten.pop(str(record["uid"]), None)
    try:
        if unwritten is not None:
            return _write_end(*unwritten)
        if os.stat(folder.path).st_uid != os.geteuid():
            return record  # another's: what lies there may lead anywhere, and what we wrote he could not read
        lock = files.ByteLock.try_acquire(folder.lock, SUPERVISOR_BYTE)
    except OSError:
        return record  # gone, or on a medium that can't be written: nothing to be done about it here
    if lock is None:
        return record
    try:
        record = records.read(folder)
        if not records.status(record).is_active():
            return record
        logslice.take_out_rest(folder)
        pid = record["ranks"][0]["pid"] if record["ranks"] else "?"
        message = f"the process that executed the block (pid {pid} on {record['host']}) ended inside it"
        return _conclude(folder, Ending(RunStatus.FAILED, Reason.SYSTEM_FAILURE, message))
    except OSError:
        return record
    finally:
        lock.release()


def _conclude(folder: RunFolder, ending: Ending) -> Record:
    def change(record: Record) -> None:
        cause = conclusion.stop_cause(record)  # whatever way it ends after that, it is because of that
        conclusion.conclude(record, ending if cause is None else ending._replace(**cause._asdict()))

    return records.update(folder, change, sync=True)


def _make_way(path: str) -> str | None:
    """Move an ended run out of the way; returns where it is then. The caller holds the queue lock."""
    folder = RunFolder(path)
    try:
        there = end_if_lost(folder, records.read(folder))
    except (RunNotFoundError, NotARunError):
        return None  # what else there may be is found when the place is claimed
    if not records.status(there).is_terminal():
        raise RunExistsError(
            f"run {there['name']} is {there['status']} already: wait for it, stop it, or choose another name"
        )
    return submission.archive(path, there["uid"])


def _claim(folder: RunFolder) -> files.ByteLock:
    """Make the folder, or take over one whose maker was killed before it had a record; the lock says it is ours."""
    try:
        with journal.Change(folder.path):
            os.mkdir(folder.path, 0o700)
    except FileExistsError:
        if not _is_half_made(folder):
            raise RunExistsError(f"{folder.path} exists already, and is no run: choose another place") from None
    lock = files.ByteLock.try_acquire(folder.lock, SUPERVISOR_BYTE)
    if lock is None:
        raise RunExistsError(f"{folder.path} is being made by another process")
    lock.fd = files.moved_up(lock.fd)
    return lock


def _is_half_made(folder: RunFolder) -> bool:
    """True for a folder without a record that only has the lock, or nothing yet, and is the user's own."""
    if os.path.lexists(folder.record) or os.path.islink(folder.path) or os.stat(folder.path).st_uid != os.geteuid():
        return False
    return os.path.isfile(folder.lock) or not os.listdir(folder.path)


def _disown() -> None:
    """A forked child has copies of the locks, which would make a lost block look alive."""
    for lock in (*_held.values(), *(lock for _, _, lock in _unwritten.values())):
        lock.disown()
    _held.clear()
    _unwritten.clear()


os.register_at_fork(after_in_child=_disown)

