"""The signals by which a supervisor is told something, and the pipe on which it reads them."""

from __future__ import annotations

import os
import signal

# The record has news: a stop was asked for.
NEWS = signal.SIGUSR1
# A stop was asked for, and the record could not be written.
STOP = signal.SIGUSR2


def pipe() -> int:
    """The end of a pipe on which this process's signals appear as bytes."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, NEWS, STOP):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    return reader
