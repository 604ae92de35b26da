"""Watching one run until it ends: its place in the queue while it waits, its output when it runs, its end."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, BinaryIO

from localrun.api.machine.utilization import why_waiting
from localrun.api.output import following
from localrun.cli.endings import exit_code, tell_how_it_ended
from localrun.cli.output import byte_stream, say
from localrun.cli.terminal import StatusLine
from localrun.model.status import RunStatus

if TYPE_CHECKING:
    from localrun.api.run import Run

INTERRUPTED = 130


def follow(run: Run) -> int:
    """Pass a run's output on as it comes, stdout to stdout and stderr to stderr; the run's exit code."""
    line = QueueLine()
    out, err = line.before(byte_stream(sys.stdout)), line.before(byte_stream(sys.stderr))
    try:
        following.show_bytes(run, out, err, looked=line)
    except KeyboardInterrupt:
        line.clear()
        return detach(run)
    finally:
        line.clear()
    tell_how_it_ended(run)
    return exit_code(run)


def detach(run: Run) -> int:
    """Say, after Ctrl-C, that the run goes on; the exit code for that."""
    if sys.stderr.isatty():
        say("")  # the terminal shows ^C
    how = f"follow it with 'localrun logs -f {run.name}', stop it with 'localrun stop run {run.name}'"
    say(f"localrun: run {run.name} goes on: {how}")
    return INTERRUPTED


class QueueLine:
    """Shows on stderr, while a run is queued, its place in the queue and what it waits for; called with the run."""

    def __init__(self) -> None:
        self._line = StatusLine(sys.stderr)

    def __call__(self, run: Run) -> None:
        if run.status not in (RunStatus.PENDING, RunStatus.QUEUED):
            self.clear()
            return
        waiting = why_waiting(run)
        # Where it can't be taken back, nothing is said of the moment that every start takes.
        if waiting is not None and (self._line.in_place or not waiting.about_to_start):
            self._line.show(f"queued: {waiting}")

    def clear(self) -> None:
        """Take the line back."""
        self._line.clear()

    def before(self, stream: BinaryIO) -> following.ByteSink:
        """A sink for the run's output that takes the line back first."""
        return _Output(stream, self)


class _Output:
    def __init__(self, stream: BinaryIO, line: QueueLine) -> None:
        self._stream = stream
        self._line = line

    def write(self, data: bytes, /) -> None:
        self._line.clear()
        self._stream.write(data)

    def flush(self) -> None:
        self._stream.flush()
