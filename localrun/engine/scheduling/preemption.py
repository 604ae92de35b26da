"""Which active runs make way for one that is ahead of them: a pure function.

The fewest, and of sets of as few those that started last, compared by their youngest first. Every set of that size is
tried as long as there are not absurdly many; beyond that, the youngest that do, less those it can do without.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from localrun.engine.scheduling import placement
from localrun.engine.scheduling.room import Active, Room, clip, lacking
from localrun.engine.scheduling.ticket import Need, Ticket
from localrun.tuples import NamedTuple

_MOST_SETS = 50_000
_ROUNDING = 1e-6


class _Lack(NamedTuple):
    """How much of a resource a run lacks, and how much each candidate has of it."""

    amount: float
    held: list[float]

    def at_least(self) -> int:
        """How many it takes, as if the largest holders were free to be chosen."""
        sums = itertools.accumulate(sorted(self.held, reverse=True))
        return next((count for count, held in enumerate(sums, 1) if held >= self.amount - _ROUNDING), len(self.held))

    def is_made_up_by(self, chosen: Iterable[int]) -> bool:
        return sum(self.held[index] for index in chosen) >= self.amount - _ROUNDING


def cheapest(ticket: Ticket, room: Room, candidates: Iterable[Active], capacity: Need) -> list[Active]:
    """The candidates to stop so that the run can start in the room they leave; none if that isn't enough."""
    youngest = sorted(candidates, key=lambda run: run.since, reverse=True)
    if not _starts(ticket, room, youngest, capacity):
        return []
    lacks = _lacks(ticket, room, youngest, capacity)
    fewest = max((lack.at_least() for lack in lacks), default=1)
    for chosen in itertools.islice(_sets(len(youngest), fewest), _MOST_SETS):
        runs = [youngest[index] for index in chosen]
        if all(lack.is_made_up_by(chosen) for lack in lacks) and _starts(ticket, room, runs, capacity):
            return runs
    return _dispensed(ticket, room, youngest, capacity)


def _starts(ticket: Ticket, room: Room, gone: Iterable[Active], capacity: Need) -> bool:
    return room.more(gone, capacity).place(ticket, capacity) is not None


def _sets(count: int, fewest: int) -> Iterator[tuple[int, ...]]:
    for size in range(fewest, count + 1):
        yield from itertools.combinations(range(count), size)


def _lacks(ticket: Ticket, room: Room, candidates: Sequence[Active], capacity: Need) -> list[_Lack]:
    """What must be made up for; necessary, and for CPUs and memory enough."""
    needs, need = [clip(run.ticket.need, capacity) for run in candidates], clip(ticket.need, capacity)
    found = [
        _Lack(getattr(need, resource) - getattr(room.left, resource), [getattr(each, resource) for each in needs])
        for resource in lacking(need, room.left)
    ]
    if ticket.gpus.number and placement.choose(ticket.gpus, room.slots) is None:
        fitting = {gpu.uuid for gpu in placement.suitable(ticket.gpus, (slot.gpu for slot in room.slots))}
        there = len(placement.suitable(ticket.gpus, (slot.gpu for slot in room.slots if slot.is_for(ticket.gpus))))
        held: list[float] = [len(fitting.intersection(run.gpus)) for run in candidates]
        found.append(_Lack(ticket.gpus.number - there, held))
    return found


def _dispensed(ticket: Ticket, room: Room, youngest: Sequence[Active], capacity: Need) -> list[Active]:
    """The youngest that are enough together, without those of them that aren't needed, oldest first."""
    count = next(n for n in range(1, len(youngest) + 1) if _starts(ticket, room, youngest[:n], capacity))
    chosen = list(youngest[:count])
    for run in reversed(youngest[:count]):
        rest = [each for each in chosen if each is not run]
        if _starts(ticket, room, rest, capacity):
            chosen = rest
    return chosen
