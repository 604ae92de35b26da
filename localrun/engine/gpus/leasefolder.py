"""Where the lock files of GPU leases lie, and how one is opened although anybody may have put something in its place.

The folder is shared by all users, any of whom may have made it. Nothing found in it is trusted: no link is followed,
no pipe waited for, and nothing but a plain file of one name is opened. (Whoever owns the folder could still remove
what others lock. That is somebody who could as well use a GPU without any lease.)

All users must find the same folder, so the choice depends on the folders alone, and not on who asks.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from localrun import settings
from localrun.errors import SystemFailureError

FIRST = "/run/lock/localrun"
# Not the TMPDIR of whoever asks: two users must find the same one.
SECOND = "/tmp/localrun-leases"  # noqa: S108 - what is found there is looked at as written above

_FOLDER_MODE = 0o1777
# The sticky bit of a file says to those who tidy up temporary folders that it is still needed.
_FILE_MODE = 0o1666
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Folder(NamedTuple):
    """The folder in which leases are taken, and why it isn't the first choice, if it isn't."""

    path: str
    notice: str | None = None


def folder() -> Folder:
    """The folder in which leases are taken, made if it isn't there.

    ``LOCALRUN_LEASE_DIR``, and nothing else, if that is set; or the first choice, or the second, saying so.

    Raises:
        SystemFailureError: neither can be used.
    """
    chosen = settings.lease_dir()
    if chosen is not None:
        problem = _prepare(chosen)
        if problem is not None:
            raise SystemFailureError(f"LOCALRUN_LEASE_DIR: GPUs and ports can't be leased: {problem}")
        return Folder(chosen)
    first = _prepare(FIRST, shared=True)
    if first is None:
        return Folder(FIRST)
    second = _prepare(SECOND, shared=True)
    if second is None:
        return Folder(SECOND, f"GPU leases are in {SECOND}: {first}")
    raise SystemFailureError(f"GPUs and ports can't be leased: {first}; {second}. Set LOCALRUN_LEASE_DIR for all users")


def places() -> tuple[str, ...]:
    """All folders in which somebody on this machine may have leases."""
    chosen = settings.lease_dir()
    return (FIRST, SECOND) if chosen is None else (chosen,)


def _prepare(path: str, *, shared: bool = False) -> str | None:
    """Make a folder if it isn't there; what keeps it from being used, or None."""
    try:
        try:
            os.mkdir(path, _FOLDER_MODE)
            made = True
        except FileExistsError:
            made = False
        with _opened(path) as fd:
            state = os.fstat(fd)
            # The umask took its part; that of one who was killed here, too.
            mendable = state.st_uid == os.geteuid() or os.geteuid() == 0
            if made or (shared and mendable and stat.S_IMODE(state.st_mode) != _FOLDER_MODE):
                os.fchmod(fd, _FOLDER_MODE)
            return _unfit(path, fd, shared)
    except OSError as error:
        return f"{path}: {_reason(error)}"


def _unfit(path: str, fd: int, shared: bool) -> str | None:
    mode = stat.S_IMODE(os.fstat(fd).st_mode)
    if mode & 0o022 and not mode & stat.S_ISVTX:
        return f"{path} is writable for others without the sticky bit: chmod 1777 {path}"
    if (shared and mode != _FOLDER_MODE) or not os.access(f"/proc/self/fd/{fd}", os.W_OK | os.X_OK):
        return f"{path} is not writable for all: chmod 1777 {path}"
    return None


@contextmanager
def _opened(path: str) -> Iterator[int]:
    fd = os.open(path, _OPEN_FOLDER)
    try:
        yield fd
    finally:
        os.close(fd)


# -- a lock file ------------------------------------------------------------------------------------------------------


def open_to_lock(path: str, uuid: str) -> int:
    """The descriptor of a GPU's lock file in that folder, to be written; the file is made if it isn't there.

    Raises:
        SystemFailureError: what has its name is not what it should be, or not ours to write.
    """
    name = _file_name(uuid)
    try:
        with _opened(path) as place:
            fd = _open_or_make(place, name)
    except OSError as error:
        raise refused(uuid, f"{path}/{name}", _reason(error)) from error
    return _checked(fd, uuid, f"{path}/{name}")


def open_to_read(path: str, uuid: str) -> int | None:
    """The descriptor of a GPU's lock file in that folder; None if there is none, or the folder isn't one to be used.

    Raises:
        SystemFailureError: what has its name is not what it should be.
    """
    name = _file_name(uuid)
    try:
        with _opened(path) as place:
            try:
                fd = os.open(name, os.O_RDONLY | _OPEN_FILE, dir_fd=place)
            except FileNotFoundError:
                return None
            except OSError as error:
                raise refused(uuid, f"{path}/{name}", _reason(error)) from error
    except OSError:
        return None  # `folder` says what is wrong with it
    return _checked(fd, uuid, f"{path}/{name}")


def check_writable(path: str, uuid: str, fd: int) -> None:
    """Refuse a lock file that is not ours to write, and so to lock, as `open_to_lock` would.

    Raises:
        SystemFailureError: it is not.
    """
    try:
        os.close(os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        why = f"{_reason(error)}: its owner or root must make it writable for all, or remove it"
        raise refused(uuid, f"{path}/{_file_name(uuid)}", why) from error


def remove(path: str, uuid: str, fd: int) -> None:
    """Remove an open lock file. Who does so holds its lock; OSError if it is another user's."""
    if is_at(path, uuid, fd):
        os.unlink(f"{path}/{_file_name(uuid)}")


def is_at(path: str, uuid: str, fd: int) -> bool:
    """True if an open lock file is the one that others find in that folder."""
    try:
        there, ours = os.lstat(f"{path}/{_file_name(uuid)}"), os.fstat(fd)
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)


def refused(uuid: str, path: str, why: str) -> SystemFailureError:
    """The error that says why the lock file of a GPU, or of a port, can't be used."""
    what = uuid.replace("-", " ") if uuid.startswith("port-") else f"GPU {uuid}"
    return SystemFailureError(f"{what} can't be leased: {path}: {why}")


def _open_or_make(place: int, name: str) -> int:
    # Not by one O_CREAT: in a sticky folder the kernel may refuse that for a file that is there and another user's.
    while True:
        try:
            fd = os.open(name, os.O_RDWR | _OPEN_FILE, dir_fd=place)
        except FileNotFoundError:
            try:
                fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | _OPEN_FILE, 0o666, dir_fd=place)
            except FileExistsError:
                continue  # somebody else made it this moment
        if _is_half_made(os.fstat(fd)):
            os.fchmod(fd, _FILE_MODE)
        return fd


def _is_half_made(state: os.stat_result) -> bool:
    """True for a new file of ours of which the umask took its part, or whose maker was killed just then."""
    plain = stat.S_ISREG(state.st_mode) and state.st_nlink == 1 and state.st_size == 0
    return plain and state.st_uid == os.geteuid() and stat.S_IMODE(state.st_mode) != _FILE_MODE


def _checked(fd: int, uuid: str, path: str) -> int:
    state = os.fstat(fd)
    if stat.S_ISREG(state.st_mode) and state.st_nlink <= 1:
        return fd  # without a name it was removed this moment: `is_at` says so to those who lock it
    os.close(fd)
    if not stat.S_ISREG(state.st_mode):
        raise refused(uuid, path, "it is no plain file")
    raise refused(uuid, path, "it has another name elsewhere")


def _file_name(uuid: str) -> str:
    name = uuid.replace("/", "_")  # drivers before 470 have MIG-GPU-…/1/0
    if not name or not all(c.isascii() and (c.isalnum() or c in "-_") for c in name):
        raise SystemFailureError(f"GPU {uuid!r} can't be leased: that is no uuid")
    return f"{name}.lock"


def _reason(error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "it is a link"
    if error.errno in (errno.ENXIO, errno.EISDIR, errno.ENODEV):
        return "it is no plain file"
    return error.strerror or str(error)
