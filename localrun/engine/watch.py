"""Waiting for files to change without polling: the kernel's inotify, and a patient poll where there is none left.

A user may have 128 inotify instances by default; when they are used up, a watch falls back on looking every 20 ms.
Closing an instance takes the kernel up to 10 ms, so they are kept and lent out again.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
import time
from types import TracebackType

MODIFIED = 0x2
REPLACED = 0x80 | 0x400 | 0x800  # in a folder: something was moved there; or it was itself deleted or moved away
CREATED = 0x100  # in a folder: something was made there
_NONBLOCK_CLOEXEC = 0o4000 | 0o2000000
_POLL_S = 0.02
_libc = ctypes.CDLL(None, use_errno=True)
_EVENT = struct.Struct("iIII")


class Watch:
    """Wakes its one waiter when a watched file or folder changes. In a ``with`` block it is given back afterwards."""

    @classmethod
    def borrow(cls) -> Watch:
        """A watch with nothing to watch yet; an idle one of this process if there is one."""
        return _idle.pop() if _idle else cls()

    def __init__(self) -> None:
        fd = _libc.inotify_init1(_NONBLOCK_CLOEXEC)
        self.fd: int | None = fd if fd >= 0 else None
        self._paths: dict[int, str] = {}

    def add(self, path: str, events: int) -> bool:
        """Watch a file or folder that exists; False if it doesn't (or the kernel has no watch left)."""
        if self.fd is None:
            return os.path.exists(path)
        number = _libc.inotify_add_watch(self.fd, os.fsencode(path), events)
        if number >= 0:
            self._paths[number] = path
        return bool(number >= 0)

    def discard(self, path: str) -> None:
        """Stop watching a path."""
        for number in [number for number, known in self._paths.items() if known == path]:
            _libc.inotify_rm_watch(self.fd, number)
            del self._paths[number]

    def wait(self, timeout: float) -> list[str]:
        """Wait until something watched changed, at most ``timeout`` seconds; the paths that did, in order, once each.

        Without inotify every watched path may have changed, and the answer is empty after a short sleep.
        """
        if self.fd is None:
            time.sleep(max(min(timeout, _POLL_S), 0))
            return []
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        return self.changes() if poll.poll(max(timeout, 0) * 1000) else []

    def changes(self) -> list[str]:
        """The paths that changed since last asked, in order of their first change; doesn't wait."""
        changed: dict[str, None] = {}
        while self.fd is not None:
            try:
                data = os.read(self.fd, 1 << 16)
            except BlockingIOError:
                break
            for path in self._parse(data):
                changed[path] = None
        return list(changed)

    def _parse(self, data: bytes) -> list[str]:
        paths, at = [], 0
        while at < len(data):
            number, _, _, length = _EVENT.unpack_from(data, at)
            at += _EVENT.size + length
            if number in self._paths:
                paths.append(self._paths[number])
        return paths

    def clear(self) -> None:
        """Watch nothing any more."""
        for number in self._paths:
            _libc.inotify_rm_watch(self.fd, number)
        self._paths.clear()
        self.changes()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        if self.fd is not None:
            self.clear()
            _idle.append(self)


_idle: list[Watch] = []
# A forked child would share the instances, and each take events from the other.
os.register_at_fork(after_in_child=_idle.clear)
