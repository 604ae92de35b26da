"""The times of a run's output: when each log had grown to which size.

Ranks write to the log files themselves; nobody stands between. The supervisor sees the files grow and notes it, a
line ``time stream size`` at each growth, which is what merges stdout and stderr in time order and dates every line.
A quiet run costs nothing; a chatty one is looked at no more than twenty times a second.
"""

from __future__ import annotations

import os
import time

from localrun.engine import watch

INTERVAL_S = 0.05


class LogClock:
    """Notes the growth of one rank's two logs in a file beside them."""

    def __init__(self, out: str, err: str, times: str) -> None:
        self._streams = {out: "o", err: "e"}
        self._sizes = {out: 0, err: 0}
        self._times = times
        self._watch = watch.Watch()
        for path in self._streams:
            self._watch.add(path, watch.MODIFIED)
        self._last = 0.0
        self.sample()  # what was written before the watch began
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
        lines = []
        # Within one look, the stream that grew first comes first.
        for path in dict.fromkeys((*self._watch.changes(), *self._streams)):
            try:
                size = os.stat(path).st_size
            except OSError:
                continue
            if size > self._sizes[path]:
                self._sizes[path] = size
                lines.append(f"{time.time():.3f} {self._streams[path]} {size}\n")
        if lines:
            self._note("".join(lines))

    def close(self) -> None:
        """Take the last sample and end."""
        self.sample()
        self._watch.close()

    def _note(self, lines: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(self._times, flags, 0o600)
            try:
                os.write(fd, lines.encode())
            finally:
                os.close(fd)
        except OSError:
            pass
