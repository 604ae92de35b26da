"""The roster: the claimed runs as the dispatcher knows them, what they hold, and the supervisors behind them.

A copy of what the queue's folders and the runs' records say; what becomes of a run without a supervisor is the
dispatcher's to decide.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterator

from localrun.engine import processes
from localrun.engine.queue import ACTIVE, ENDING, Queue
from localrun.engine.scheduling.room import Active
from localrun.engine.scheduling.ticket import Ticket
from localrun.engine.supervision import conclusion
from localrun.model import times
from localrun.model.record import Record


class Roster:
    """The claimed tickets. Supervisors that end appear on ``poll`` as their pidfds; ``log`` hears of damaged files."""

    def __init__(self, queue: Queue, poll: select.epoll, log: Callable[[str], None]) -> None:
        self._queue = queue
        self._poll = poll
        self._log = log
        self._tickets: dict[str, Ticket] = {}
        self._supervisors: dict[int, str] = {}  # pidfd → name of the ticket
        self._gpus: dict[str, tuple[str, ...]] = {}  # name → uuids
        self._since: dict[str, float] = {}  # name → when it was started, in seconds since the epoch
        self._ending: set[str] = set()
        self.freed_at = float("-inf")  # when a run last gave GPUs back, monotonic

    def __bool__(self) -> bool:
        return bool(self._tickets or self._supervisors)

    def __contains__(self, name: str) -> bool:
        return name in self._tickets

    def active(self) -> list[Active]:
        """The runs that hold resources."""
        return [
            Active(ticket, self._gpus.get(name, ()), self._since.get(name, 0.0), name in self._ending)
            for name, ticket in self._tickets.items()
        ]

    def gpus(self) -> set[str]:
        """The uuids of the GPUs that they were given."""
        return {uuid for uuids in self._gpus.values() for uuid in uuids}

    def look(self) -> Iterator[tuple[Ticket, str]]:
        """Read the queue's folders anew; gives the tickets, and their states, behind which we know no supervisor."""
        supervised = set(self._supervisors.values())
        self._tickets = {}
        for state in (ACTIVE, ENDING):
            for name in self._queue.names(state):
                ticket = self._queue.read_or_put_aside(state, name, self._log)
                if ticket is None:
                    continue
                if state == ACTIVE:
                    self._tickets[name] = ticket
                if name not in supervised:
                    yield ticket, state
        if any(self._gpus[name] for name in self._gpus.keys() - self._tickets.keys()):
            self.freed_at = time.monotonic()
        self._gpus = {name: uuids for name, uuids in self._gpus.items() if name in self._tickets}
        self._since = {name: since for name, since in self._since.items() if name in self._tickets}
        self._ending.intersection_update(self._tickets)

    def add(self, ticket: Ticket, gpus: tuple[str, ...]) -> None:
        """Take in a ticket that was just claimed, with the GPUs it was given."""
        self._tickets[ticket.name] = ticket
        self._since[ticket.name] = time.time()
        if gpus:
            self._gpus[ticket.name] = gpus

    def remove(self, name: str) -> None:
        """Leave out a ticket that is no longer claimed."""
        self._tickets.pop(name, None)
        if self._gpus.pop(name, None):
            self.freed_at = time.monotonic()
        self._ending.discard(name)

    def replace(self, ended: str, successor: str) -> None:
        """Note that a supervisor has gone on from one run to the next."""
        self.remove(ended)
        ticket = self._queue.read_or_put_aside(ACTIVE, successor, self._log)
        if ticket is not None:
            self.add(ticket, ())
        for pidfd, name in self._supervisors.items():
            if name == ended:
                self._supervisors[pidfd] = successor

    def mark_ending(self, name: str) -> None:
        """Note that a run is about to give its resources back."""
        self._ending.add(name)

    def recall(self, ticket: Ticket, record: Record) -> None:
        """Take what its record says of a run that an earlier dispatcher started."""
        self._gpus[ticket.name] = tuple(gpu["uuid"] for gpu in record["gpus"])
        if record["resumptions"]:
            self._since[ticket.name] = times.seconds(record["resumptions"][-1]["started_at"])
        if conclusion.is_ending(record):
            self._ending.add(ticket.name)

    def recall_supervisor(self, ticket: Ticket, record: Record) -> None:
        """Watch the supervisor of a run that an earlier dispatcher started, by the pid it wrote into the record."""
        supervisor = record["supervisor"]
        try:
            if supervisor is not None and processes.start_time(supervisor["pid"]) == supervisor["start"]:
                self.watch(os.pidfd_open(supervisor["pid"]), ticket.name)
        except ProcessLookupError:
            return

    def watch(self, pidfd: int, name: str) -> None:
        """Be told when that supervisor ends."""
        self._supervisors[pidfd] = name
        self._poll.register(pidfd, select.EPOLLIN)

    def supervisor_ended(self, pidfd: int) -> None:
        """Forget a supervisor."""
        self._poll.unregister(pidfd)
        os.close(pidfd)
        del self._supervisors[pidfd]
