"""What starts next, as tables: who waits, what is free, who starts."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

import pytest

from localrun.engine.scheduling.plan import Start, plan
from localrun.engine.scheduling.room import Room, clip, fits, free, lacking, least
from localrun.engine.scheduling.ticket import Need, Ticket

GB = 1 << 30
MACHINE = Need(4, 16 * GB)


def ticket(name: str, cpus: float, memory: int = 0) -> Ticket:
    return Ticket(f"1-{name}", "uid", name, f"/runs/{name}", "", "environment", Need(cpus, memory))


NOTHING = Need(0, 0)


def choose(waiting: Iterable[Ticket], available: Need, capacity: Need, smallest: Need = NOTHING) -> list[Start]:
    return plan(waiting, Room(available), capacity, smallest=smallest).starts


def chosen(waiting: list[tuple[str, float, int]], available: Need, capacity: Need = MACHINE) -> str:
    return " ".join(each.ticket.run for each in choose([ticket(*one) for one in waiting], available, capacity))


@pytest.mark.parametrize(
    ("waiting", "available", "starts"),
    [
        # Nothing to do.
        ([], MACHINE, ""),
        ([("a", 1, 0)], Need(0, 16 * GB), ""),
        # In order, as many as fit.
        ([("a", 1, 0), ("b", 1, 0), ("c", 1, 0)], Need(2, GB), "a b"),
        ([("a", 4, 0), ("b", 1, 0)], MACHINE, "a"),
        # A big one that waits for CPUs keeps every CPU from those behind it...
        ([("big", 4, 0), ("small", 1, 0)], Need(3, 16 * GB), ""),
        ([("a", 1, 0), ("big", 4, 0), ("small", 1, 0)], Need(3, 16 * GB), "a"),
        # ...but nothing that it doesn't wait for.
        ([("big", 4, 0), ("idle", 0, 0)], Need(3, 16 * GB), "idle"),
        ([("big", 4, 0), ("idle", 0, 2 * GB)], Need(3, 16 * GB), "idle"),
        # One that lacks memory alone leaves the CPUs that it won't take itself.
        ([("fat", 1, 16 * GB), ("small", 1, 0)], Need(4, 8 * GB), "small"),
        ([("fat", 3, 16 * GB), ("small", 1, 0), ("other", 1, 0)], Need(4, 8 * GB), "small"),
        ([("fat", 4, 16 * GB), ("small", 1, 0)], Need(4, 8 * GB), ""),
        # What it takes of the rest is kept for it, so memory stays for those who need little.
        ([("fat", 1, 16 * GB), ("small", 1, GB)], Need(4, 8 * GB), ""),
        ([("big", 4, 6 * GB), ("idle", 0, 2 * GB)], Need(3, 8 * GB), "idle"),
        ([("big", 4, 6 * GB), ("idle", 0, 3 * GB)], Need(3, 8 * GB), ""),
        # Two that wait for different things.
        ([("big", 4, 0), ("fat", 0, 16 * GB), ("small", 1, GB), ("idle", 0, 0)], Need(3, 8 * GB), "idle"),
        # Fractions add up, without a rounding error's worth of starvation.
        ([(str(i), 0.1, 0) for i in range(11)], Need(1, GB), "0 1 2 3 4 5 6 7 8 9"),
        ([("a", 0.5, 0), ("b", 0.6, 0), ("c", 0.5, 0)], Need(1, GB), "a"),
        ([("a", 1 / 3, 0), ("b", 1 / 3, 0), ("c", 1 / 3, 0)], Need(1, GB), "a b c"),
        # A need of nothing always fits, even where the machine is overbooked.
        ([("idle", 0, 0)], Need(-2, -GB), "idle"),
        ([("idle", 0, 0), ("a", 0.1, 0)], Need(-2, -GB), "idle"),
    ],
)
def test_who_starts(waiting: list[tuple[str, float, int]], available: Need, starts: str) -> None:
    assert chosen(waiting, available) == starts


def test_a_run_that_is_larger_than_the_machine_by_now_starts_once_it_is_alone() -> None:
    assert chosen([("a", 8, 64 * GB)], MACHINE) == "a"
    assert chosen([("a", 8, 64 * GB), ("b", 1, 0)], Need(3, 16 * GB)) == ""
    assert clip(Need(8, 64 * GB), MACHINE) == MACHINE
    assert clip(Need(0.5, 0), MACHINE) == Need(0.5, 0)


def test_free_counts_active_runs_as_they_were_clipped() -> None:
    assert free(MACHINE, []) == MACHINE
    assert free(MACHINE, [ticket("a", 1.5, GB), ticket("b", 0, GB)]) == Need(2.5, 14 * GB)
    assert free(MACHINE, [ticket("a", 8, 0)]) == Need(0, 16 * GB)
    assert free(MACHINE, [ticket("a", 4, 0), ticket("b", 1, 0)]).cpus == -1


def test_lacking_names_the_resources() -> None:
    assert lacking(Need(1, GB), Need(0, 0)) == ("cpus", "memory")
    assert lacking(Need(1, 0), Need(0, 0)) == ("cpus",)
    assert lacking(Need(0, 0), Need(-1, -1)) == ()
    assert fits(Need(1, GB), Need(1, GB))
    assert not fits(Need(1.1, 0), Need(1, GB))


def test_the_lower_bound_cuts_a_long_queue_short_and_changes_nothing() -> None:
    looked_at = []

    def waiting() -> Iterator[Ticket]:
        for i in range(1000):
            looked_at.append(i)
            yield ticket(str(i), 1, GB)

    assert [each.ticket.run for each in choose(waiting(), Need(2, 16 * GB), MACHINE, Need(1, GB))] == ["0", "1"]
    assert len(looked_at) == 3
    assert least(Need(1, 5), Need(2, 3)) == Need(1, 3)


def test_whatever_the_queue_nothing_is_overbooked_and_nobody_is_delayed_by_those_behind() -> None:
    random_ = random.Random(20240611)
    for _ in range(500):
        waiting = [
            ticket(f"{i:03}", random_.choice([0, 0.25, 0.5, 1, 2, 4, 8]), random_.choice([0, 0, GB, 4 * GB, 20 * GB]))
            for i in range(random_.randrange(12))
        ]
        available = Need(random_.choice([0, 0.5, 1, 2, 4]), random_.choice([0, GB, 8 * GB, 16 * GB]))
        smallest = Need(0, 0)
        if waiting:
            needs = [clip(each.need, MACHINE) for each in waiting]
            smallest = Need(min(need.cpus for need in needs), min(need.memory for need in needs))
        starting = [each.ticket for each in choose(waiting, available, MACHINE)]
        assert starting == [each.ticket for each in choose(waiting, available, MACHINE, smallest)]
        assert sum(clip(each.need, MACHINE).cpus for each in starting) <= available.cpus + 1e-6
        assert sum(clip(each.need, MACHINE).memory for each in starting) <= available.memory
        first_left = next((each for each in waiting if each not in starting), None)
        if first_left is not None:
            # Were the later ones not started, the first that waits could not start either: none took what it lacks.
            ahead = [each for each in starting if each.run < first_left.run]
            left = free(MACHINE, ahead)
            left = Need(left.cpus - (MACHINE.cpus - available.cpus), left.memory - (MACHINE.memory - available.memory))
            missing = lacking(clip(first_left.need, MACHINE), left)
            assert missing
            for resource in missing:
                behind = [each for each in starting if each.run > first_left.run]
                assert all(getattr(each.need, resource) == 0 for each in behind)
