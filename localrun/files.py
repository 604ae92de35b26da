"""Files as the protocol between processes: created whole, replaced atomically, locked by byte.

Two kinds of lock, both gone the moment their holder is killed:

- ``ByteLock`` belongs to an *open file description*: threads exclude each other, and a forked child carries it on.
- ``ProcessLock`` belongs to a *process*: a forked child does not have it, and anyone can ask which pid holds it.

Both are asked about without being taken, so that a reader never gets in an owner's way. They are the kernel's own
record locks rather than a lock library's because of exactly these three properties (and the start-up time).
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from types import TracebackType

from localrun.errors import RunConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

Path = str | os.PathLike[str]

# Descriptors below are standard streams, even where those are closed, and what programs and scripts use by number.
FIRST_OF_OURS = 10

# struct flock on 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid.
_FLOCK = "hhqqi4x"


def text_of(path: str | os.PathLike[str], field: str, what: str = "a path") -> str:
    """A path as text, as it is. RunConfigError if it is no path, is empty, or no file can be called so."""
    try:
        text = os.fsdecode(path)
    except TypeError:
        raise RunConfigError(f"{field}: must be {what}, not of type {type(path).__name__}") from None
    if not text or "\0" in text:
        raise RunConfigError(f"{field}: {'has a null byte in it' if text else 'is empty'}")
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise RunConfigError(f"{field}: {text!r} can't be the name of a file") from None
    return text


def absolute(path: str | os.PathLike[str], field: str) -> str:
    """A path from the root on, ``~`` expanded.

    RunConfigError if it is none (see `text_of`), or begins in a folder that was removed.
    """
    text = text_of(path, field)
    try:
        return os.path.abspath(os.path.expanduser(text))
    except FileNotFoundError:
        raise RunConfigError(f"{field}: the folder that this process is in was removed: go to another one") from None


def make_folders(path: str) -> None:
    """Make a folder and those that it is in, all for this user alone; none that is there."""
    if not os.path.isdir(path):
        make_folders(os.path.dirname(path))
        os.mkdir(path, 0o700)


def create(path: Path, data: bytes, *, mode: int = 0o600) -> int:
    """Make a new file with this content; returns its open descriptor, which is the caller's to sync and close.

    FileExistsError if anything, a dangling link too, has that name.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        write_all(fd, data)
    except OSError:
        os.close(fd)
        raise
    return fd


def replace(path: Path, data: bytes, *, mode: int = 0o600, sync: bool = False) -> None:
    """Put this content at ``path`` in one step: a reader sees the old file or the new one, a crash leaves one of them.

    The caller holds the lock under which ``path`` changes: the temporary file has one fixed name, so that what a
    killed writer left is used up by the next one.
    """
    folder, name = os.path.split(os.fspath(path))
    temporary = os.path.join(folder, f".{name}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        write_all(fd, data)
        if sync:
            os.fsync(fd)
    except OSError:
        os.close(fd)
        os.unlink(temporary)
        raise
    os.close(fd)
    os.rename(temporary, path)


def append_line(path: Path, line: str) -> None:
    """Add a line to a file, which is made if it isn't there. One that can't be written, on a full disk say, is lost."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, line.encode())
        finally:
            os.close(fd)
    except OSError:
        pass


def read(path: Path) -> bytes:
    """The whole content of a file, through one descriptor: a replacement meanwhile doesn't mix two versions."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pieces = []
        while piece := os.read(fd, 1 << 16):
            pieces.append(piece)
            if len(piece) < 1 << 16:
                break  # regular files and /proc give all they have
        return b"".join(pieces)
    finally:
        os.close(fd)


def read_json(path: Path) -> Any:
    """The JSON value in a file; ValueError if it is not JSON."""
    import json  # a worker reads none, and its start counts

    return json.loads(read(path))


def remove(path: Path) -> bool:
    """Remove a file; False if it was not there."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


def write_all(fd: int, data: bytes) -> None:
    """Write all of this to a descriptor; OSError, such as for a full disk."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def moved_up(fd: int) -> int:
    """The same open file under a number that programs and scripts don't use by number; ``fd`` itself is closed."""
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST_OF_OURS)
    finally:
        os.close(fd)


class ByteLock:
    """The exclusive lock on one byte of a file, held until ``release`` or until all copies are closed."""

    __slots__ = ("byte", "fd")

    def __init__(self, fd: int, byte: int) -> None:
        self.fd = fd
        self.byte = byte

    @classmethod
    def create(cls, path: Path, data: bytes) -> ByteLock:
        """Make a new file with this content and hold the lock on its first byte."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _flock(fcntl.F_WRLCK, 0))
            write_all(fd, data)
        except BaseException:
            os.close(fd)
            os.unlink(path)
            raise
        return cls(fd, 0)

    @classmethod
    def acquire(cls, path: Path, byte: int = 0) -> ByteLock:
        """Wait for the lock and take it; the file is made if it isn't there."""
        fd = _open_lock_file(path)
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLKW, _flock(fcntl.F_WRLCK, byte))
        except BaseException:
            os.close(fd)
            raise
        return cls(fd, byte)

    @classmethod
    def of_existing(cls, path: Path) -> ByteLock:
        """Wait for the lock on the first byte of a file that is there, and take it; FileNotFoundError if it isn't."""
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            return cls.of_open(fd)
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def try_acquire(cls, path: Path, byte: int = 0) -> ByteLock | None:
        """Take the lock if it is free; None if somebody holds it.

        A file that is there and can't be written is locked for reading, which keeps others from taking the lock too.
        """
        kind = fcntl.F_WRLCK
        try:
            fd = _open_lock_file(path)
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES):
                raise
            fd, kind = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), fcntl.F_RDLCK
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _flock(kind, byte))
        except BlockingIOError:
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        return cls(fd, byte)

    @classmethod
    def of_open(cls, fd: int) -> ByteLock:
        """Wait for the lock on the first byte of a file that is open for writing, and take it."""
        fcntl.fcntl(fd, fcntl.F_OFD_SETLKW, _flock(fcntl.F_WRLCK, 0))
        return cls(fd, 0)

    def unlock(self) -> None:
        """Give the lock back, also when another process has a copy of the descriptor, which stays open."""
        fcntl.fcntl(self.fd, fcntl.F_OFD_SETLK, _flock(fcntl.F_UNLCK, self.byte))

    def release(self) -> None:
        """Give the lock back, also when a forked process has a copy of the descriptor."""
        self.unlock()
        os.close(self.fd)

    def disown(self) -> None:
        """Close this process's copy; the lock stays with the forked child that has the other one."""
        os.close(self.fd)

    def __enter__(self) -> ByteLock:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.release()


def is_locked(path: Path, byte: int = 0) -> bool:
    """True if somebody holds the ``ByteLock``; asks without taking it. A missing file is not locked."""
    return _holder(path, fcntl.F_OFD_GETLK, byte) is not None


class ProcessLock:
    """The exclusive lock of one process on a file. Take it once a process: closing any other descriptor frees it."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def try_acquire(cls, path: Path) -> ProcessLock | None:
        """Take the lock if it is free; None if another process holds it."""
        fd = _open_lock_file(path)
        try:
            fcntl.fcntl(fd, fcntl.F_SETLK, _flock(fcntl.F_WRLCK, 0))
        except OSError as error:
            os.close(fd)
            if isinstance(error, BlockingIOError | PermissionError):  # EAGAIN or EACCES, as POSIX leaves it open
                return None
            raise
        return cls(fd)

    def is_at(self, path: Path) -> bool:
        """True if the file that is locked is still the one at ``path``: nobody has made it anew."""
        try:
            there, ours = os.stat(path), os.fstat(self.fd)
        except FileNotFoundError:
            return False
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)

    def release(self) -> None:
        """Give the lock back."""
        os.close(self.fd)


def process_lock_holder(path: Path) -> int | None:
    """The pid that holds a ``ProcessLock``, or None. Never call it in the process that holds it."""
    return _holder(path, fcntl.F_GETLK, 0)


def _holder(path: Path, command: int, byte: int) -> int | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        answer = fcntl.fcntl(fd, command, _flock(fcntl.F_WRLCK, byte))
    finally:
        os.close(fd)
    kind, _, _, _, pid = struct.unpack(_FLOCK, answer)
    return None if kind == fcntl.F_UNLCK else pid


def _open_lock_file(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _flock(kind: int, byte: int) -> bytes:
    return struct.pack(_FLOCK, kind, os.SEEK_SET, byte, 1, 0)
