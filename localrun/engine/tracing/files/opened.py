"""What a program does with files, written down as it happens, where another process can read it meanwhile.

That is a file without a name, which is mapped into memory: to write something down takes no call of the system, and
what is written isn't lost with the program. A record is ``what NUL path NUL other path NUL NUL ;``. Nothing in it has a
NUL, so whoever reads it while it is written sees that it isn't all there yet: what is missing reads as NULs.
"""

from __future__ import annotations

import errno
import mmap
import os
import time

from localrun import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from localrun.model.folder import RunFolder

    # What was done, and to which paths: the flags of a file that was opened, as digits; or one of the words below.
    Event: TypeAlias = tuple[str, str, str]

MOVED, REMOVED, WENT = "moved", "removed", "went"
RECORD = b"%d\0%b\0%b\0\0;"  # of a file that was opened
_END = "\0\0;"
_LONGEST_NULS = 4  # more than a record has in a row

_FIRST, _CHUNK = 1 << 16, 1 << 20  # bytes that are reserved, at first and then
_LONGEST = 1 << 14  # bytes of a record; a path that is longer names no file
_PIECE = 1 << 18
_WRITTEN_S = 0.1  # a record is written in less, also by who has to wait for a processor
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# Best in memory: what writes into a file on a disk may have to wait for that.
_MEMORY = "/dev/shm"  # noqa: S108 - under a new name, and without one a moment later


class Opened:
    """The program's end of it. OSError if there can be none now; later there may be no room any more."""

    def __init__(self, folder: RunFolder) -> None:
        try:
            self._begin(_MEMORY)
        except OSError:  # there is none, or it is full
            self._begin(folder.path)

    def _begin(self, place: str) -> None:
        path = f"{place}/.opened.{os.urandom(6).hex()}"
        self.fd = files.moved_up(os.open(path, _NEW, 0o600))
        try:
            os.unlink(path)
            self._identity = _identity(self.fd)
            _reserve(self.fd, _FIRST)
            self._map = _mapped(self.fd, _FIRST)
        except BaseException:
            os.close(self.fd)
            raise
        self.write = self._map.write  # one call, whatever thread it is in; ValueError if there is no room for that

    def put(self, what: Any, path: Any, other: Any = "") -> None:
        """Write down any event. OSError if there is no room for it."""
        try:
            record = f"{what}\0{_text(path)}\0{_text(other)}{_END}".encode("utf-8", "surrogateescape")
        except Exception:  # noqa: BLE001 - it names no file; it may be the program's own code that says so
            return
        if len(record) <= _LONGEST:
            while not self._has_written(record) and not self._map.closed:
                self._grow()  # other threads may fill that at once

    def _has_written(self, record: bytes) -> bool:
        try:
            self.write(record)
            return True
        except ValueError:
            return False

    def _grow(self) -> None:
        if self._map.closed:  # by another thread
            return
        if _identity(self.fd) != self._identity:  # the program has closed what isn't its own, and opened another
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        size = len(self._map) + _CHUNK
        _reserve(self.fd, size)
        if not self._map.closed and len(self._map) < size:  # nor has another thread done more
            self._map.resize(size)

    @property
    def size(self) -> int:
        """Bytes that were written."""
        return self._map.tell()

    def close(self) -> None:
        """Write no more."""
        if not self._map.closed:
            self._map.close()
            os.close(self.fd)


class Reader:
    """The other end: ``fd`` is the same open file."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._at = 0  # what is before has been read
        self._odd = -1, 0.0  # where something was that is no record, or not yet, and since when
        self._given_back = 0

    def skip_given_back(self) -> bool:
        """Begin behind what another reader gave back; True if that is something."""
        try:
            self._at = os.lseek(self._fd, 0, os.SEEK_DATA)
        except OSError:
            pass  # there is nothing at all
        return self._at > 0

    def read(self, *, is_all: bool) -> list[Event]:
        """The next events; none if there are none now, or, if ``is_all`` that there will be is there, any more."""
        data = os.pread(self._fd, _PIECE, self._at)
        *records, _ = data.decode("utf-8", "surrogateescape").split(_END)
        found = []
        if not records and data[-_LONGEST_NULS:].strip(b"\0") and len(data) == _PIECE:
            self._at += _PIECE  # of something as long as no record is
        for record in records:
            fields = record.split("\0")
            if len(fields) == 3:
                found.append((fields[0], fields[1], fields[2]))
            elif not is_all and not self._was_odd():
                break
            self._at += len(f"{record}{_END}".encode("utf-8", "surrogateescape"))
        return found

    def _was_odd(self) -> bool:
        """True if what is next has been no record for some time: else it may not be all there yet."""
        at, since = self._odd
        if at != self._at:
            self._odd = self._at, time.monotonic()
        return at == self._at and time.monotonic() - since > _WRITTEN_S

    def give_back(self) -> None:
        """Free the room of what has been read, now and then: there it reads as NULs."""
        size = (self._at - self._given_back) // _CHUNK * _CHUNK
        if size:
            try:
                with mmap.mmap(self._fd, size, offset=self._given_back) as read:
                    read.madvise(mmap.MADV_REMOVE)
            except OSError:
                pass  # not on every file system
            self._given_back += size


def _text(path: Any) -> str:
    """A path as the system would take it; ValueError if it names no file."""
    if isinstance(path, int):
        raise ValueError("it is open already")
    text = os.fsdecode(path)
    if "\0" in text:
        raise ValueError("it has a null byte in it")
    return str.__str__(text)


def _identity(fd: int) -> tuple[int, int]:
    there = os.fstat(fd)
    return there.st_dev, there.st_ino


def _reserve(fd: int, size: int) -> None:
    """Have so much room: where there is none, whoever writes into a mapped file is killed."""
    import resource

    most, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if most != resource.RLIM_INFINITY and size > most:  # else a signal would say so
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    os.posix_fallocate(fd, 0, size)


def _mapped(fd: int, size: int) -> mmap.mmap:
    """The file in memory. What is mapped has a descriptor of its own: none that programs and scripts use by number."""
    spare = []
    try:
        while (low := os.dup(fd)) < files.FIRST_OF_OURS:
            spare.append(low)
        os.close(low)
        return mmap.mmap(fd, size)
    except ValueError as error:
        raise OSError(errno.ENODEV, str(error)) from None
    finally:
        for each in spare:
            os.close(each)
