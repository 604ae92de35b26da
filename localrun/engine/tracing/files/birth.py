"""When a file came into being, which `os.stat` doesn't say on Linux."""

from __future__ import annotations

import ctypes
import os
import struct

_AT_FDCWD, _AT_SYMLINK_NOFOLLOW, _STATX_BTIME = -100, 0x100, 0x800
_SIZE = 256  # of a struct statx
_MASK, _BTIME = struct.Struct("=I"), struct.Struct("=qI")
_BTIME_AT = 80


def birth_ns(path: str) -> int | None:
    """The time at which a file was made, in nanoseconds; None where the kernel or the file system doesn't know."""
    try:
        statx = ctypes.CDLL(None).statx
    except AttributeError:
        return None  # an old C library
    found = ctypes.create_string_buffer(_SIZE)
    if statx(_AT_FDCWD, os.fsencode(path), _AT_SYMLINK_NOFOLLOW, _STATX_BTIME, found):
        return None
    if not _MASK.unpack_from(found)[0] & _STATX_BTIME:
        return None
    seconds, rest = _BTIME.unpack_from(found, _BTIME_AT)
    return int(seconds) * 1_000_000_000 + int(rest)
