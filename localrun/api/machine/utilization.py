"""What the machine is at work on, what waits, and why: the policy of `scheduling`, put in words for people.

`explain` goes through the queue's tickets as the policy does, and asks of each what it lacks and who has that.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from localrun import settings
from localrun.engine.dispatch import dependencies
from localrun.engine.dispatch.capacity import capacity
from localrun.engine.dispatch.dependencies import Verdict
from localrun.engine.queue import ACTIVE, WAITING, Queue
from localrun.engine.scheduling import placement, room
from localrun.engine.scheduling.placement import GpuNeed, Slot, Use
from localrun.engine.scheduling.ticket import Dependency, Need, Ticket
from localrun.errors import LocalrunError
from localrun.model import record as records
from localrun.model.folder import RunFolder
from localrun.model.sizes import size

if TYPE_CHECKING:
    from localrun.api.run import Run

_PATIENCE_S = 1.0
_NAMED = 3  # so many runs are named in a sentence, the others counted


class Waiting(NamedTuple):
    """Where a run stands in the queue (``position`` counts from 1) and what keeps it there; as text, a sentence of it.

    ``lacking`` names the resources of ``needs`` that are not free; ``held_by`` are the active runs that have them, and
    ``kept_for`` the first of the runs ahead for which what is free of them is kept. ``not_before`` is the time, in
    seconds since the epoch, until which a retry is delayed, ``after`` what must be over before, ``gpus`` what keeps it
    from GPUs. With nothing of these it is about to start. ``making_way`` are active runs that are stopped for it.
    """

    position: int
    total: int
    needs: Need
    lacking: tuple[str, ...] = ()
    held_by: tuple[str, ...] = ()
    kept_for: tuple[str, ...] = ()
    not_before: float | None = None
    gpus: str | None = None
    after: tuple[str, ...] = ()
    making_way: tuple[str, ...] = ()

    @property
    def about_to_start(self) -> bool:
        """True if nothing keeps it waiting but the moment that a start takes."""
        return not (self.lacking or self.not_before or self.gpus or self.after)

    def __str__(self) -> str:
        place = f"{ordinal(self.position)} of {self.total}"
        if self.not_before is not None:
            return f"{place}, is tried again at {time.strftime('%H:%M:%S', time.localtime(self.not_before))}"
        if self.after:
            return f"{place}, starts after {_names(self.after)}"
        if self.about_to_start:
            return f"{place}, about to start"
        wanted = " and ".join(
            [*([self.gpus] if self.gpus else []), *(amount(self.needs, resource) for resource in self.lacking)]
        )
        holders = [f"held by {_names(self.held_by)}"] if self.held_by else []
        if self.kept_for:
            holders.append(f"kept for {_names(self.kept_for)}, ahead of it")
        text = " ".join([f"{place}, waits for {wanted}", " and ".join(holders)]).rstrip()
        if self.making_way:
            text += f"; {_names(self.making_way)} make{'s' * (len(self.making_way) == 1)} way for it"
        return text


class Utilization(NamedTuple):
    """What the machine has, what active runs use of it, and who they and the waiting ones are, in queue order.

    ``gpus`` are those that localrun manages, or why they can't be known.
    """

    capacity: Need
    used: Need
    gpus: list[Slot] | str
    active: list[Ticket]
    queued: list[tuple[Ticket, Waiting]]


def utilization() -> Utilization:
    """The machine as it is now."""
    queue = Queue(settings.home())
    has, active, waiting = capacity(), queue.tickets(ACTIVE), queue.tickets(WAITING)
    free = room.free(has, active)
    used = Need(has.cpus - free.cpus, has.memory - free.memory)
    leaving = _making_way(active)
    slots = _slots(active)
    reasons = explain(waiting, active, has, time.time(), slots)
    managed = GpuNeed(among=settings.managed_gpus())
    gpus = slots if isinstance(slots, str) else [slot for slot in slots if placement.suitable(managed, [slot.gpu])]
    queued = [
        (ticket, why._replace(making_way=leaving.get(ticket.run, ())))
        for ticket, why in zip(waiting, reasons, strict=True)
    ]
    return Utilization(has, used, gpus, active, queued)


def why_waiting(run: Run) -> Waiting | None:
    """Why a run is still queued; None if it isn't in the queue (any more)."""
    queue = run._queue
    waiting = queue.tickets(WAITING)
    place = next((index for index, ticket in enumerate(waiting) if ticket.uid == run.run_uid), None)
    if place is None:
        return None
    these, active = waiting[: place + 1], queue.tickets(ACTIVE)
    # What those ahead need of GPUs keeps nothing from a run that needs none: no driver is waited for.
    slots = _slots(active) if waiting[place].gpus.number else {}
    why = explain(these, active, capacity(), time.time(), slots)[place]
    return why._replace(total=len(waiting), making_way=_making_way(active).get(waiting[place].run, ()))


def _making_way(active: Sequence[Ticket]) -> dict[str, tuple[str, ...]]:
    """The active runs that are being stopped for the sake of a waiting one, by that one's name."""
    found: dict[str, tuple[str, ...]] = {}
    for ticket in active:
        try:
            asked = records.read(RunFolder(ticket.folder))["preempt_requested"]
        except LocalrunError:
            continue
        if asked is not None:
            found[asked["ahead"]] = (*found.get(asked["ahead"], ()), ticket.run)
    return found


def _slots(active: Sequence[Ticket]) -> dict[Slot, str] | str:
    """The GPUs, each with the run of ours that has it ("" if none has), or why they can't be known."""
    from localrun.engine.gpus.gpuwatch import slots_of
    from localrun.engine.gpus.probe import ask

    owners: dict[str, str] = {}
    for ticket in active:
        try:
            record = records.read(RunFolder(ticket.folder))
        except LocalrunError:
            continue
        owners |= {gpu["uuid"]: ticket.run for gpu in record["gpus"]}
    there = ask(_PATIENCE_S)
    if there.problem is not None:
        return there.problem
    return {slot: owners.get(slot.gpu.uuid, "") for slot in slots_of(there, owners)}


def _gpus(need: GpuNeed, slots: dict[Slot, str], kept: dict[str, str]) -> str | None:
    """What keeps a run from its GPUs, in words; None if it can have them. ``kept``: uuid → the run it is kept for."""
    left = [slot for slot in slots if slot.gpu.uuid not in kept]
    if placement.choose(need, left) is not None:
        return None
    fitting = {gpu.uuid for gpu in placement.suitable(need, (slot.gpu for slot in slots))}
    mine = [slot for slot in slots if slot.gpu.uuid in fitting]
    free = sum(slot.is_for(need) and slot.gpu.uuid not in kept for slot in mine)
    why = [f"{free} of {len(mine)} free"]
    holders = dict.fromkeys(name for slot, name in slots.items() if slot in mine and name)
    keepers = dict.fromkeys(kept[slot.gpu.uuid] for slot in mine if slot.is_for(need) and slot.gpu.uuid in kept)
    why += [f"held by {_names(list(holders))}"] if holders else []
    why += [f"kept for {_names(list(keepers))}, ahead of it"] if keepers else []
    theirs = sum(slot.use is Use.THEIRS for slot in mine)
    foreign = sum(slot.use is Use.FOREIGN and not need.shared for slot in mine)
    why += [f"{theirs} leased by other users' runs"] if theirs else []
    why += [f"{foreign} used by processes that are no runs (see 'localrun gpus')"] if foreign else []
    broken = sum(slot.use is Use.BROKEN for slot in mine)
    why += [f"{broken} unusable (see 'localrun gpus')"] if broken else []
    return f"{need} ({', '.join(why)})"


def explain(
    waiting: Sequence[Ticket],
    active: Sequence[Ticket],
    capacity: Need,
    now: float,
    slots: dict[Slot, str] | str = "",
) -> list[Waiting]:
    """For each waiting run, in scheduling order, what keeps it waiting.

    ``slots`` are the GPUs with the names of the runs that have them, or why they can't be known.
    """
    gpus_kept: dict[str, str] = {}
    free = left = room.free(capacity, active)
    found: list[Waiting] = []
    first: dict[str, str] = {}  # resource → the first run for which it is kept
    for place, ticket in enumerate(waiting, 1):
        need = room.clip(ticket.need, capacity)
        here = Waiting(place, len(waiting), need)
        open_ones = tuple(why for each in ticket.after for why in _open(each))
        if ticket.not_before > now or open_ones:  # the policy passes it over for now
            delayed = ticket.not_before if ticket.not_before > now else None
            found.append(here._replace(not_before=delayed, after=open_ones))
            continue
        short = room.lacking(need, left)
        held = room.lacking(need, free)
        holders = [one.run for one in active if any(getattr(one.need, resource) for resource in held)]
        keepers = dict.fromkeys(first[resource] for resource in short if resource not in held)
        gpus = None
        if ticket.gpus.number and isinstance(slots, str):
            gpus = f"{ticket.gpus} ({slots})"
        elif ticket.gpus.number and not isinstance(slots, str):
            gpus = _gpus(ticket.gpus, slots, gpus_kept)
            left_gpus = [slot for slot in slots if slot.gpu.uuid not in gpus_kept]
            if gpus is None or placement.can_come_free(ticket.gpus, list(slots)):
                chosen = placement.choose(ticket.gpus, left_gpus) or placement.kept_for(ticket.gpus, left_gpus)
                gpus_kept |= {gpu.uuid: ticket.run for gpu in chosen}
        found.append(here._replace(lacking=short, held_by=tuple(holders), kept_for=tuple(keepers), gpus=gpus))
        left = room.reserve(left, need) if short else room.less(left, need)
        for resource in Need._fields:
            if getattr(need, resource):
                first.setdefault(resource, ticket.run)
    return found


def _open(dependency: Dependency) -> list[str]:
    """What must be over before a run starts, in words, unless it is."""
    verdict, why = dependencies.judge(dependency)
    end = "ended" if dependency.any_end else "completed"
    return [] if verdict is Verdict.MET else [f"{dependency.name} has {end} ({why})"]


def amount(need: Need, resource: str) -> str:
    """How much of a resource is needed, in words: "1 CPU", "8 GiB of memory"."""
    much = getattr(need, resource)
    if resource == "memory":
        return f"{size(much)} of memory"
    return f"{much:g} CPU{'' if much == 1 else 's'}"


def ordinal(number: int) -> str:
    """ "1st", "2nd", "11th"."""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if number % 100 in (11, 12, 13) else ending}"


def _names(names: Sequence[str]) -> str:
    rest = len(names) - _NAMED
    return ", ".join(names) if rest <= 0 else f"{', '.join(names[:_NAMED])} and {rest} more"
