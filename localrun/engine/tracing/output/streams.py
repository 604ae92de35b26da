"""One of this process's standard streams, led into a log and back again: the descriptor, and C's buffer.

Python's object for it is `pystream`'s.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import sys
import threading
import time

from localrun.engine.tracing.output import pystream
from localrun.engine.tracing.output.passing import pass_on, shown_of
from localrun.files import FIRST_OF_OURS, append_line, moved_up, write_all

_libc = ctypes.CDLL(None, use_errno=True)
_FULLY_BUFFERED, _LINE_BUFFERED = 0, 1


def flush() -> None:
    """Write out what Python's and C's buffers hold for the standard streams."""
    pystream.flush(sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    _libc.fflush(None)


class Turns:
    """Notes how far the logs of two streams had grown, in which order, before Python goes on in one of them.

    So they can be merged. What C code and subprocesses write to both meanwhile is dated by whoever looks at the growth.
    """

    def __init__(self, times: str, out: Stream, err: Stream) -> None:
        self._times = times
        self._others = {out: err, err: out}
        self._last = out  # to which Python wrote
        self._noted = {out: 0, err: 0}

    def take(self, stream: Stream) -> None:
        """Python is about to write to this stream."""
        other = self._others[stream]
        if other.size() != self._noted[other]:
            self._note(self._last)  # what others wrote since to the other one came later
            self._note(self._others[self._last])
        self._last = stream

    def _note(self, stream: Stream) -> None:
        size = stream.size()
        if size != self._noted[stream]:
            self._noted[stream] = size
            append_line(self._times, f"{time.time():.3f} {stream.letter} {size}\n")


class Stream:
    """Standard output or error of this process, while it leads into a log."""

    def __init__(self, fd: int, name: str) -> None:
        self.fd = fd
        self.letter = name[3]
        self.lock = threading.RLock()
        self.original = _duplicate(fd)
        self._log = self.unshown = -1
        self._turns: Turns | None = None
        self._name, self._c_mode = name, _set_line_buffered(name)
        self.python = pystream.make(getattr(sys, name), fd, self)

    def lead_into(self, path: str, turns: Turns) -> None:
        """Write to the end of that file from now on; what it has already was shown.

        ``unshown`` is a descriptor that reads the file from where it was not shown yet.
        """
        writing = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        with self.lock:
            # One for everybody; one of our own, whose position is the end of what was last written through it.
            log, own, unshown = _open(path, writing, writing, os.O_RDONLY)
            os.lseek(unshown, 0, os.SEEK_END)
            os.dup2(log, self.fd)
            os.close(log)
            self._close()
            self._turns, self._log, self.unshown = turns, own, unshown

    def show(self, up_to: int | None = None) -> None:
        """Write what was not shown, up to that position, to where it would have gone."""
        with self.lock:
            if self.unshown >= 0:
                pass_on(self.unshown, self.original, up_to)

    def restore(self) -> None:
        """Make the stream what it was. What is not shown yet can still be."""
        self.python.give_back()
        if self.original is not None:
            os.dup2(self.original, self.fd)
        _set_buffered(self._name, self._c_mode)

    def close(self) -> None:
        """Give everything back; after `restore`. A stream that was closed is so from now on: nothing took its place."""
        with self.lock:
            if self.original is not None:
                os.close(self.original)
            elif self._log >= 0:  # else it was never led anywhere
                os.close(self.fd)
            self._close()

    def _close(self) -> None:
        for fd in (self._log, self.unshown):
            if fd >= 0:
                os.close(fd)
        self._log = self.unshown = -1

    def leave_to_parent(self) -> None:
        """A forked child keeps nothing open that whoever reads this process's output waits for."""
        if self.original is not None:
            os.close(self.original)

    # -- for Python's object ------------------------------------------------------------------------------------------

    def take_turn(self) -> None:
        """Python is about to write to this stream, and not to the other."""
        if self._turns is not None and self._log >= 0:
            self._turns.take(self)

    def add_shown(self, data: bytes) -> None:
        """Write to the log what is shown by other means; first what the log holds before it is shown."""
        with self.lock:
            if data and self._log >= 0:
                write_all(self._log, data)
                end = os.lseek(self._log, 0, os.SEEK_CUR)
                self.show(end - len(data))
                os.lseek(self.unshown, end, os.SEEK_SET)

    def size(self) -> int:
        """How long the log is."""
        return os.fstat(self._log).st_size if self._log >= 0 else 0

    def shown(self) -> int:
        """How much of the log is shown."""
        return shown_of(self.unshown) if self.unshown >= 0 else 0

    def since(self, position: int | None = None) -> tuple[int, bytes]:
        """How long the log is, and what it has from a position on."""
        length = self.size()
        if position is None or self.unshown < 0:
            return length, b""
        return length, os.pread(self.unshown, length - position, position)

    def add_forked(self, data: bytes) -> None:
        """Write to the log in a child process, whose parent shows it."""
        write_all(self.fd, data)


def _open(path: str, *flags: int) -> list[int]:
    """Descriptors of one file, all of them or none."""
    opened: list[int] = []
    try:
        opened.extend(moved_up(os.open(path, each | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)) for each in flags)
    except OSError:
        for fd in opened:
            os.close(fd)
        raise
    return opened


def _duplicate(fd: int) -> int | None:
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST_OF_OURS)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        return None  # it is closed


# C's own buffers: by lines, as on a terminal, so that they stay in order with the rest.


def _set_line_buffered(name: str) -> int | None:
    """Returns the mode there was, if the C library tells."""
    try:
        file = ctypes.c_void_p.in_dll(_libc, name)
        before = _LINE_BUFFERED if _libc.__getattr__("__flbf")(file) else _FULLY_BUFFERED
    except (AttributeError, ValueError):
        return None
    if name == "stderr":
        return None  # never buffered
    _libc.setvbuf(file, None, _LINE_BUFFERED, 0)
    return before


def _set_buffered(name: str, mode: int | None) -> None:
    if mode is not None:
        _libc.setvbuf(ctypes.c_void_p.in_dll(_libc, name), None, mode, 0)
