"""The roster: the claimed runs as the dispatcher knows them, what they hold, and the supervisors behind them.

A copy of what the queue's folders and the runs' records say; what becomes of a run without a supervisor is the
dispatcher's to decide.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterable, Iterator

from localrun.engine import processes
from localrun.engine.queue import ACTIVE, ENDING, Queue, Ticket
from localrun.errors import LocalrunError
from localrun.model import record as records
from localrun.model.folder import RunFolder


class Roster:
    """The claimed tickets. Supervisors that end appear on ``poll`` as their pidfds; ``log`` hears of damaged files."""

    def __init__(self, queue: Queue, poll: select.epoll, log: Callable[[str], None]) -> None:
        self._queue = queue
        self._poll = poll
        self._log = log
        self._tickets: dict[str, Ticket] = {}
        self._supervisors: dict[int, str] = {}  # pidfd → name of the ticket
        self._gpus: dict[str, tuple[str, ...]] = {}  # name → uuids

    def __bool__(self) -> bool:
        return bool(self._tickets or self._supervisors)

    def __contains__(self, name: str) -> bool:
        return name in self._tickets

    def tickets(self) -> Iterable[Ticket]:
        """Those whose runs hold resources."""
        return self._tickets.values()

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
        self._gpus = {name: uuids for name, uuids in self._gpus.items() if name in self._tickets}

    def add(self, ticket: Ticket, gpus: tuple[str, ...]) -> None:
        """Take in a ticket that was just claimed, with the GPUs it was given."""
        self._tickets[ticket.name] = ticket
        if gpus:
            self._gpus[ticket.name] = gpus

    def remove(self, name: str) -> None:
        """Leave out a ticket that is no longer claimed."""
        self._tickets.pop(name, None)
        self._gpus.pop(name, None)

    def replace(self, ended: str, successor: str) -> None:
        """Note that a supervisor has gone on from one run to the next."""
        self.remove(ended)
        ticket = self._queue.read_or_put_aside(ACTIVE, successor, self._log)
        if ticket is not None:
            self._tickets[successor] = ticket
        for pidfd, name in self._supervisors.items():
            if name == ended:
                self._supervisors[pidfd] = successor

    def recall_gpus(self, ticket: Ticket) -> None:
        """Take the GPUs of a run that an earlier dispatcher started from the run's record."""
        if ticket.gpus.number:
            try:
                self._gpus[ticket.name] = tuple(gpu["uuid"] for gpu in records.read(RunFolder(ticket.folder))["gpus"])
            except LocalrunError:
                return

    def recall_supervisor(self, ticket: Ticket) -> None:
        """Watch the supervisor of a run that an earlier dispatcher started, by the pid it wrote into the record."""
        try:
            supervisor = records.read(RunFolder(ticket.folder))["supervisor"]
            if supervisor is not None and processes.start_time(supervisor["pid"]) == supervisor["start"]:
                self.watch(os.pidfd_open(supervisor["pid"]), ticket.name)
        except (LocalrunError, ProcessLookupError):
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
