"""Which active runs make way for one that is ahead of them: a pure function.

The fewest, and of sets of as few those that started last, compared by their youngest first. Every set of that size is
tried as long as there are not absurdly many; beyond that, the youngest that do, less those it can do without.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from localrun.engine import placement
from localrun.engine.queue import Need, Ticket
from localrun.engine.room import Active, Room, clip, lacking

_MOST_SETS = 5000


def cheapest(ticket: Ticket, room: Room, candidates: Iterable[Active], capacity: Need) -> list[Active]:
    """The candidates to stop so that the run can start in the room they leave; none if that isn't enough."""
    youngest = sorted(candidates, key=lambda run: run.since, reverse=True)
    if not _starts(ticket, room, youngest, capacity):
        return []
    sets = _sets(youngest, _fewest(ticket, room, youngest, capacity))
    for chosen in itertools.islice(sets, _MOST_SETS):
        if _starts(ticket, room, chosen, capacity):
            return list(chosen)
    return _dispensed(ticket, room, youngest, capacity)


def _starts(ticket: Ticket, room: Room, gone: Iterable[Active], capacity: Need) -> bool:
    return room.more(gone, capacity).place(ticket, capacity) is not None


def _sets(youngest: Sequence[Active], fewest: int) -> Iterator[tuple[Active, ...]]:
    for count in range(fewest, len(youngest) + 1):
        yield from itertools.combinations(youngest, count)


def _fewest(ticket: Ticket, room: Room, candidates: Sequence[Active], capacity: Need) -> int:
    """A lower bound of how many it takes: as if the largest holders of each resource were all it took."""
    needs, need = [clip(run.ticket.need, capacity) for run in candidates], clip(ticket.need, capacity)
    bounds = [1]
    for resource in lacking(need, room.left):
        lack = getattr(need, resource) - getattr(room.left, resource)
        bounds.append(_count([getattr(each, resource) for each in needs], lack))
    if ticket.gpus.number and placement.choose(ticket.gpus, room.slots) is None:
        fitting = {gpu.uuid for gpu in placement.suitable(ticket.gpus, (slot.gpu for slot in room.slots))}
        there = len(placement.suitable(ticket.gpus, (slot.gpu for slot in room.slots if slot.is_for(ticket.gpus))))
        bounds.append(_count([len(fitting.intersection(run.gpus)) for run in candidates], ticket.gpus.number - there))
    return max(bounds)


def _count(amounts: Iterable[float], lack: float) -> int:
    """How many of the largest amounts it takes to make up for a lack, rounding errors aside."""
    ordered = sorted(amounts, reverse=True)
    sums = itertools.accumulate(ordered)
    return next((count for count, amount in enumerate(sums, 1) if amount >= lack - 1e-6), len(ordered))


def _dispensed(ticket: Ticket, room: Room, youngest: Sequence[Active], capacity: Need) -> list[Active]:
    """The youngest that are enough together, without those of them that aren't needed, oldest first."""
    count = next(n for n in range(1, len(youngest) + 1) if _starts(ticket, room, youngest[:n], capacity))
    chosen = list(youngest[:count])
    for run in reversed(youngest[:count]):
        rest = [each for each in chosen if each is not run]
        if _starts(ticket, room, rest, capacity):
            chosen = rest
    return chosen
