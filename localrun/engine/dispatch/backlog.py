"""The backlog: the waiting runs as the dispatcher knows them, in scheduling order.

A copy of the queue's folder, kept so that nothing is read twice. Some of them may not start yet: one that is retried
waits for its delay, one that starts after others for these, and one that needs GPUs until the driver was asked about
them after it came.
"""

from __future__ import annotations

import bisect
import time
from collections.abc import Callable, Iterator

from localrun.engine.queue import WAITING, Queue
from localrun.engine.scheduling import room
from localrun.engine.scheduling.placement import GpuNeed
from localrun.engine.scheduling.ticket import Need, Ticket

_AGAIN_S = 5.0


class Backlog:
    """The waiting tickets. ``log`` is told of damaged ones."""

    def __init__(self, queue: Queue, log: Callable[[str], None]) -> None:
        self._queue = queue
        self._log = log
        self._names: list[str] = []  # sorted
        self._tickets: dict[str, Ticket] = {}
        self._delayed: dict[str, float] = {}  # name → when it may start, in seconds since the epoch
        self._arrived: dict[str, float] = {}  # name of one that needs GPUs → when we learned of it, monotonic
        self._held: set[str] = set()  # the names of those that wait for other runs
        self._over: dict[str, float] = {}  # name → when its time is over, in seconds since the epoch
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
        self._held.intersection_update(self._tickets)
        self._over = {name: at for name, at in self._over.items() if name in self._tickets}

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
        if ticket.after:
            self._held.add(name)
        over_at = ticket.over_at()
        if over_at is not None:
            self._over.setdefault(name, over_at)
        if ticket.gpus.number:
            self._arrived.setdefault(name, time.monotonic())
        self.least = room.least(self.least, ticket.need)
        bisect.insort(self._names, name)

    def forget(self, name: str) -> None:
        """Leave out a ticket that waits no more."""
        self._delayed.pop(name, None)
        self._arrived.pop(name, None)
        self._over.pop(name, None)
        self._held.discard(name)
        if self._tickets.pop(name, None) is not None:
            self._names.remove(name)

    def delay(self, ticket: Ticket, seconds: float) -> None:
        """Let a waiting ticket wait so long at least."""
        not_before = time.time() + seconds
        self._tickets[ticket.name] = ticket._replace(not_before=not_before)
        self._delayed[ticket.name] = not_before

    def ready(self) -> Iterator[Ticket]:
        """Those that may start as far as they themselves are concerned, in order."""
        now = time.time()
        for name in [name for name, at in self._delayed.items() if at <= now]:
            del self._delayed[name]
        for name in self._names:
            if name not in self._delayed and name not in self._held:
                yield self._tickets[name]

    def unseen(self, seen_at: float) -> set[str]:
        """The names of those that need GPUs about which the driver was not asked since they arrived."""
        return {name for name, arrived in self._arrived.items() if arrived >= seen_at}

    def next_at(self) -> float | None:
        """When the next delay, or the next one's time, is over, in seconds since the epoch."""
        return min([*self._delayed.values(), *self._over.values()], default=None)

    def overdue(self) -> list[Ticket]:
        """Those whose time is over; asked again, they are named again in some seconds."""
        now = time.time()
        names = [name for name, at in self._over.items() if at <= now]
        self._over.update(dict.fromkeys(names, now + _AGAIN_S))
        return [self._tickets[name] for name in names]

    def wants_gpus(self) -> bool:
        """True if a waiting run needs some."""
        return bool(self._arrived)

    def gpu_needs(self) -> Iterator[GpuNeed]:
        """What those that need GPUs ask of them, each once."""
        yield from {self._tickets[name].gpus for name in self._arrived}

    def wants_gpus_seen_after(self) -> float:
        """When the last of those arrived that wait for nothing else; minus infinity if none does."""
        now = time.time()
        kept = {name for name, until in self._delayed.items() if until > now}
        kept |= self._held
        return max((at for name, at in self._arrived.items() if name not in kept), default=float("-inf"))

    def held(self) -> list[Ticket]:
        """Those that wait for other runs."""
        return [self._tickets[name] for name in self._held]

    def replace(self, ticket: Ticket) -> None:
        """Put a ticket in place of what was known of it, which waited for more runs than it does now."""
        self._tickets[ticket.name] = ticket
        if not ticket.after:
            self._held.discard(ticket.name)

    def uids(self) -> set[str]:
        """The uids of the runs."""
        return {ticket.uid for ticket in self._tickets.values()}
