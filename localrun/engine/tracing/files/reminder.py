"""A thread that sees to what has been put by every now and then, so that little is lost with a program that is killed.

It isn't there while its process forks, which Python rightly warns of where there are threads.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

_EVERY_S = 0.2


class Reminder:
    """Calls ``remind`` every now and then, from when it is begun until it is ended, or ``remind`` says False."""

    def __init__(self, remind: Callable[[], bool]) -> None:
        self._remind = remind
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None
        self._forks = 0  # under way, in several threads
        os.register_at_fork(
            before=self._end_for_fork, after_in_parent=self._has_forked, after_in_child=self._was_forked
        )

    def begin(self) -> None:
        """Be there, if there is none yet and the process isn't forking."""
        if not self._forks and (self._thread is None or not self._thread.is_alive()):
            self._is_over = threading.Event()
            arguments = (self._is_over,)
            thread = threading.Thread(target=self._work, args=arguments, daemon=True, name="localrun-reminder")
            try:
                thread.start()
            except RuntimeError:
                return  # no thread can be had: what has been put by is seen to when it is much, or in the end
            self._thread = thread

    def end(self) -> None:
        """Be there no longer than for what it is just about."""
        self._is_over.set()
        self._thread = None

    def _work(self, is_over: threading.Event) -> None:
        # Two threads may have begun one at once: only the last one's stays.
        while not is_over.wait(_EVERY_S) and is_over is self._is_over and self._remind():
            pass

    def _end_for_fork(self) -> None:
        self._forks += 1
        thread = self._thread
        self.end()
        if thread is not None and thread is not threading.current_thread():
            thread.join(1)

    def _has_forked(self) -> None:
        self._forks = max(self._forks - 1, 0)  # one may have begun before this was there

    def _was_forked(self) -> None:
        self._forks = 0
