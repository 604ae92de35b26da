"""What starts next, and what makes way for it: a pure function of who waits, who is active, and what there is.

Runs are taken in the order of their tickets. One that can't start yet keeps for itself what it waits for and what it
will need besides, so that no later run delays it. A later run may use the rest; and what is kept too, if its time limit
says that it will be over before any of those ahead could start (backfill; limits are taken for estimates).
If active runs of lower priority that may be preempted have what a run waits for, some of them are.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

from localrun.engine.scheduling import placement, preemption
from localrun.engine.scheduling.placement import GpuNeed
from localrun.engine.scheduling.room import NEVER, Active, Room, fits
from localrun.engine.scheduling.ticket import Need, Ticket
from localrun.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from localrun.engine.gpus.inventory import Gpu

_NOTHING = Need(0, 0)


class Start(NamedTuple):
    """A run that starts, and the GPUs it gets."""

    ticket: Ticket
    gpus: tuple[Gpu, ...] = ()


class Plan(NamedTuple):
    """The runs that start now, in order, and those that are to make way, each for one that can't start before."""

    starts: list[Start]
    victims: list[tuple[Active, Ticket]]


def plan(
    waiting: Iterable[Ticket],
    room: Room,
    capacity: Need,
    active: Iterable[Active] = (),
    *,
    unseen: Container[str] = (),
    smallest: Need = _NOTHING,
    now: float = 0.0,
) -> Plan:
    """What to do with the ``waiting`` runs, which are in scheduling order, given the ``room`` beside the active ones.

    Tickets with a name in ``unseen`` wait for news of the GPUs: they don't start, but keep what they need besides.
    ``smallest`` is a lower bound of all needs: a long queue isn't gone through when not even that fits.
    ``now`` is in seconds since the epoch. A run that waits for GPUs of which it would not have enough if all other
    runs of this queue ended (others have them, or they are lost) keeps nothing from anybody.
    """
    planner = _Planner(room, capacity, active, now)
    for ticket in waiting:
        if planner.is_full(smallest, ticket):
            break
        planner.consider(ticket, is_seen=ticket.name not in unseen)
    return Plan(planner.starts, planner.victims)


class _Planner:
    """The walk along the queue. ``free`` is what is there, ``open`` what of it is kept for nobody, ``later`` what there
    will be when those that end have ended, less what those ahead take of that."""

    def __init__(self, room: Room, capacity: Need, active: Iterable[Active], now: float) -> None:
        self.starts: list[Start] = []
        self.victims: list[tuple[Active, Ticket]] = []
        self._capacity = capacity
        self._now = now
        self._active = list(active)
        self._free = self._open = room
        self._later = room.more((run for run in self._active if run.is_ending), capacity)
        self._count_on([run for run in self._active if run.ticket.preemptible and not run.is_ending])
        self._first_at = NEVER  # the earliest at which one of those ahead that wait could start
        self._shadows: dict[tuple[Need, GpuNeed], float] = {}
        self._places: dict[GpuNeed, tuple[Gpu, ...] | None] = {}

    def is_full(self, smallest: Need, ticket: Ticket) -> bool:
        """True if nothing can come of this run nor of those behind it."""
        may_backfill = self._now < self._first_at < NEVER and fits(smallest, self._free.left)
        may_preempt = ticket.rank < self._lowest and fits(smallest, self._hope)
        return not (may_backfill or may_preempt or fits(smallest, self._open.left))

    def consider(self, ticket: Ticket, *, is_seen: bool) -> None:
        """Start a run, or keep for it what it needs, and see who may make way for it."""
        gpus = self._place(ticket) if is_seen else None
        if gpus is None and not placement.can_come_free(ticket.gpus, self._open.slots):
            return
        if gpus is None and is_seen:
            gpus = self._backfill(ticket)
        if gpus is not None:
            self._start(ticket, gpus)
            return
        self._first_at = min(self._first_at, self._shadow(ticket))
        slots, self._open = self._open.slots, self._open.reserved(ticket, self._capacity)
        if self._open.slots is not slots:
            self._places.clear()
        if ticket.rank < self._lowest and is_seen:
            self._make_way(ticket)

    def _place(self, ticket: Ticket) -> tuple[Gpu, ...] | None:
        """The GPUs for a run that starts without keeping anything from those ahead."""
        if ticket.gpus not in self._places:
            self._places[ticket.gpus] = placement.choose(ticket.gpus, self._open.slots)
        gpus = self._places[ticket.gpus]
        return None if gpus is None or self._open.lacks(ticket, self._capacity) else gpus

    def _backfill(self, ticket: Ticket) -> tuple[Gpu, ...] | None:
        """The same for one that will be gone before any of those ahead could start."""
        limit = ticket.limit()
        if limit is None or self._now + limit > self._first_at or self._first_at == NEVER:
            return None
        return self._free.place(ticket, self._capacity)

    def _start(self, ticket: Ticket, gpus: tuple[Gpu, ...]) -> None:
        self.starts.append(Start(ticket, gpus))
        self._active.append(Active(ticket, tuple(gpu.uuid for gpu in gpus), self._now))
        self._free = self._free.less(ticket, gpus, self._capacity)
        self._open = self._open.less(ticket, gpus, self._capacity)
        self._later = self._later.less(ticket, gpus, self._capacity)
        if gpus:
            self._places.clear()

    def _shadow(self, ticket: Ticket) -> float:
        """The earliest at which a run could start if the active ones took their time; minus infinity if nobody knows.

        One without a limit may end at any moment: what waits for it is put off by nobody.
        """
        if self._free.place(ticket, self._capacity) is not None:
            return NEVER  # it waits for those ahead alone
        key = ticket.need, ticket.gpus
        if key not in self._shadows:
            ends = sorted(self._active, key=Active.ends_at)
            gone = (run for count, run in enumerate(ends, 1) if self._starts_without(ticket, ends[:count]))
            last = next(gone, None)
            at = -NEVER if last is None else last.ends_at()
            self._shadows[key] = -NEVER if at == NEVER else at
        return self._shadows[key]

    def _starts_without(self, ticket: Ticket, gone: Iterable[Active]) -> bool:
        return self._free.more(gone, self._capacity).place(ticket, self._capacity) is not None

    def _make_way(self, ticket: Ticket) -> None:
        """Choose who is stopped for a run; nobody if those that end already are enough, or if all were not."""
        gpus, victims = self._later.place(ticket, self._capacity), list[Active]()
        if gpus is None:
            lower = [run for run in self._preemptible if run.ticket.rank > ticket.rank]
            victims = preemption.cheapest(ticket, self._later, lower, self._capacity)
            self.victims += [(run, ticket) for run in victims]
            self._later = self._later.more(victims, self._capacity)
            gpus = self._later.place(ticket, self._capacity)
        if gpus is None:
            self._later = self._later.closed(ticket, self._capacity)
        else:
            self._later = self._later.less(ticket, gpus, self._capacity)
        self._count_on([run for run in self._preemptible if run not in victims])

    def _count_on(self, preemptible: list[Active]) -> None:
        """Note which runs can still be made to make way, and what there would be if all did."""
        self._preemptible = preemptible
        self._lowest = max((run.ticket.rank for run in preemptible), default=0)
        self._hope = self._later.more(preemptible, self._capacity).left
