"""The output of traced blocks: this process's standard streams go to the log of the outermost block, and are shown.

The descriptors 1 and 2 themselves lead to the log files while a block is open, so that C code and subprocesses are in
them too, and nothing is lost however the process ends. Who shows what was written where it would have gone is
`showing`'s. Capture is per process: every open block has what was written while it was open, by whichever thread. The
blocks inside the outermost one are slices of its log; when that one ends first, the next oldest takes over.
"""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack, suppress

from localrun.engine.tracing.output import logslice
from localrun.engine.tracing.output.logslice import Sizes
from localrun.engine.tracing.output.showing import Showing
from localrun.engine.tracing.output.streams import Stream, Turns, flush
from localrun.model.folder import RunFolder

_lock = threading.Lock()


class _Capture:
    """The blocks that are open in this process, oldest first, and where the process's streams go for them."""

    def __init__(self) -> None:
        self._blocks: dict[str, tuple[RunFolder, Sizes]] = {}  # by uid; where each begins in the oldest one's log
        self._streams: list[Stream] = []
        self._showing: Showing | None = None

    def begin(self, folder: RunFolder) -> None:
        self._flush()
        start = Sizes(0, 0)
        if self._blocks:
            oldest, _ = next(iter(self._blocks.values()))
            start = logslice.sizes(oldest)
            logslice.note_source(folder, oldest, start)
        else:
            self._lead_away(folder)
        self._blocks[str(folder.uid)] = folder, start

    def end(self, folder: RunFolder) -> None:
        if str(folder.uid) not in self._blocks:
            return  # its beginning failed, or later that of the log that came after another's
        try:
            self._flush()
        finally:
            self._end(folder)

    def _end(self, folder: RunFolder) -> None:
        is_oldest = next(iter(self._blocks)) == folder.uid
        _, start = self._blocks.pop(str(folder.uid))
        if not is_oldest:
            oldest, _ = next(iter(self._blocks.values()))
            logslice.take_out(folder, oldest, start, logslice.sizes(oldest))
            logslice.forget_source(folder)
            return
        if not self._blocks:
            self._restore()
            return
        try:
            self._hand_on(folder)
        except BaseException:
            self._blocks.clear()
            self._restore()
            raise

    def sync(self, folder: RunFolder) -> None:
        if str(folder.uid) not in self._blocks:
            return
        self._flush()
        oldest, _ = next(iter(self._blocks.values()))
        _, start = self._blocks[str(folder.uid)]
        if oldest.uid != folder.uid:
            logslice.take_out(folder, oldest, start, logslice.sizes(oldest))

    def _flush(self) -> None:
        """Have in the log, or where it goes without one, what was written so far."""
        flush()
        for stream in self._streams:
            stream.python.finish_lines()

    def _lead_away(self, folder: RunFolder) -> None:
        """Take over the process's streams for the first block."""
        try:
            for fd, name in ((1, "stdout"), (2, "stderr")):
                self._streams.append(Stream(fd, name))
            self._redirect(folder)
        except BaseException:
            self._restore()
            raise

    def _redirect(self, folder: RunFolder) -> None:
        """Lead the streams to the end of this block's log, and show them from there on."""
        out, err = self._streams
        turns = Turns(folder.log_times(0, 0), out, err)
        out.lead_into(folder.stdout(0, 0), turns)
        err.lead_into(folder.stderr(0, 0), turns)
        self._showing = Showing(folder, out, err)

    def _hand_on(self, ended: RunFolder) -> None:
        """Make the next oldest block's log the one that the streams lead into."""
        oldest, start = next(iter(self._blocks.values()))
        self._stop_showing()
        out, err = self._streams
        with out.lock, err.lock:
            until = logslice.sizes(ended)
            out.show(until.out)
            err.show(until.err)
            logslice.take_out(oldest, ended, start, until)
            self._redirect(oldest)
            logslice.take_late(oldest, ended, until)
        logslice.forget_source(oldest)
        for uid, (folder, position) in self._blocks.items():
            moved = Sizes(position.out - start.out, position.err - start.err)
            self._blocks[uid] = folder, moved
            if folder is not oldest:
                logslice.note_source(folder, oldest, moved)

    def _restore(self) -> None:
        streams, self._streams = self._streams, []
        with ExitStack() as afterwards:  # each of it, whatever comes of the others
            for stream in streams:
                afterwards.callback(stream.close)
            afterwards.callback(self._stop_showing)
            for stream in streams:
                afterwards.callback(stream.restore)

    def _stop_showing(self) -> None:
        showing, self._showing = self._showing, None
        if showing is not None:
            showing.stop()

    def leave_to_parent(self) -> None:
        """In a forked child: what holds up those who wait for the end of the parent's output is closed."""
        with suppress(OSError):
            for stream in self._streams:
                stream.leave_to_parent()
            if self._showing is not None:
                self._showing.leave_to_parent()


_capture = _Capture()


def begin(folder: RunFolder) -> None:
    """Write what this process writes from now on into this block's log, too; ``folder`` knows its uid."""
    with _lock:
        _capture.begin(folder)


def end(folder: RunFolder) -> None:
    """Complete this block's log. With the last one the streams are the process's own again."""
    with _lock:
        _capture.end(folder)


def sync(folder: RunFolder) -> None:
    """Bring the log of a block that is open in this process up to date, for whoever reads it from inside."""
    with _lock:
        _capture.sync(folder)


def _begin_anew() -> None:
    """A forked child writes to the same log, and leaves its parent's blocks alone."""
    global _lock, _capture
    _capture.leave_to_parent()
    _lock, _capture = threading.Lock(), _Capture()


os.register_at_fork(after_in_child=_begin_anew)
