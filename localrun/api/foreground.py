"""A child in the foreground of this process's terminal: what is typed is for it, and afterwards all is as it was.

A shell that is killed with the run it is in leaves the terminal as it was at that moment: in raw mode, and in the hands
of a process group that is gone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_TERMINAL = 0  # standard input
_KEYS = (signal.SIGINT, signal.SIGQUIT)


def call(start: Callable[[], subprocess.Popen[bytes]]) -> int:
    """Start a child with this process's standard streams and wait for its end.

    Its exit code is given as a shell has it, 128 + N for signal N.
    """
    with _deaf_to_keys():
        before = _state()
        code = start().wait()
        if before is not None:
            _take_back(before, was_killed=code < 0)
    return code if code >= 0 else 128 - code


@contextmanager
def _deaf_to_keys() -> Iterator[None]:
    """Let Ctrl-C and Ctrl-\\ end the child and not this process, which gets them too while both are in one group."""
    handlers = {}
    if threading.current_thread() is threading.main_thread():  # no other may change them
        # A function, because what is ignored here would stay so in the child.
        asked = [number for number in _KEYS if signal.getsignal(number) is not signal.SIG_IGN]
        handlers = {number: signal.signal(number, lambda *_: None) for number in asked}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _state() -> list[Any] | None:
    """How the terminal is set, if there is one and this process is in its foreground."""
    try:
        return termios.tcgetattr(_TERMINAL) if os.tcgetpgrp(_TERMINAL) == os.getpgrp() else None
    except (OSError, termios.error):
        return None


def _take_back(before: list[Any], *, was_killed: bool) -> None:
    """Put this process's group in the terminal's foreground again, and undo what a killed child can't have undone."""
    # Whoever is in the background and touches the terminal is stopped by this signal, unless it is blocked.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    try:
        if _is_taken(os.tcgetpgrp(_TERMINAL)):
            return
        os.tcsetpgrp(_TERMINAL, os.getpgrp())
        if was_killed:
            termios.tcsetattr(_TERMINAL, termios.TCSANOW, before)
    except (OSError, termios.error):
        pass  # the terminal is gone
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _is_taken(group: int) -> bool:
    """True if the terminal's foreground is another group's: a login shell's, say, that has put us in the background."""
    if group == os.getpgrp():
        return False
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
