"""Who makes way, and who may slip in before those ahead: tables of who waits, who is active, and what comes of it."""

from __future__ import annotations

import itertools
import random
import time

import pytest

from localrun.engine.gpus.inventory import Gpu
from localrun.engine.scheduling.placement import GpuNeed, Slot, Use
from localrun.engine.scheduling.plan import Plan, plan
from localrun.engine.scheduling.room import Active, Room, free
from localrun.engine.scheduling.ticket import Need, Ticket

GB = 1 << 30
MACHINE = Need(8, 64 * GB)
RANKS = {"high": 0, "auto": 1, "low": 2, "lowest": 3}
NOW = 1_000_000.0


def ticket(run: str, priority: str = "auto", cpus: float = 0, gpus: int = 0, **fields: object) -> Ticket:
    fields.setdefault("need", Need(cpus, 0))
    name = f"{RANKS[priority]}-{run}"
    return Ticket(name, run, run, f"/{run}", "", "", gpus=GpuNeed(gpus), **fields)  # type: ignore[arg-type]


def active(run: str, since: float, priority: str = "low", gpus: tuple[str, ...] = (), **fields: object) -> Active:
    is_ending = bool(fields.pop("is_ending", False))
    fields.setdefault("preemptible", True)
    return Active(ticket(run, priority, gpus=len(gpus), **fields), gpus, NOW + since, is_ending)  # type: ignore[arg-type]


def slots(there: list[Active], count: int) -> tuple[Slot, ...]:
    taken = {uuid for run in there for uuid in run.gpus}
    gpus = [Gpu(index, f"g{index}", "NVIDIA H100 80GB HBM3", f"0000:{index:02}:00.0") for index in range(count)]
    return tuple(Slot(gpu, Use.OURS if gpu.uuid in taken else Use.FREE) for gpu in gpus)


def planned(waiting: list[Ticket], there: list[Active], gpus: int = 0, machine: Need = MACHINE) -> Plan:
    room = Room(free(machine, [run.ticket for run in there]), slots(there, gpus))
    return plan(sorted(waiting), room, machine, there, now=NOW)


def names(made: Plan) -> tuple[str, str]:
    return " ".join(each.ticket.run for each in made.starts), " ".join(run.ticket.run for run, _ in made.victims)


def cpu(run: str, since: float, cpus: float, priority: str = "low", **fields: object) -> Active:
    return active(run, since, priority, need=Need(cpus, 0), **fields)


FULL = [cpu("a", 1, 2), cpu("b", 2, 2), cpu("c", 3, 2), cpu("d", 4, 2)]


@pytest.mark.parametrize(
    ("waiting", "there", "starts", "victims"),
    [
        # As many as it takes, the youngest of them.
        ([ticket("x", cpus=4)], FULL, "", "d c"),
        ([ticket("x", cpus=1)], FULL, "", "d"),
        ([ticket("x", cpus=8)], FULL, "", "d c b a"),
        # Fewer, though older.
        ([ticket("x", cpus=4)], [cpu("old", 1, 4), cpu("b", 2, 2), cpu("c", 3, 2)], "", "old"),
        ([ticket("x", cpus=2)], [cpu("old", 1, 4), cpu("b", 2, 2), cpu("c", 3, 2)], "", "c"),
        ([ticket("x", cpus=5)], [cpu("a", 1, 4), cpu("b", 2, 2), cpu("c", 3, 1), cpu("d", 4, 1)], "", "d a"),
        # Only of lower priority, and only those that said so.
        ([ticket("x", "low", cpus=2)], FULL, "", ""),
        ([ticket("x", "low", cpus=2)], [cpu("a", 1, 6), cpu("b", 2, 2, "lowest")], "", "b"),
        ([ticket("x", "high", cpus=2)], [cpu("a", 1, 6, "auto"), cpu("b", 2, 2, preemptible=False)], "", "a"),
        ([ticket("x", cpus=4)], [cpu("a", 1, 6, preemptible=False), cpu("b", 2, 2)], "", ""),
        # Nobody, if it can start anyway, if it would not help, or if somebody ends already.
        ([ticket("x", cpus=2)], FULL[:3], "x", ""),
        ([ticket("x", cpus=4)], [*FULL[:2], cpu("c", 3, 2, is_ending=True), cpu("d", 4, 2, is_ending=True)], "", ""),
        ([ticket("x", cpus=4)], [*FULL[:3], cpu("d", 4, 2, is_ending=True)], "", "c"),
        # Each that waits has its own.
        ([ticket("x", cpus=2), ticket("y", cpus=2)], FULL, "", "d c"),
        ([ticket("x", cpus=3), ticket("y", cpus=1)], FULL, "", "d c"),
        # Nobody for one behind another that keeps what would come free.
        ([ticket("big", cpus=8), ticket("y", cpus=2)], [cpu("a", 1, 6, preemptible=False), cpu("b", 2, 2)], "", ""),
        # One that needs nothing of what lacks starts.
        ([ticket("x", cpus=4), ticket("idle")], FULL, "idle", "d c"),
    ],
)
def test_who_makes_way(waiting: list[Ticket], there: list[Active], starts: str, victims: str) -> None:
    assert names(planned(waiting, there)) == (starts, victims)


def gpu(run: str, since: float, *indices: int, **fields: object) -> Active:
    return active(run, since, gpus=tuple(f"g{index}" for index in indices), **fields)


@pytest.mark.parametrize(
    ("waiting", "there", "starts", "victims"),
    [
        ([ticket("x", gpus=2)], [gpu(f"r{i}", i, i) for i in range(8)], "", "r7 r6"),
        ([ticket("x", gpus=2)], [gpu("pair", 1, 0, 1), *[gpu(f"r{i}", i, i) for i in range(2, 8)]], "", "pair"),
        ([ticket("x", gpus=4)], [gpu("pair", 1, 0, 1), *[gpu(f"r{i}", i, i) for i in range(2, 7)]], "", "r6 pair"),
        ([ticket("x", gpus=8)], [gpu("pair", 1, 0, 1)], "", "pair"),
        ([ticket("x", gpus=8)], [gpu("pair", 1, 0, 1), gpu("own", 2, 2, preemptible=False)], "", ""),
        ([ticket("x", gpus=2), ticket("y", gpus=1)], [gpu(f"r{i}", i, i) for i in range(8)], "", "r7 r6 r5"),
    ],
)
def test_who_makes_way_with_gpus(waiting: list[Ticket], there: list[Active], starts: str, victims: str) -> None:
    assert names(planned(waiting, there, gpus=8)) == (starts, victims)


def limited(run: str, cpus: float, hours: float | None, **fields: object) -> Ticket:
    return ticket(run, cpus=cpus, max_duration=hours, **fields)


def running(run: str, cpus: float, hours: float | None, since: float = 0) -> Active:
    return cpu(run, since, cpus, "auto", preemptible=False, max_duration=hours)


@pytest.mark.parametrize(
    ("waiting", "there", "starts"),
    [
        # Two hours until the big one can start.
        ([limited("big", 8, None), limited("short", 2, 1)], [running("a", 4, 2)], "short"),
        ([limited("big", 8, None), limited("exact", 2, 2)], [running("a", 4, 2)], "exact"),
        ([limited("big", 8, None), limited("long", 2, 2.1)], [running("a", 4, 2)], ""),
        ([limited("big", 8, None), limited("endless", 2, None)], [running("a", 4, 2)], ""),
        ([limited("big", 8, None), limited("short", 5, 1)], [running("a", 4, 2)], ""),
        # The grace counts.
        ([limited("big", 8, None), limited("exact", 2, 2, stop_grace=30)], [running("a", 4, 2)], ""),
        # It needs the last of those it waits for...
        ([limited("big", 8, None), limited("x", 2, 2)], [running("a", 2, 1), running("b", 2, 3)], "x"),
        # ...but no more of them than it takes.
        ([limited("big", 6, None), limited("x", 2, 2)], [running("a", 2, 1), running("b", 2, 3)], ""),
        # Nobody knows when one without a limit ends: it may be now.
        ([limited("big", 8, None), limited("short", 2, 0.1)], [running("a", 4, None)], ""),
        ([limited("big", 6, None), limited("x", 2, 1)], [running("a", 2, 1), running("b", 2, None)], "x"),
        # One that started an hour ago.
        ([limited("big", 8, None), limited("x", 2, 2)], [running("a", 4, 2, since=-3600)], ""),
        ([limited("big", 8, None), limited("x", 2, 1)], [running("a", 4, 2, since=-3600)], "x"),
        # None of those ahead is put off, and what backfills is counted.
        ([limited("b1", 8, None), limited("b2", 6, None), limited("x", 2, 1)], [running("a", 4, 2)], "x"),
        ([limited("big", 8, None), limited("x", 2, 1), limited("y", 2, 1), limited("z", 1, 1)], [running("a", 4, 2)],
         "x y"),
    ],
)  # fmt: skip
def test_who_slips_in(waiting: list[Ticket], there: list[Active], starts: str) -> None:
    room = Room(free(MACHINE, [run.ticket for run in there]))
    assert names(plan(waiting, room, MACHINE, there, now=NOW))[0] == starts


def test_a_resumed_run_has_what_is_left_of_its_time() -> None:
    resumed = running("a", 4, 2)._replace(ticket=limited("a", 4, 2, first_started=NOW - 3600))
    room = Room(Need(4, GB))
    waiting = [limited("big", 8, None), limited("x", 2, 1.5)]
    assert names(plan(waiting, room, MACHINE, [resumed], now=NOW))[0] == ""


def test_a_run_whose_gpus_are_unseen_keeps_the_rest_and_does_not_start() -> None:
    waiting = [ticket("seen", cpus=2, gpus=1), ticket("y", cpus=7)]
    room = Room(MACHINE, slots([], 2))
    made = plan(waiting, room, MACHINE, unseen={"1-seen"}, now=NOW)
    assert names(made) == ("", "")
    assert names(plan(waiting, Room(MACHINE), MACHINE, unseen={"1-seen"}, now=NOW)) == ("y", "")  # there may be none


@pytest.mark.parametrize("seed", range(5))
def test_whatever_is_active_the_fewest_and_of_these_the_youngest_make_way(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(60):
        there = [cpu(f"r{i}", i, chance.choice([1, 1, 2, 3])) for i in range(chance.randrange(1, 7))]
        used = sum(run.ticket.need.cpus for run in there)
        machine = Need(used + chance.choice([0, 1]), GB)
        wants = min(chance.choice([1, 2, 3, 4, 5]), machine.cpus)
        made = planned([ticket("x", cpus=wants)], there, machine=machine)
        if made.starts:
            assert not made.victims
            continue
        enough = [
            those
            for count in range(1, len(there) + 1)
            for those in itertools.combinations(sorted(there, key=lambda run: -run.since), count)
            if machine.cpus - used + sum(run.ticket.need.cpus for run in those) >= wants
        ]
        best = enough[0] if enough else ()
        assert {run.ticket.run for run, _ in made.victims} == {run.ticket.run for run in best}


def test_many_that_wait_and_many_that_could_make_way_are_no_trouble() -> None:
    there = [cpu(f"r{i}", i, 0.25) for i in range(256)]
    waiting = [ticket(f"w{i:05}", cpus=4) for i in range(5000)]
    began = time.process_time()
    made = planned(waiting, there, machine=Need(64, GB))
    assert len(made.victims) == 256
    there = [running(f"r{i}", 1, 1 + i / 100) for i in range(64)]
    planned([limited(f"w{i:05}", 4, 0.5) for i in range(5000)], there, machine=Need(64, GB))
    assert time.process_time() - began < 20, "seconds of CPU where a tenth is usual"
