"""A file as it is read or written by the code of a run: what passes is hashed on its way.

It is the lowest of the layers that a Python file is made of, and sees large pieces: lines, text and small reads are the
business of the layers above it, which are Python's own.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from typing import Any, BinaryIO

BUFFER = 1 << 17


class Watched(io.RawIOBase):
    """A file that hashes what passes through it; ``at_close`` is called before ``inner`` is closed.

    What `at_close` returns is called when it is closed.
    """

    def __init__(
        self, inner: Any, close: Callable[[], None], at_close: Callable[[Watched], Callable[[], None]]
    ) -> None:
        self._inner = inner
        self._close = close
        self._at_close = at_close
        self._sum = hashlib.sha256()
        self._at: int = inner.tell()
        self._hashed: int | None = 0  # the hash is that of so many bytes from the start; None: of none that are there
        self.is_written = False

    def digest(self, size: int) -> str | None:
        """The digest of the whole file, which has this size, if all of it has passed in its order."""
        return f"sha256:{self._sum.hexdigest()}" if self._hashed == size else None

    @property
    def end(self) -> int | None:
        """How much of it, from its start, has passed in its order."""
        return self._hashed

    # -- what passes ------------------------------------------------------------------------------------------------

    def readinto(self, buffer: Any) -> int | None:
        """Read into a buffer."""
        count: int | None = self._inner.readinto(buffer)
        if count:
            self._pass(memoryview(buffer).cast("B")[:count])
        return count

    def readall(self) -> bytes:
        """Read the rest."""
        data: bytes = self._inner.read()
        if data:
            self._pass(memoryview(data))
        return data

    def write(self, data: Any) -> int:
        """Write what can be written of this at once."""
        count = int(self._inner.write(data) or 0)
        self.is_written = True
        if count:
            if self._hashed is not None and self._at < self._hashed:
                self._hashed = None  # written over
            self._pass(memoryview(data).cast("B")[:count])
        return count

    def _pass(self, data: memoryview) -> None:
        start, self._at = self._at, self._at + len(data)
        if self._hashed is not None and start <= self._hashed < self._at:
            self._sum.update(data[self._hashed - start :])
            self._hashed = self._at

    # -- the rest of a file -----------------------------------------------------------------------------------------

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place in the file."""
        self._at = int(self._inner.seek(offset, whence))
        return self._at

    def tell(self) -> int:
        """The place in the file."""
        return int(self._inner.tell())

    def truncate(self, size: int | None = None) -> int:
        """Cut the file off."""
        cut = int(self._inner.truncate(size))
        self.is_written = True
        if self._hashed is not None and cut < self._hashed:
            self._hashed = None
        return cut

    def close(self) -> None:
        """Close the file, and have it noted."""
        if self.closed:
            return
        noting = self._at_close(self)
        try:
            self._close()
        finally:
            super().close()
        noting()

    def readable(self) -> bool:
        """True if it can be read."""
        return bool(self._inner.readable())

    def writable(self) -> bool:
        """True if it can be written."""
        return bool(self._inner.writable())

    def seekable(self) -> bool:
        """True if it has places to go to."""
        return bool(self._inner.seekable())

    def fileno(self) -> int:
        """Its descriptor; OSError if it has none."""
        return int(self._inner.fileno())

    def isatty(self) -> bool:
        """False: terminals are not watched."""
        return False

    name = property(lambda self: self._inner.name, doc="Its name, as it was opened.")
    mode = property(lambda self: self._inner.mode, doc="The mode of the file below.")


class Bytes(io.BufferedIOBase):
    """A buffered binary file, method by method Python's own.

    It is none of Python's by its type, because numpy hands the descriptor of those to C code, and nothing would pass.
    """

    def __init__(self, buffered: BinaryIO) -> None:
        self._buffered = buffered
        for name in _METHODS:
            if hasattr(buffered, name):
                setattr(self, name, getattr(buffered, name))

    def __iter__(self) -> Any:
        return iter(self._buffered)

    def __next__(self) -> bytes:
        return next(self._buffered)

    raw = property(lambda self: self._buffered.raw, doc="The layer below.")
    name = property(lambda self: self._buffered.name, doc="Its name, as it was opened.")
    mode = property(lambda self: self._buffered.mode, doc="Its mode.")
    closed = property(lambda self: self._buffered.closed, doc="True if it is closed.")


_METHODS = (
    "close", "detach", "fileno", "flush", "isatty", "peek", "read", "read1", "readable", "readinto", "readinto1",
    "readline", "readlines", "seek", "seekable", "tell", "truncate", "writable", "write", "writelines",
)  # fmt: skip
