"""Leases: the exclusive hold of a run on a GPU, machine-wide and between users. One lock file per GPU.

The lock is the lease, and it belongs to an open file description: a run's processes carry it on when their supervisor
is killed. What the file says (user, pid, since, run, home) is for people. Nothing here waits, and what isn't as it
should be is refused with the reason: a GPU of which it isn't sure that nobody has it is not given out. Where the files
lie, and why they can be trusted, is `leasefolder`'s.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from localrun import settings
from localrun.engine.gpus import leasefolder

_MOST_READ = 1 << 14
_MOST_SHOWN = 256
_ATTEMPTS = 100  # lock files that are removed on release may go between opening and locking them, several times
_FLOCK = "hhqqi4x"  # struct flock on 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid


class Holder(NamedTuple):
    """Who says to hold a GPU; None is what isn't known. It is what they wrote, for people."""

    user: str | None = None
    pid: int | None = None
    since: datetime | None = None
    run: str | None = None
    uid: str | None = None
    home: str | None = None


class Lease:
    """The hold on one GPU, until `release` or until the last process that has the descriptor is gone.

    ``fd`` is closed on exec: a process of the run gets it by a ``POSIX_SPAWN_DUP2`` of ``fd`` onto itself, and nothing
    else that is started meanwhile does.
    """

    __slots__ = ("_place", "fd", "uuid")

    def __init__(self, uuid: str, fd: int, place: str) -> None:
        self.uuid = uuid
        self.fd = fd
        self._place = place

    @classmethod
    def try_acquire(cls, uuid: str, *, run: str, uid: str) -> Lease | None:
        """Take the lease of a GPU for a run (its name and uid) if it is free; None if somebody has it.

        Raises:
            SystemFailureError: it can't be known whether it is free; the message says why. Don't use that GPU.
        """
        for _ in range(_ATTEMPTS):
            place = leasefolder.folder().path
            fd = leasefolder.open_to_lock(place, uuid)
            try:
                if not _lock(fd) or _is_held_elsewhere(place, uuid):
                    os.close(fd)
                    return None
                # The lock counts if its file is still the one that others find, where others look.
                if leasefolder.folder().path == place and leasefolder.is_at(place, uuid, fd):
                    _write(fd, run, uid)
                    return cls(uuid, fd, place)
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
        raise leasefolder.refused(uuid, place, "it keeps changing")

    def release(self, *, remove: bool = False) -> None:
        """Give it back, also if processes that have a copy of the descriptor are left; ``remove`` its file, too.

        Whoever has just opened a file that is removed while it is locked sees that it isn't what others find.
        """
        try:
            os.ftruncate(self.fd, 0)
            if remove:
                leasefolder.remove(self._place, self.uuid, self.fd)
        except OSError:
            pass  # it says who had it last, which for a free lock doesn't matter
        fcntl.fcntl(self.fd, fcntl.F_OFD_SETLK, _flock(fcntl.F_UNLCK))
        os.close(self.fd)

    def disown(self) -> None:
        """Close this process's copy; the lease stays with those who have another one."""
        os.close(self.fd)


def acquire_all(uuids: Iterable[str], *, run: str, uid: str) -> list[Lease] | None:
    """Take the leases of all these GPUs; None, with none taken, if somebody has one of them.

    Raises:
        SystemFailureError: as by `Lease.try_acquire`, with none taken.
    """
    taken: list[Lease] = []
    try:
        for uuid in sorted(set(uuids)):  # in one order everywhere: of two who want the same ones, one gets them
            lease = Lease.try_acquire(uuid, run=run, uid=uid)
            if lease is None:
                return None
            taken.append(lease)
        leases, taken = taken, []
        return leases
    finally:
        for lease in taken:
            lease.release()


def holder(uuid: str) -> Holder | None:
    """Who has the lease of a GPU; None if nobody has. Makes nothing, and doesn't get in anybody's way.

    Raises:
        SystemFailureError: it can't be known; the message says why.
    """
    return next((found for place in leasefolder.places() if (found := _holder_in(place, uuid)) is not None), None)


def check(uuid: str) -> None:
    """Refuse a GPU whose lease this user could not take if it were free. Makes nothing but the folder.

    Raises:
        SystemFailureError: it is such a one; the message says why.
    """
    place = leasefolder.folder().path
    fd = leasefolder.open_to_read(place, uuid)
    if fd is None:
        return
    try:
        leasefolder.check_writable(place, uuid, fd)
    finally:
        os.close(fd)


def _is_held_elsewhere(place: str, uuid: str) -> bool:
    """True if somebody who found another folder, before this one could be used, has the lease there."""
    return any(_holder_in(other, uuid) is not None for other in leasefolder.places() if other != place)


def _holder_in(place: str, uuid: str) -> Holder | None:
    fd = leasefolder.open_to_read(place, uuid)
    if fd is None:
        return None
    try:
        kind = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _flock(fcntl.F_WRLCK)))[0]
        return None if kind == fcntl.F_UNLCK else _read(fd)
    finally:
        os.close(fd)


def _lock(fd: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _flock(fcntl.F_WRLCK))
    except BlockingIOError:
        return False
    return True


def _flock(kind: int) -> bytes:
    return struct.pack(_FLOCK, kind, os.SEEK_SET, 0, 1, 0)


# -- what the file says -----------------------------------------------------------------------------------------------


def _write(fd: int, run: str, uid: str) -> None:
    said = {
        "user": _user(), "pid": os.getpid(), "since": datetime.now(UTC).isoformat(), "run": run, "uid": uid,
        "home": settings.home(),
    }  # fmt: skip
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps(said).encode(), 0)
    except OSError:
        pass  # no space: the lock is the lease


def _user() -> str:
    import pwd  # the name may come over the network: only those who take a lease wait for it

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _read(fd: int) -> Holder:
    try:
        said: Any = json.loads(os.pread(fd, _MOST_READ, 0))
        since = datetime.fromisoformat(said["since"])
        pid = int(said["pid"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return Holder()  # it is being written, or is no work of ours
    words = {
        key: text[:_MOST_SHOWN] for key in ("user", "run", "uid", "home") if isinstance(text := said.get(key), str)
    }
    return Holder(pid=pid, since=since if since.tzinfo else since.replace(tzinfo=UTC), **words)
