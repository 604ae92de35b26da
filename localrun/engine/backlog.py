"""The backlog: the waiting runs as the dispatcher knows them, in scheduling order.

A copy of the queue's folder, kept so that nothing is read twice. Some of them may not start yet: one that is retried
waits for its delay, one that needs GPUs until the driver was asked about them after it came.
"""

from __future__ import annotations

import bisect
import time
from collections.abc import Callable, Iterator

from localrun.engine import scheduling
from localrun.engine.queue import WAITING, Need, Queue, Ticket


class Backlog:
    """The waiting tickets. ``log`` is told of damaged ones."""

    def __init__(self, queue: Queue, log: Callable[[str], None]) -> None:
        self._queue = queue
        self._log = log
        self._names: list[str] = []  # sorted
        self._tickets: dict[str, Ticket] = {}
        self._delayed: dict[str, float] = {}  # name → when it may start, in seconds since the epoch
        self._arrived: dict[str, float] = {}  # name of one that needs GPUs → when we learned of it, monotonic
        self.least = Need(0, 0)  # a lower bound of all their needs

    def __bool__(self) -> bool:
        return bool(self._tickets)

    def __contains__(self, name: str) -> bool:
        return name in self._tickets

    def look(self, capacity: Need) -> None:
        """Read the queue's folder anew; nothing needs more than ``capacity``."""
        known, self._names, self._tickets, self._delayed, self.least = self._tickets, [], {}, {}, capacity
        for name in self._queue.names(WAITING):
            self.learn(name, known.get(name))
        self._arrived = {name: at for name, at in self._arrived.items() if name in self._tickets}

    def learn(self, name: str, ticket: Ticket | None = None) -> None:
        """Take in a ticket that is said to be waiting."""
        if name in self._tickets:
            return
        ticket = ticket or self._queue.read_or_put_aside(WAITING, name, self._log)
        if ticket is None:
            return
        self._tickets[name] = ticket
        if ticket.not_before:
            self._delayed[name] = ticket.not_before
        if ticket.gpus.number:
            self._arrived.setdefault(name, time.monotonic())
        self.least = scheduling.least(self.least, ticket.need)
        bisect.insort(self._names, name)

    def forget(self, name: str) -> None:
        """Leave out a ticket that waits no more."""
        self._delayed.pop(name, None)
        self._arrived.pop(name, None)
        if self._tickets.pop(name, None) is not None:
            self._names.remove(name)

    def delay(self, ticket: Ticket, seconds: float) -> None:
        """Let a waiting ticket wait so long at least."""
        not_before = time.time() + seconds
        self._tickets[ticket.name] = ticket._replace(not_before=not_before)
        self._delayed[ticket.name] = not_before

    def ready(self, seen_at: float) -> Iterator[Ticket]:
        """Those that may start, in order. ``seen_at`` is when the driver was asked about the GPUs."""
        now = time.time()
        for name in [name for name, at in self._delayed.items() if at <= now]:
            del self._delayed[name]
        for name in self._names:
            must_be_seen = name in self._arrived and self._arrived[name] >= seen_at
            if name not in self._delayed and not must_be_seen:
                yield self._tickets[name]

    def next_at(self) -> float | None:
        """When the next delay is over, in seconds since the epoch."""
        return min(self._delayed.values(), default=None)

    def wants_gpus(self) -> bool:
        """True if a waiting run needs some."""
        return bool(self._arrived)

    def wants_gpus_seen_after(self) -> float:
        """When the last of those arrived that wait for nothing else; minus infinity if none does."""
        return max((at for name, at in self._arrived.items() if name not in self._delayed), default=float("-inf"))
