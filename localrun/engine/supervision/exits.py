"""In which order the ranks of a run end: the first that fails is why the others are ended.

Exits that are collected together no longer tell. The kernel lists the ranks' pidfds in an epoll as they become ready.
"""

from __future__ import annotations

import os
import select


class Exits:
    """The ranks that were added, in the order in which they have ended. To be closed when no more is to be known."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._ranks: dict[int, int] = {}  # pidfd → rank
        self._ended: list[int] = []

    def add(self, pid: int, rank: int) -> None:
        """Watch a rank that was just started, and not yet waited for."""
        pidfd = os.pidfd_open(pid)
        self._ranks[pidfd] = rank
        self._epoll.register(pidfd, select.EPOLLIN)

    def in_order(self) -> list[int]:
        """The ranks that have ended, the first first."""
        while events := self._epoll.poll(0, max(len(self._ranks), 1)):
            for pidfd, _ in events:
                self._ended.append(self._ranks.pop(pidfd))
                self._epoll.unregister(pidfd)
                os.close(pidfd)
        return self._ended

    def close(self) -> None:
        """Watch no longer."""
        for pidfd in self._ranks:
            os.close(pidfd)
        self._ranks.clear()
        self._epoll.close()
