"""The times of a run's output: when each log had grown to which size.

Ranks write to the log files themselves; nobody stands between. The supervisor sees the files grow and notes it, a
line ``time stream size`` at each growth, which is what merges stdout and stderr in time order and dates every line.
A quiet run costs nothing; a chatty one is looked at no more than twenty times a second.
"""

from __future__ import annotations

import os
import time

from localrun import files
from localrun.engine.watch import MODIFIED, Watch

INTERVAL_S = 0.05


class LogClock:
    """Notes the growth of a run's logs, each rank's in a file beside them. ``watch`` is used for these alone."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._sizes: dict[str, int] = {}
        self._notes: dict[str, tuple[str, str]] = {}  # log → (its times file, its letter there)
        self._last = 0.0

    def add(self, out: str, err: str, times: str) -> None:
        """Look after one rank's logs from now on, if nobody does yet; what is in them already is included."""
        if out in self._sizes:
            return
        for path, letter in ((out, "o"), (err, "e")):
            self._watch.add(path, MODIFIED)
            self._sizes[path], self._notes[path] = 0, (times, letter)
        self.sample()
        self._last = 0.0

    @property
    def fd(self) -> int | None:
        """Readable when a log grew; None where the kernel can't tell, and `sample` is to be called in intervals."""
        return self._watch.fd

    def due(self, now: float) -> float:
        """Seconds until the next look at a growing log may be taken; 0 or less: now."""
        return self._last + INTERVAL_S - now

    def sample(self) -> None:
        """Note which logs have grown. A log that can't be noted (full disk) has no times; its bytes are all there."""
        self._last = time.monotonic()
        # Within one look, the stream that grew first comes first.
        for path in dict.fromkeys((*self._watch.changes(), *self._sizes)):
            try:
                size = os.stat(path).st_size
            except OSError:
                continue
            if size > self._sizes[path]:
                self._sizes[path] = size
                times, letter = self._notes[path]
                files.append_line(times, f"{time.time():.3f} {letter} {size}\n")

    def stop(self) -> None:
        """Take the last sample and leave the logs."""
        self.sample()
        self._watch.clear()
        self._sizes.clear()
