"""The journal of a runs folder: the names of the runs in it that change, for whoever keeps an index of them.

It lies beside the index (``api.index``) and is there only where somebody keeps one: elsewhere nothing here does
anything. Two kinds of change are told, so that a process killed at any moment leaves nothing that goes unseen:

- a run's record: its name is noted *before* the record is replaced, and under the record's lock. Whoever reads the note
  and finds that lock free knows that the change was made, or never will be.
- which runs there are: the folder's entries change inside a ``Change``, which then gives the folder a time of
  modification of its own choosing and writes that down here, the *stamp*. No clock gives a folder exactly that time: as
  long as the folder shows the stamp, nobody else has put anything there or taken it away, and no ``Change`` broke off.

The file is a header, the stamp and the journal's own name, and then the names of runs, each with a NUL behind it.
"""

from __future__ import annotations

import os
import time

from localrun import files
from localrun.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from localrun.model.folder import RunFolder

FOLDER = ".index"  # in the runs folder

_STAMP_SIZE = 20
START = _STAMP_SIZE + 1 + 16 + 1  # where the names begin


def path(runs: str) -> str:
    """The journal of a runs folder."""
    return f"{runs}/{FOLDER}/journal"


def note(folder: RunFolder) -> None:
    """Say that a run's record is about to change. The caller holds the record's lock until it has changed."""
    runs, name = os.path.split(folder.path)
    journal = _open(runs)
    if journal is not None:
        try:
            _append(journal, name)
        except OSError:
            _abandon(runs)
        finally:
            journal.release()


class Change:
    """Inside it, entries of one folder of runs are made, renamed or removed: those of these paths.

    Keep it short: everyone else who changes runs there waits.
    """

    __slots__ = ("_journal", "_names", "_runs", "_was_clean")

    def __init__(self, *paths: str) -> None:
        self._runs = os.path.dirname(paths[0])
        self._names = [os.path.basename(path) for path in paths]

    def __enter__(self) -> None:
        self._journal = _open(self._runs)
        self._was_clean = self._journal is not None and _is_clean(self._journal, self._runs)

    def __exit__(self, *_: object) -> None:
        if self._journal is None:
            return
        try:
            _append(self._journal, *self._names)
            if self._was_clean:  # else somebody else's change is still to be found
                _stamp(self._journal, self._runs)
        except OSError:
            _abandon(self._runs)
        finally:
            self._journal.release()


class State(NamedTuple):
    """A journal as it is: which one, whether only ``Change`` touched its folder since it was stamped, and its size."""

    name: str
    is_clean: bool
    size: int


def state(runs: str) -> State | None:
    """The state of a runs folder's journal; None if there is none, or what there is is cut short."""
    journal = _open(runs)
    if journal is None:
        return None
    try:
        return _state(journal, runs)
    finally:
        journal.release()


def stamp(runs: str) -> State | None:
    """Stamp a runs folder whose entries are about to be read: a change from now on is one that can be told."""
    journal = _open(runs)
    if journal is None:
        return None
    try:
        _stamp(journal, runs)
        return _state(journal, runs)
    finally:
        journal.release()


def names(runs: str, start: int, end: int) -> set[str]:
    """The names that were noted between two sizes of the journal."""
    with open(path(runs), "rb", buffering=0) as file:
        file.seek(start)
        return {os.fsdecode(name) for name in file.read(end - start).split(b"\0") if name}


def begin(runs: str) -> None:
    """Start an empty journal, in place of the one there is. Who has that open turns to the new one."""
    os.makedirs(f"{runs}/{FOLDER}", mode=0o700, exist_ok=True)
    files.replace(path(runs), b"0" * _STAMP_SIZE + _name())


def renew(runs: str, seen: State) -> State:
    """Start an empty journal that carries the stamp on, if nothing was noted since; the journal that is there then."""
    journal = _open(runs)
    if journal is None:
        return seen
    try:
        if _state(journal, runs) == seen:
            files.replace(path(runs), os.pread(journal.fd, _STAMP_SIZE, 0) + _name())
    finally:
        journal.release()
    return state(runs) or seen


def _name() -> bytes:
    """The part of a new journal's header that no other journal has."""
    return f" {os.urandom(8).hex()}\0".encode()


def _open(runs: str) -> files.ByteLock | None:
    """The journal, open and locked; None if there is none."""
    while True:
        try:
            lock = files.ByteLock.of_existing(path(runs))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except PermissionError:
            return None  # another user's index, which trusts no run but that user's own
        except OSError:  # out of descriptors, say
            _abandon(runs)
            return None
        if os.fstat(lock.fd).st_nlink:
            return lock
        lock.release()  # another journal is there by now


def _abandon(runs: str) -> None:
    """What can't be noted must not be missed: an index without its journal is made anew. It never fails a run."""
    try:
        files.remove(path(runs))
    except OSError:
        pass  # a disk that has become read-only: nothing changes there any more


def _append(journal: files.ByteLock, *names: str) -> None:
    os.lseek(journal.fd, 0, os.SEEK_END)
    data = b"".join(os.fsencode(name) + b"\0" for name in names)
    if os.write(journal.fd, data) < len(data):
        raise OSError("the disk is full")


def _stamp(journal: files.ByteLock, runs: str) -> None:
    now = time.time_ns()
    os.utime(runs, ns=(now, now))
    os.pwrite(journal.fd, f"{now:0{_STAMP_SIZE}d}".encode(), 0)


def _is_clean(journal: files.ByteLock, runs: str) -> bool:
    return os.pread(journal.fd, _STAMP_SIZE, 0) == f"{os.stat(runs).st_mtime_ns:0{_STAMP_SIZE}d}".encode()


def _state(journal: files.ByteLock, runs: str) -> State | None:
    size = os.fstat(journal.fd).st_size
    if size < START or os.pread(journal.fd, 1, size - 1) != b"\0":
        return None
    # With the folder's own number: an index that was copied along with its runs is none of the copies'.
    name = os.pread(journal.fd, START - _STAMP_SIZE - 2, _STAMP_SIZE + 1).decode(errors="replace")
    return State(f"{name}-{os.stat(runs).st_ino}", _is_clean(journal, runs), size)
