"""When the driver is asked again, and how long its answer is believed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from localrun.engine.gpus.gpuwatch import GpuWatch
from localrun.engine.gpus.inventory import Gpu, Inventory
from localrun.engine.scheduling.placement import GpuNeed, Use

MINE, OTHER = (Gpu(i, f"GPU-{i}", "NVIDIA H100", f"00000000:0{i}:00.0") for i in range(2))
NEVER = float("-inf")


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GpuWatch]:
    """One that has heard of two GPUs, the first of them a run's of ours, after a question that took a minute."""
    monkeypatch.setenv("LOCALRUN_LEASE_DIR", str(tmp_path / "leases"))
    there = GpuWatch(pytest.fail)
    there._inventory, there._begun_at = Inventory((MINE, OTHER)), time.monotonic() - 60
    there._heard_at = time.monotonic() + 1000  # for this test it is always just now
    yield there


def test_an_answer_is_fresh_from_when_it_was_heard_on(watch: GpuWatch) -> None:
    assert watch.seen_at() == watch._begun_at
    watch._heard_at = time.monotonic() - 5
    assert watch.seen_at() == NEVER


def test_one_with_a_problem_is_never_believed(watch: GpuWatch) -> None:
    watch._inventory = Inventory(problem="it hangs")
    assert watch.seen_at() == NEVER
    assert not watch.is_enough(NEVER, [], ())


@pytest.mark.parametrize(
    ("need", "age", "enough"),
    [
        (GpuNeed(1), 0, True), (GpuNeed(1), 3, False),  # the other one may be had now
        (GpuNeed(2), 3, True), (GpuNeed(2), 15, False),  # only the end of a run helps, of which we are told
        (GpuNeed(1, among=("0",)), 3, True),
    ],
)  # fmt: skip
def test_it_is_asked_again_where_that_may_help(watch: GpuWatch, need: GpuNeed, age: float, enough: bool) -> None:
    watch._heard_at = time.monotonic() - age if age else watch._heard_at
    assert watch.is_enough(NEVER, iter([need]), {MINE.uuid}) is enough
    assert not watch.is_enough(time.monotonic(), iter([need]), {MINE.uuid}), "a run has come, or ended, since then"


def test_what_they_are_used_for(watch: GpuWatch) -> None:
    assert [slot.use for slot in watch.slots({MINE.uuid})] == [Use.OURS, Use.FREE]
    watch._inventory = Inventory((MINE._replace(problem="it is lost"), OTHER))
    assert [slot.use for slot in watch.slots({MINE.uuid})] == [Use.BROKEN, Use.FREE]
