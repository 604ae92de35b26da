"""The digest of a file, ``sha256:…``, and those that are known already.

Large files are read once: what is known of one is kept in a table of fixed size in the home folder, found by the file's
device and inode and good as long as its size and time of modification are the same. The table is derived and its own
judge: an entry that another process was writing, or a damaged one, has a wrong check and counts as none.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import time

from localrun import settings

SMALL = 64 << 20  # a file up to this size may be read for its digest alone

WORTH_KEEPING = 1 << 20  # what is smaller is as quickly read again
_SLOTS = 8192
_ENTRY = struct.Struct("<QQQq32s")  # device, inode, size, time of modification, digest
_CHECK = 8
_SLOT = _ENTRY.size + _CHECK
# A file's time of modification is the kernel's last tick, 10 ms ago at most: a file modified twice within one shows the
# same time. One that has been left alone for longer shows another when it changes.
_SETTLED_NS = 20_000_000


def of_file(path: str, *, large: bool = False) -> tuple[int, str | None]:
    """The size and digest of a regular file; unless ``large`` is set, a large one's digest is None where not known.

    Raises:
        OSError: it can't be read, or is no regular file.
    """
    there, digest = look(path, large=large)
    return there.st_size, digest


def look(path: str, *, large: bool = False) -> tuple[os.stat_result, str | None]:
    """The same, with all that is known of the file whose digest it is."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        there = os.fstat(fd)
        if not stat.S_ISREG(there.st_mode):
            raise OSError(f"{path} is no regular file")
        return there, of_open(fd, there, large=large)
    finally:
        os.close(fd)


def of_open(fd: int, there: os.stat_result, *, large: bool = False) -> str | None:
    """The same of a file that is open for reading, and was so when looked at; its position is left anywhere."""
    if there.st_size < WORTH_KEEPING:
        return f"sha256:{hashlib.sha256(_content(fd, there.st_size)).hexdigest()}"
    digest = known(there)
    if digest is None and (large or there.st_size <= SMALL):
        with open(fd, "rb", buffering=0, closefd=False) as file:
            os.lseek(fd, 0, os.SEEK_SET)
            digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        keep(fd, there, digest)
    return digest


def _content(fd: int, size: int) -> bytes:
    data = os.pread(fd, size + 1, 0)
    while len(data) > size:  # it has grown
        size = 2 * len(data)
        data = os.pread(fd, size + 1, 0)
    return data


def is_same(one: os.stat_result, other: os.stat_result) -> bool:
    """True if a file has not changed between two looks at it, as far as that can be told."""
    return _identity(one) == _identity(other)


def known(there: os.stat_result) -> str | None:
    """The digest of a file that looks so, if it is kept."""
    if there.st_size < WORTH_KEEPING:
        return None
    try:
        fd = os.open(_table(), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            slot = os.pread(fd, _SLOT, _place(there))
        finally:
            os.close(fd)
    except OSError:
        return None
    entry = slot[: _ENTRY.size]
    if len(slot) < _SLOT or slot[_ENTRY.size :] != _check(entry):
        return None
    *identity, digest = _ENTRY.unpack(entry)
    return f"sha256:{digest.hex()}" if tuple(identity) == _identity(there) else None


def keep(fd: int, there: os.stat_result, digest: str) -> None:
    """Keep the digest of an open file that had it when it looked so, unless it has changed, or could unseen."""
    if there.st_size < WORTH_KEEPING:
        return
    wait = there.st_mtime_ns + _SETTLED_NS - time.time_ns()
    if wait > 0:
        if there.st_size <= SMALL or wait > _SETTLED_NS:  # read again instead; another machine's clock
            return
        time.sleep(wait / 1e9)
    if not is_same(there, os.fstat(fd)):
        return
    entry = _ENTRY.pack(*_identity(there), bytes.fromhex(digest.removeprefix("sha256:")))
    try:
        table = os.open(_table(), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        try:
            os.pwrite(table, entry + _check(entry), _place(there))
        finally:
            os.close(table)
    except OSError:
        pass  # no home folder here, or a full disk: the file is read again the next time


def _table() -> str:
    return f"{settings.home()}/digests"


def _identity(there: os.stat_result) -> tuple[int, int, int, int]:
    return there.st_dev, there.st_ino, there.st_size, there.st_mtime_ns


def _place(there: os.stat_result) -> int:
    number = int.from_bytes(hashlib.sha256(struct.pack("<QQ", there.st_dev, there.st_ino)).digest()[:8], "little")
    return number % _SLOTS * _SLOT


def _check(entry: bytes) -> bytes:
    return hashlib.sha256(entry).digest()[:_CHECK]
