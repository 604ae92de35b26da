"""What the machine is at work on, what waits, and why: the policy of `scheduling`, put in words for people.

`explain` is a pure function of the queue's tickets; it goes through them as the policy does, and asks of each what it
lacks and who has that.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from localrun import settings
from localrun.engine import scheduling
from localrun.engine.capacity import capacity
from localrun.engine.queue import ACTIVE, WAITING, Need, Queue, Ticket

if TYPE_CHECKING:
    from localrun.api.run import Run

_NAMED = 3  # so many runs are named in a sentence, the others counted


class Waiting(NamedTuple):
    """Where a run stands in the queue (``position`` counts from 1) and what keeps it there; as text, a sentence of it.

    ``lacking`` names the resources of ``needs`` that are not free; ``held_by`` are the active runs that have them, and
    ``kept_for`` the first of the runs ahead for which what is free of them is kept. ``not_before`` is the time, in
    seconds since the epoch, until which a retry is delayed. With nothing of these it is about to start.
    """

    position: int
    total: int
    needs: Need
    lacking: tuple[str, ...] = ()
    held_by: tuple[str, ...] = ()
    kept_for: tuple[str, ...] = ()
    not_before: float | None = None

    @property
    def about_to_start(self) -> bool:
        """True if nothing keeps it waiting but the moment that a start takes."""
        return not self.lacking and self.not_before is None

    def __str__(self) -> str:
        place = f"{ordinal(self.position)} of {self.total}"
        if self.not_before is not None:
            return f"{place}, is tried again at {time.strftime('%H:%M:%S', time.localtime(self.not_before))}"
        if not self.lacking:
            return f"{place}, about to start"
        wanted = " and ".join(amount(self.needs, resource) for resource in self.lacking)
        holders = [f"held by {_names(self.held_by)}"] if self.held_by else []
        if self.kept_for:
            holders.append(f"kept for {_names(self.kept_for)}, ahead of it")
        return " ".join([f"{place}, waits for {wanted}", " and ".join(holders)]).rstrip()


class Utilization(NamedTuple):
    """What the machine has, what active runs use of it, and who they and the waiting ones are, in queue order."""

    capacity: Need
    used: Need
    active: list[Ticket]
    queued: list[tuple[Ticket, Waiting]]


def utilization() -> Utilization:
    """The machine as it is now."""
    queue = Queue(settings.home())
    has, active, waiting = capacity(), queue.tickets(ACTIVE), queue.tickets(WAITING)
    free = scheduling.free(has, active)
    used = Need(has.cpus - free.cpus, has.memory - free.memory)
    reasons = explain(waiting, active, has, time.time())
    return Utilization(has, used, active, list(zip(waiting, reasons, strict=True)))


def why_waiting(run: Run) -> Waiting | None:
    """Why a run is still queued; None if it isn't in the queue (any more)."""
    queue = run._queue
    waiting = queue.tickets(WAITING)
    place = next((index for index, ticket in enumerate(waiting) if ticket.uid == run.run_uid), None)
    if place is None:
        return None
    ahead_and_it = explain(waiting[: place + 1], queue.tickets(ACTIVE), capacity(), time.time())
    return ahead_and_it[place]._replace(total=len(waiting))


def explain(waiting: Sequence[Ticket], active: Sequence[Ticket], capacity: Need, now: float) -> list[Waiting]:
    """For each waiting run, in scheduling order, what keeps it waiting."""
    free = left = scheduling.free(capacity, active)
    found: list[Waiting] = []
    first: dict[str, str] = {}  # resource → the first run for which it is kept
    for place, ticket in enumerate(waiting, 1):
        need = scheduling.clip(ticket.need, capacity)
        here = Waiting(place, len(waiting), need)
        if ticket.not_before > now:  # the policy passes it over for now
            found.append(here._replace(not_before=ticket.not_before))
            continue
        short = scheduling.lacking(need, left)
        held = scheduling.lacking(need, free)
        holders = [one.run for one in active if any(getattr(one.need, resource) for resource in held)]
        keepers = dict.fromkeys(first[resource] for resource in short if resource not in held)
        found.append(here._replace(lacking=short, held_by=tuple(holders), kept_for=tuple(keepers)))
        left = scheduling.reserve(left, need) if short else scheduling.less(left, need)
        for resource in Need._fields:
            if getattr(need, resource):
                first.setdefault(resource, ticket.run)
    return found


def amount(need: Need, resource: str) -> str:
    """How much of a resource is needed, in words: "1 CPU", "8 GiB of memory"."""
    much = getattr(need, resource)
    if resource == "memory":
        return f"{size(much)} of memory"
    return f"{much:g} CPU{'' if much == 1 else 's'}"


def size(count: float) -> str:
    """A number of bytes in words, to three digits: "512 MiB", "1.5 GiB"."""
    units = iter(("bytes", "KiB", "MiB", "GiB", "TiB"))
    unit = next(units)
    while count >= 999.5 and unit != "TiB":
        count, unit = count / 1024, next(units)
    return f"{count:.3g} {unit}"


def ordinal(number: int) -> str:
    """ "1st", "2nd", "11th"."""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if number % 100 in (11, 12, 13) else ending}"


def _names(names: Sequence[str]) -> str:
    rest = len(names) - _NAMED
    return ", ".join(names) if rest <= 0 else f"{', '.join(names[:_NAMED])} and {rest} more"
