"""The resources of the machine as scheduling counts them: what a run needs of them, and what is left beside others."""

from __future__ import annotations

from collections.abc import Iterable

from localrun.engine.scheduling import placement
from localrun.engine.scheduling.placement import Slot, Use
from localrun.engine.scheduling.ticket import Need, Ticket
from localrun.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from localrun.engine.gpus.inventory import Gpu

# Fractions of CPUs are added up and taken off again; the sum may miss by a rounding error.
_ROUNDING = 1e-6
NEVER = float("inf")


class Active(NamedTuple):
    """A run that has resources: the uuids of its GPUs, since when, in seconds since the epoch, whether it is ending."""

    ticket: Ticket
    gpus: tuple[str, ...] = ()
    since: float = 0.0
    is_ending: bool = False

    def ends_at(self) -> float:
        """When its time limit has it gone; infinite without one."""
        limit = self.ticket.limit()
        return NEVER if limit is None else (self.ticket.first_started or self.since) + limit


class Room(NamedTuple):
    """What there is for runs to start in: CPUs, memory, and the GPUs with what they are used for."""

    left: Need
    slots: tuple[Slot, ...] = ()

    def lacks(self, ticket: Ticket, capacity: Need) -> bool:
        """True if there is not enough CPU or memory left for a run."""
        return bool(lacking(clip(ticket.need, capacity), self.left))

    def place(self, ticket: Ticket, capacity: Need) -> tuple[Gpu, ...] | None:
        """The GPUs with which a run can start in here; None if it can't."""
        if self.lacks(ticket, capacity):
            return None
        return placement.choose(ticket.gpus, self.slots)

    def less(self, ticket: Ticket, gpus: Iterable[Gpu], capacity: Need) -> Room:
        """What is left once a run has started with these GPUs."""
        return Room(less(self.left, clip(ticket.need, capacity)), placement.without(self.slots, gpus))

    def reserved(self, ticket: Ticket, capacity: Need) -> Room:
        """What is left for later runs while one waits: nothing of what it lacks, and not what it will take besides."""
        gpus = placement.choose(ticket.gpus, self.slots)
        kept = placement.kept_for(ticket.gpus, self.slots) if gpus is None else gpus
        slots = placement.without(self.slots, kept) if kept else self.slots
        return Room(reserve(self.left, clip(ticket.need, capacity)), slots)

    def more(self, runs: Iterable[Active], capacity: Need) -> Room:
        """What there is once these runs are gone."""
        left, freed = self.left, set[str]()
        for run in runs:
            need = clip(run.ticket.need, capacity)
            left = Need(left.cpus + need.cpus, left.memory + need.memory)
            freed.update(run.gpus)
        come = [slot.use is Use.OURS and slot.gpu.uuid in freed for slot in self.slots]
        slots = (Slot(slot.gpu, Use.FREE) if comes else slot for slot, comes in zip(self.slots, come, strict=True))
        return Room(left, tuple(slots))

    def closed(self, ticket: Ticket, capacity: Need) -> Room:
        """The room without any hope of what this run lacks, whoever else may end."""
        need = clip(ticket.need, capacity)
        short, rest = lacking(need, self.left), less(self.left, need)
        left = Need(-NEVER if "cpus" in short else rest.cpus, -NEVER if "memory" in short else rest.memory)  # type: ignore[arg-type]
        gpus = placement.choose(ticket.gpus, self.slots)
        if gpus is not None:
            return Room(left, placement.without(self.slots, gpus))
        lost = set(placement.suitable(ticket.gpus, (slot.gpu for slot in self.slots)))
        return Room(left, tuple(Slot(slot.gpu, Use.THEIRS) if slot.gpu in lost else slot for slot in self.slots))


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
