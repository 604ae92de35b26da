"""What starts next: a pure function of who waits, what is free, and nothing else.

Runs are taken in the order of their tickets. One that can't start yet keeps for itself what it waits for and what it
will need besides, so that no later run delays it; a later run may use the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from localrun.engine import placement
from localrun.engine.placement import GpuNeed, Slot
from localrun.engine.queue import Need, Ticket
from localrun.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from localrun.engine.gpus import Gpu

# Fractions of CPUs are added up and taken off again; the sum may miss by a rounding error.
_ROUNDING = 1e-6
_NOTHING = Need(0, 0)


def clip(need: Need, capacity: Need) -> Need:
    """A need that this machine can meet: an accepted run starts alone if the machine has shrunk since, never never."""
    return Need(min(need.cpus, capacity.cpus), min(need.memory, capacity.memory))


def free(capacity: Need, active: Iterable[Ticket]) -> Need:
    """What is left of the capacity beside the active runs; negative if the machine has shrunk."""
    cpus, memory = capacity
    for ticket in active:
        need = clip(ticket.need, capacity)
        cpus -= need.cpus
        memory -= need.memory
    return Need(cpus, memory)


class Start(NamedTuple):
    """A run that starts, and the GPUs it gets."""

    ticket: Ticket
    gpus: tuple[Gpu, ...] = ()


def choose(
    waiting: Iterable[Ticket],
    available: Need,
    capacity: Need,
    smallest: Need = _NOTHING,
    slots: Sequence[Slot] = (),
) -> list[Start]:
    """The waiting runs that start now, in order. ``waiting`` is in scheduling order.

    ``smallest`` is a lower bound of all their needs: a long queue isn't gone through when not even that fits.
    ``slots`` are the GPUs. A run that waits for GPUs of which it would not have enough if all other runs of this queue
    ended (others have them, or they are lost) keeps nothing from anybody.
    """
    starting = []
    choices: dict[GpuNeed, tuple[Gpu, ...] | None] = {}
    for ticket in waiting:
        if lacking(smallest, available):
            break
        if ticket.gpus not in choices:
            choices[ticket.gpus] = placement.choose(ticket.gpus, slots)
        need, gpus = clip(ticket.need, capacity), choices[ticket.gpus]
        if gpus is None and not placement.can_come_free(ticket.gpus, slots):
            continue
        if gpus is not None and fits(need, available):
            starting.append(Start(ticket, gpus))
            available = less(available, need)
        else:
            available = reserve(available, need)
        kept = placement.kept_for(ticket.gpus, slots) if gpus is None else gpus
        if kept:
            slots = placement.without(slots, kept)
            choices.clear()
    return starting


def least(one: Need, other: Need) -> Need:
    """The lower bound of two needs."""
    return Need(min(one.cpus, other.cpus), min(one.memory, other.memory))


def fits(need: Need, available: Need) -> bool:
    """True if a run with that need can start beside what is running. A need of 0 always fits."""
    return not lacking(need, available)


def lacking(need: Need, available: Need) -> tuple[str, ...]:
    """The resources of which a need asks more than there is."""
    return tuple(
        name
        for name, asked, there in zip(Need._fields, need, available, strict=True)
        if asked > 0 and asked > there + _ROUNDING
    )


def less(available: Need, need: Need) -> Need:
    """What is left for later runs once this one has started."""
    return Need(available.cpus - need.cpus, available.memory - need.memory)


def reserve(available: Need, need: Need) -> Need:
    """What is left for later runs: nothing of what this one lacks, and not what it will take of the rest."""
    short = lacking(need, available)
    rest = less(available, need)
    return Need(
        cpus=min(available.cpus, 0) if "cpus" in short else rest.cpus,
        memory=min(available.memory, 0) if "memory" in short else rest.memory,
    )
