"""One of this process's standard streams: its descriptor and Python's object for it, led into a log and back again.

Python's ``sys.stdout`` usually writes to descriptor 1, and all there is to do is to flush it after each write, so that
it stays in order with what C code and subprocesses write. In a notebook, under pytest or behind ``redirect_stdout`` it
is another object that writes elsewhere: then what it is given is written to the log first, and to that object after
everything that the log holds before it was shown.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import sys
import threading
import time

from localrun.files import append_line, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)
_FULLY_BUFFERED, _LINE_BUFFERED = 0, 1
_FIRST_OF_OURS = 10  # descriptors below are used by number in programs and scripts
_CHUNK = 1 << 16


def flush() -> None:
    """Write out what Python's and C's buffers hold for the standard streams."""
    for stream in {id(each): each for each in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)}.values():
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError, AttributeError):
            pass  # closed, or a full disk: whoever writes next is told
    _libc.fflush(None)


class Turns:
    """Notes how far one stream's log had grown before Python writes to the other: their order, when both are merged.

    What C code and subprocesses write is dated by whoever looks at the logs' growth.
    """

    def __init__(self, times: str) -> None:
        self._times = times
        self._last: Stream | None = None

    def take(self, stream: Stream) -> None:
        """Python is about to write to this stream."""
        if self._last is not None and self._last is not stream:
            size = os.fstat(self._last.fd).st_size
            append_line(self._times, f"{time.time():.3f} {self._last.letter} {size}\n")
        self._last = stream


class Stream:
    """Standard output or error of this process, while it leads into a log."""

    def __init__(self, fd: int, name: str) -> None:
        self.fd = fd
        self.letter = name[3]
        self._turns: Turns | None = None
        self._unfinished: dict[int, str] = {}  # by thread
        self._passes_on: bool | None = None
        self.lock = threading.RLock()
        self.original = _duplicate(fd)
        self._python = getattr(sys, name)
        self.is_plain = self._python is None or _fileno(self._python) == fd
        self._log = self._shown = -1
        self._pid = os.getpid()
        self._libc_name, self._libc_mode = name, _set_line_buffered(name)
        self._write_before = self._patch()

    def lead_into(self, path: str, turns: Turns) -> None:
        """Write to the end of that file from now on; what it has already was shown."""
        self._turns = turns
        flags = os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with self.lock:
            self._close()
            log = _moved_up(os.open(path, os.O_WRONLY | flags, 0o600))
            os.dup2(log, self.fd)
            os.close(log)
            # One of our own: its position is the end of what was last written through it.
            self._log = _moved_up(os.open(path, os.O_WRONLY | flags, 0o600))
            self._shown = _moved_up(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC))
            os.lseek(self._shown, 0, os.SEEK_END)

    @property
    def shown(self) -> int:
        """A descriptor that reads the log, from where it was not shown yet."""
        return self._shown

    def show(self, up_to: int | None = None) -> None:
        """Write what was not shown, up to that position, to where it would have gone."""
        with self.lock:
            pass_on(self._shown, self.original, up_to)

    def restore(self) -> None:
        """Make the stream what it was. What is not shown yet can still be."""
        self._unpatch()
        if self.original is None:
            os.close(self.fd)
        else:
            os.dup2(self.original, self.fd)
        _set_buffered(self._libc_name, self._libc_mode)

    def close(self) -> None:
        """Give everything back; after `restore`."""
        with self.lock:
            self._close()
            if self.original is not None:
                os.close(self.original)

    def _close(self) -> None:
        for fd in (self._log, self._shown):
            if fd >= 0:
                os.close(fd)
        self._log = self._shown = -1

    # -- Python's object ----------------------------------------------------------------------------------------------

    def _patch(self) -> Callable[[str], Any] | None:
        """Take over ``write`` of the object, not its place: loggers hold it, too."""
        if self._python is None:
            return None
        before: Callable[[str], Any] | None = getattr(self._python, "write", None)
        self._ours = self._write_and_flush if self.is_plain else self._write_and_log
        try:
            self._python.write = self._ours
        except AttributeError:
            return None  # an object of C's without attributes of its own
        return before

    def _unpatch(self) -> None:
        if self._write_before is None or vars(self._python).get("write") != self._ours:
            return  # somebody put theirs over ours, which then only passes on
        del self._python.write
        if self._python.write != self._write_before:
            self._python.write = self._write_before  # it was somebody's patch already

    def _write_and_flush(self, text: str) -> Any:
        """As on a terminal: whole lines go out at once, and threads don't tear each other's apart."""
        assert self._write_before is not None and self._turns is not None
        self._turns.take(self)
        written = self._write_before(text)
        if "\n" in text or "\r" in text:
            self._python.flush()
        return written

    def _write_and_log(self, text: str) -> Any:
        """The log gets whole lines, the object every piece."""
        assert self._write_before is not None and self._turns is not None
        if os.getpid() != self._pid:  # forked: what the parent finds in the log, it shows
            write_all(self.fd, _encoded(text))
            return len(text)
        with self.lock:
            self._turns.take(self)
            self.show()
            if self._passes_on is None and text:
                return self._find_out(text)
            written = self._write_before(text)
            if not self._passes_on:
                self._take_lines(text)
            return written

    def _find_out(self, text: str) -> Any:
        """Whether the object, one that writes to several places, say, passes on to our descriptor what it is given."""
        assert self._write_before is not None
        before = os.fstat(self.fd).st_size
        written = self._write_before(text)
        self._python.flush()
        self._passes_on = _encoded(text) in os.pread(self._shown, _CHUNK + len(text) * 4, before)
        if not self._passes_on:
            self._take_lines(text)
        return written

    def _take_lines(self, text: str) -> None:
        thread = threading.get_ident()
        lines, end, rest = (self._unfinished.pop(thread, "") + text).rpartition("\n")
        if rest:
            self._unfinished[thread] = rest
        self._log_and_skip(lines + end)

    def finish_lines(self) -> None:
        """Write to the log what has no line end yet."""
        with self.lock:
            self._log_and_skip("".join(self._unfinished.values()))
            self._unfinished.clear()

    def _log_and_skip(self, text: str) -> None:
        """Write to the log what is shown by other means, and show what the log holds before it."""
        if text and self._log >= 0:
            data = _encoded(text)
            write_all(self._log, data)
            end = os.lseek(self._log, 0, os.SEEK_CUR)
            self.show(end - len(data))
            os.lseek(self._shown, end, os.SEEK_SET)


def _encoded(text: str) -> bytes:
    return text.encode(errors="backslashreplace")


def pass_on(log: int, target: int | None, up_to: int | None = None) -> None:
    """Copy from where a log's descriptor stands to a target, up to a position or to the end."""
    while True:
        wanted = _CHUNK if up_to is None else min(_CHUNK, up_to - os.lseek(log, 0, os.SEEK_CUR))
        data = os.read(log, wanted) if wanted > 0 else b""
        if not data:
            return
        try:
            while data and target is not None:
                data = data[os.write(target, data) :]
        except OSError:
            pass  # nobody reads it any more: the log has it


def _fileno(stream: Any) -> int | None:
    try:
        fd: int = stream.fileno()
        return fd
    except (OSError, ValueError, AttributeError):
        return None


def _duplicate(fd: int) -> int | None:
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_OF_OURS)
    except OSError:
        return None  # it is closed


def _moved_up(fd: int) -> int:
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_OF_OURS)
    os.close(fd)
    return moved


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
