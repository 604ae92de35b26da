"""Python's object for a standard stream, ``sys.stdout``, while the descriptor leads into a log.

Usually it writes to the descriptor, and all there is to do is to flush its lines, so that they stay in order with what
C code and subprocesses write. In a notebook, under pytest or behind ``redirect_stdout`` it is an object that writes
elsewhere: then what it is given is put into the log besides. It is the object that is changed, not its place, because
loggers hold it, too; and as little as can be, to be what it was afterwards.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from typing import Protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Log(Protocol):
    """The log that a stream's descriptor leads into."""

    lock: threading.RLock

    def take_turn(self) -> None:
        """Python is about to write to this stream, and not to the other."""

    def show(self) -> None:
        """Show what came into the log by the descriptor."""

    def add_shown(self, data: bytes) -> None:
        """Write to the log what is shown by other means."""

    def since(self, position: int | None = None) -> tuple[int, bytes]:
        """How long the log is, and what it has from a position on."""

    def add_forked(self, data: bytes) -> None:
        """Write to the log in a child process, whose parent shows it."""


def make(python: Any, fd: int, log: Log) -> PythonStream:
    """The way to take over this object."""
    if python is None or not hasattr(python, "write"):
        return PythonStream(python, log)
    if hasattr(python, "echo") and hasattr(python, "watch_fd_thread"):
        return NotebookStream(python, log)
    return PlainStream(python, log) if _fileno(python) == fd else OtherStream(python, log)


def flush(*streams: Any) -> None:
    """Write out what these hold back, each once."""
    for stream in {id(each): each for each in streams}.values():
        # Closed, a full disk, none, an object of the user's without one: who writes next is told.
        with suppress(Exception):
            stream.flush()


class PythonStream:
    """One that isn't there or can't be taken over: the log has of it what reaches the descriptor."""

    is_plain = True  # what is in the log was not shown yet

    def __init__(self, python: Any, log: Log) -> None:
        self._python = python
        self._log = log
        self.take_over()

    def take_over(self) -> None:
        """Change the object."""

    def give_back(self) -> None:
        """Make it what it was."""

    def finish_lines(self) -> None:
        """Write to the log what has no line end yet."""


class _Patched(PythonStream):
    """One whose ``write`` is ours for a while."""

    def take_over(self) -> None:
        self._before: Callable[[str], Any] = self._python.write
        self._ours = self._write
        try:
            self._python.write = self._ours
        except AttributeError:
            self._ours = self._before  # an object of C's without attributes of its own

    def give_back(self) -> None:
        if getattr(self._python, "__dict__", {}).get("write") != self._ours:
            return  # somebody put theirs over ours, which then only passes on
        del self._python.write
        if self._python.write != self._before:
            self._python.write = self._before  # it was somebody's patch already

    def _write(self, text: str) -> Any:
        raise NotImplementedError


class PlainStream(_Patched):
    """One that writes to the descriptor."""

    _was_end = False  # the last text was a line's end alone, as `print` writes it

    def _write(self, text: str) -> Any:
        """As on a terminal: whole lines go out at once, and threads don't tear each other's apart."""
        is_end = text == "\n"
        if not is_end or self._was_end:  # else it ends what was just written
            self._log.take_turn()
        self._was_end = is_end
        written = self._before(text)
        if "\n" in text or "\r" in text:
            self._python.flush()
        return written


class OtherStream(_Patched):
    """One that writes elsewhere, or elsewhere, too. The log gets its whole lines."""

    is_plain = False

    def take_over(self) -> None:
        self._pid = os.getpid()
        self._unfinished: dict[int, str] = {}  # by thread
        self._passes_on: bool | None = None
        super().take_over()

    def finish_lines(self) -> None:
        with self._log.lock:
            self._log.add_shown(_encoded("".join(self._unfinished.values())))
            self._unfinished.clear()

    def _write(self, text: str) -> Any:
        if os.getpid() != self._pid:
            self._log.add_forked(_encoded(text))
            return len(text)
        with self._log.lock:
            self._log.take_turn()
            self._log.show()
            if self._passes_on is None and text:
                return self._find_out(text)
            written = self._before(text)
            if not self._passes_on:
                self._add(text)
            elif "\n" in text:
                self._flush()
            return written

    def _find_out(self, text: str) -> Any:
        """Whether the object, one that writes to several places, say, passes on to the descriptor what it is given."""
        length, _ = self._log.since()
        written = self._before(text)
        self._flush()
        self._passes_on = _encoded(text) in self._log.since(length)[1]
        if not self._passes_on:
            self._add(text)
        return written

    def _flush(self) -> None:
        """Have out what the object holds back, or what the interpreter's own stream does that it passes on to."""
        flush(self._python, sys.__stdout__, sys.__stderr__)

    def _add(self, text: str) -> None:
        thread = threading.get_ident()
        lines, end, rest = (self._unfinished.pop(thread, "") + text).rpartition("\n")
        if rest:
            self._unfinished[thread] = rest
        self._log.add_shown(_encoded(lines + end))


class NotebookStream(OtherStream):
    """A notebook's, whose ``write`` IPython patches for each cell: it is heard by its echo."""

    def take_over(self) -> None:
        self._pid = os.getpid()
        self._unfinished = {}
        self._echo_before, self._python.echo = self._python.echo, self

    def give_back(self) -> None:
        if self._python.echo is self:
            self._python.echo = self._echo_before

    def write(self, text: str) -> None:
        """Called for each piece that was written to the stream."""
        if threading.current_thread() is self._python.watch_fd_thread or os.getpid() != self._pid:
            return  # it is what we showed it ourselves
        with self._log.lock:
            self._log.take_turn()
            self._add(text)

    def flush(self) -> None:
        """Nothing is held back that could go out."""


def _encoded(text: str) -> bytes:
    return text.encode(errors="backslashreplace")


def _fileno(stream: Any) -> int | None:
    try:
        fd: int = stream.fileno()
        return fd
    except (OSError, ValueError, AttributeError):
        return None
