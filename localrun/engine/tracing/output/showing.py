"""Showing what traced blocks write, where it would have gone; and noting the times of their logs.

A process of its own does it, which reads the logs' files: it shows a crash's last words too, and nothing waits for it
but the end of the block. Where Python's streams are objects of this process (a notebook's, pytest's), a thread does it.

Whoever shows holds the lock on the file of the times, and reads the logs by the same open files as everybody else: if
the process isn't up yet when the block ends, or was killed, the block's own process goes on where it stopped.
"""

from __future__ import annotations

import os
import signal
import threading

from localrun import files
from localrun.engine import processes
from localrun.engine.supervision.logclock import LogClock
from localrun.engine.tracing import beside
from localrun.engine.tracing.output import showingprogram
from localrun.engine.tracing.output.inturns import InTurns
from localrun.engine.watch import Watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from localrun.engine.tracing.output.streams import Stream
    from localrun.model.folder import RunFolder

# Keys pressed and terminals closed are the block's affair; whoever shows goes on until that has ended.
_NOT_OURS = (
    signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP, signal.SIGTTOU, signal.SIGPIPE,
)  # fmt: skip


class Showing:
    """Shows the streams that lead into this block's log, until it is stopped."""

    def __init__(self, folder: RunFolder, out: Stream, err: Stream) -> None:
        self._streams = out, err
        self._logs = folder.stdout(0, 0), folder.stderr(0, 0), folder.log_times(0, 0)
        self._in_turns = InTurns(self._logs[2], {stream.letter: stream for stream in self._streams})
        ended, self._end = os.pipe2(os.O_CLOEXEC)
        is_plain = out.python.is_plain and err.python.is_plain
        self._process = self._start_process(ended) if is_plain else None
        self._thread = self._start_thread(ended) if self._process is None else None
        if self._thread is None:
            os.close(ended)

    def stop(self) -> None:
        """Show the rest; then nobody shows these streams any more."""
        try:
            self._say_that_it_is_over()
            if self._thread is not None:
                self._thread.join()
            else:
                self._show_rest()
        finally:
            os.close(self._end)

    def _say_that_it_is_over(self) -> None:
        try:
            os.write(self._end, b".")
        except BrokenPipeError:
            pass  # the process was killed, or there is none

    def leave_to_parent(self) -> None:
        """A forked child that lives on doesn't keep the process at work."""
        os.close(self._end)

    def _start_process(self, ended: int) -> tuple[int, int] | None:
        """Its pid and start time; None if there can be none."""
        out, err = self._streams
        logs = (out.unshown, showingprogram.OUT_LOG), (err.unshown, showingprogram.ERR_LOG)
        actions: list[tuple[Any, ...]] = [(os.POSIX_SPAWN_DUP2, *each) for each in logs]
        for stream in self._streams:  # here they lead into the logs
            if stream.original is None:
                actions.append((os.POSIX_SPAWN_OPEN, stream.fd, os.devnull, os.O_WRONLY, 0))
            else:
                actions.append((os.POSIX_SPAWN_DUP2, stream.original, stream.fd))
        try:
            pid = beside.start(showingprogram, *self._logs, stdin=ended, actions=actions, blocked=_NOT_OURS)
        except OSError:
            return None
        start = processes.start_time(pid)
        return None if start is None else (pid, start)

    def _start_thread(self, ended: int) -> threading.Thread | None:
        thread = threading.Thread(target=self._show_until, args=(ended,), daemon=True, name="localrun-showing")
        try:
            thread.start()
        except RuntimeError:
            return None  # no threads left either: it is shown at the end
        return thread

    def _show_rest(self) -> None:
        """Show what the process leaves to be shown."""
        try:
            with self._lock():
                self._in_turns.show()
                self._show_streams()
                with Watch.borrow() as watch:
                    LogClock(watch).add(*self._logs)
        except OSError:  # the folder is gone, but not what was written
            self._show_streams()
        if self._process is not None:
            beside.reap(self._process[0])  # where this process is everybody's parent

    def _lock(self) -> files.ByteLock:
        """Held as soon as nobody else shows."""
        lock = files.ByteLock.try_acquire(self._logs[2])
        if lock is None:
            return files.ByteLock.acquire(self._logs[2])  # it is at work, and comes to the end
        if self._process is not None:
            processes.signal_pid(*self._process, signal.SIGKILL)  # it isn't up yet
        return lock

    def _show_streams(self) -> None:
        for stream in self._streams:
            stream.show()

    def _show_until(self, ended: int) -> None:
        showingprogram.follow(self._logs, self._in_turns.show, ended)
        os.close(ended)
