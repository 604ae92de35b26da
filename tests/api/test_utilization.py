"""Why a run waits: the explanation agrees with the policy and names who has what."""

from __future__ import annotations

import itertools

import pytest

from localrun.api.machine.utilization import Waiting, explain, ordinal
from localrun.engine.scheduling import plan as scheduling
from localrun.engine.scheduling.room import Room, free
from localrun.engine.scheduling.ticket import Need, Ticket
from localrun.model.sizes import size

GIB = 1 << 30
MACHINE = Need(4, 16 * GIB)
NOW = 1000.0


def ticket(run: str, cpus: float = 1, memory: int = 0, not_before: float = 0.0) -> Ticket:
    """A ticket of a run with these needs."""
    return Ticket(f"1-{run}", run, run, f"/{run}", "", "", Need(cpus, memory), not_before)


def sentences(waiting: list[Ticket], active: list[Ticket]) -> list[str]:
    """What is said of each waiting run."""
    return [str(why) for why in explain(waiting, active, MACHINE, NOW)]


def test_what_fits_is_about_to_start() -> None:
    assert sentences([ticket("a"), ticket("b", 0)], []) == ["1st of 2, about to start", "2nd of 2, about to start"]
    assert explain([ticket("a")], [], MACHINE, NOW)[0].about_to_start


def test_the_active_runs_that_hold_it_are_named() -> None:
    active = [ticket("x", 2), ticket("y", 2, GIB), ticket("z", 0)]
    assert sentences([ticket("a"), ticket("b", 2)], active) == [
        "1st of 2, waits for 1 CPU held by x, y",
        "2nd of 2, waits for 2 CPUs held by x, y",
    ]
    assert sentences([ticket("a", 0, 16 * GIB)], active) == ["1st of 1, waits for 16 GiB of memory held by y"]
    assert sentences([ticket("a", 1, 16 * GIB)], active) == [
        "1st of 1, waits for 1 CPU and 16 GiB of memory held by x, y"
    ]


def test_many_holders_are_counted() -> None:
    active = [ticket(f"x{number}", 0.5) for number in range(8)]
    assert sentences([ticket("a")], active) == ["1st of 1, waits for 1 CPU held by x0, x1, x2 and 5 more"]


def test_what_is_kept_for_a_run_ahead_is_said_so() -> None:
    waiting = [ticket("big", 4), ticket("small", 1), ticket("free", 0)]
    assert sentences(waiting, [ticket("x", 2)]) == [
        "1st of 3, waits for 4 CPUs held by x",
        "2nd of 3, waits for 1 CPU kept for big, ahead of it",
        "3rd of 3, about to start",
    ]


def test_what_a_run_ahead_is_about_to_take_counts_too() -> None:
    waiting = [ticket("first", 3), ticket("second", 2)]
    assert sentences(waiting, [])[1] == "2nd of 2, waits for 2 CPUs kept for first, ahead of it"


def test_a_delayed_retry_says_when_and_stands_in_nobodys_way() -> None:
    waiting = [ticket("again", 4, not_before=NOW + 5), ticket("next", 4)]
    again, following = explain(waiting, [], MACHINE, NOW)
    assert again.not_before == NOW + 5 and not again.about_to_start
    assert "1st of 2, is tried again at " in str(again)
    assert following.about_to_start


def test_a_machine_that_has_shrunk() -> None:
    assert sentences([ticket("a", 64)], []) == ["1st of 1, about to start"]
    assert sentences([ticket("a", 64)], [ticket("x", 64)]) == ["1st of 1, waits for 4 CPUs held by x"]


@pytest.mark.parametrize("active", list(itertools.product([0, 1, 2.5], [0, 4 * GIB])))
def test_it_agrees_with_what_starts(active: tuple[float, int]) -> None:
    """Over all short queues: about to start is exactly what the policy starts."""
    running = [ticket("x", *active)]
    kinds = [(0, 0), (1, 0), (2, 8 * GIB), (4, 0), (0.5, 14 * GIB)]
    for needs in itertools.product(kinds, repeat=3):
        waiting = [ticket(f"{place}", *need) for place, need in enumerate(needs)]
        starts = [each.ticket for each in scheduling.plan(waiting, Room(free(MACHINE, running)), MACHINE).starts]
        why = explain(waiting, running, MACHINE, NOW)
        assert [w.about_to_start for w in why] == [t in starts for t in waiting]
        assert all(w.held_by or w.kept_for for w in why if w.lacking)


@pytest.mark.parametrize(
    ("number", "text"), [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (21, "21st"), (112, "112th")]
)
def test_ordinals(number: int, text: str) -> None:
    assert ordinal(number) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "0.977 KiB"), (1 << 20, "1 MiB"), (3 * GIB // 2, "1.5 GiB")],
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


def test_needs_are_shown_as_they_were_asked_for() -> None:
    assert str(Waiting(1, 1, Need(0.25, 0), ("cpus",), ("x",))) == "1st of 1, waits for 0.25 CPUs held by x"
