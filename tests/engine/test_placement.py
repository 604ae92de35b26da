"""Which GPUs a run gets, as a pure function of what it asks for and what there is."""

from __future__ import annotations

import dataclasses
import json

import pytest

from localrun.engine.gpus.inventory import Gpu, types
from localrun.engine.scheduling.placement import GpuNeed, Slot, Use, can_change, can_come_free, choose, suitable
from localrun.model.config import RunConfig
from localrun.model.request import Request

GIB = 1 << 30
H100 = "NVIDIA H100 80GB HBM3"
USES = {"f": Use.FREE, "s": Use.FOREIGN, "o": Use.OURS, "t": Use.THEIRS, "b": Use.BROKEN}


def gpu(index: int, name: str = H100, memory: int | None = 80 * GIB, **fields: object) -> Gpu:
    return Gpu(index, f"GPU-{index}", name, f"00000000:{index + 1:02X}:00.0", memory_total=memory)._replace(**fields)  # type: ignore[arg-type]


def slots(uses: str) -> list[Slot]:
    """A GPU for each letter, which is that of its use; in capitals an instance of GPU 9."""
    return [
        Slot(gpu(9, mig_index=i, uuid=f"MIG-{i}", name=f"{H100} MIG") if use.isupper() else gpu(i), USES[use.lower()])
        for i, use in enumerate(uses)
    ]


def chosen(need: GpuNeed, uses: str) -> str | None:
    there = slots(uses)
    gpus = choose(need, there)
    return None if gpus is None else "".join(str([slot.gpu for slot in there].index(each)) for each in gpus)


@pytest.mark.parametrize(
    ("need", "uses", "which"),
    [
        (GpuNeed(0), "", ""),
        (GpuNeed(1), "tsf", "2"),
        (GpuNeed(2), "sff", "12"),
        (GpuNeed(2), "ssf", None),
        (GpuNeed(1), "b", None),
        # Those who share take what is free first, and of the others as many as they lack.
        (GpuNeed(1, shared=True), "sf", "1"),
        (GpuNeed(2, shared=True), "sff", "12"),
        (GpuNeed(2, shared=True), "ssf", "02"),
        (GpuNeed(3, shared=True), "sstf", "013"),
        (GpuNeed(2, shared=True), "stb", None),
        # Whole ones before instances, of which a process is given one.
        (GpuNeed(1), "Ff", "1"),
        (GpuNeed(1), "Ft", "0"),
        (GpuNeed(2), "FFf", None),
        (GpuNeed(2, split=True), "FFf", "01"),
        (GpuNeed(1, shared=True), "Fs", "0"),
        # Only those that the submitter manages.
        (GpuNeed(1, among=("1", "2")), "fof", "2"),
        (GpuNeed(1, among=("gpu-1",)), "ff", "1"),
        (GpuNeed(2, among=("1",)), "ff", None),
        (GpuNeed(1, among=()), "ff", None),
    ],
)
def test_which(need: GpuNeed, uses: str, which: str | None) -> None:
    assert chosen(need, uses) == which


@pytest.mark.parametrize(
    ("need", "uses", "may_change", "comes_free"),
    [
        (GpuNeed(1), "oo", False, True), (GpuNeed(1), "ot", True, True), (GpuNeed(2), "ot", False, False),
        (GpuNeed(2), "ob", False, False), (GpuNeed(1), "bo", True, True), (GpuNeed(2), "fs", True, False),
        (GpuNeed(1, among=("0",)), "of", False, True),
    ],
)  # fmt: skip
def test_who_may_give_them_back(need: GpuNeed, uses: str, may_change: bool, comes_free: bool) -> None:
    """Others, which the driver must be asked about, or this queue's own runs."""
    assert (can_change(need, slots(uses)), can_come_free(need, slots(uses))) == (may_change, comes_free)


@pytest.mark.parametrize("lost", [gpu(1, "", None, uuid=""), gpu(1, memory=None), gpu(1, "")])
def test_what_a_problem_hides_may_be_what_is_wanted(lost: Gpu) -> None:
    there = [gpu(0), lost._replace(problem="GPU is lost")]
    for need in (GpuNeed(2), GpuNeed(2, "h100"), GpuNeed(2, memory=80 * GIB), GpuNeed(2, "h100", 40 * GIB)):
        assert suitable(need, there) == there
        assert choose(need, [Slot(there[0], Use.FREE), Slot(there[1], Use.BROKEN)]) is None


def test_what_a_problem_does_not_hide_counts() -> None:
    lost = gpu(0, problem="GPU is lost")
    assert suitable(GpuNeed(1, "a100"), [lost]) == []
    assert suitable(GpuNeed(1, memory=81 * GIB), [lost]) == []
    assert suitable(GpuNeed(1, "mig"), [lost]) == [lost]  # it may have instances
    assert suitable(GpuNeed(1, "mig"), [gpu(0)]) == []


def test_what_there_is_in_words() -> None:
    assert types([gpu(0), gpu(1), gpu(2, "")]) == f"2 x {H100}, 1 x unknown"


@pytest.mark.parametrize(
    ("compute", "split"),
    [
        ({"gpus": 4, "nproc_per_node": 4, "gpu_binding": "rank"}, True),
        ({"gpus": 4, "nproc_per_node": "gpu", "gpu_binding": "rank"}, True),
        ({"gpus": 4, "nproc_per_node": 2, "gpu_binding": "rank"}, False),
        ({"gpus": 4, "gpu_binding": "rank"}, False),
        ({"gpus": 4, "nproc_per_node": 4}, False),
    ],
)
def test_each_process_has_one_of_its_own(compute: dict[str, object], split: bool) -> None:
    request = Request.from_config(RunConfig.from_mapping({"command": "true", "compute": compute}))
    assert GpuNeed.of(dataclasses.asdict(request)).split is split


def test_a_need_survives_its_ticket() -> None:
    for need in (GpuNeed(), GpuNeed(2, "h100", GIB, True, True, ("0", "GPU-a")), GpuNeed(3, among=())):
        assert GpuNeed.of(json.loads(json.dumps(need.request()))) == need


def test_in_words() -> None:
    assert str(GpuNeed(1)) == "1 GPU"
    assert str(GpuNeed(2, "h100", 40 * GIB)) == "2 GPUs of type h100 with at least 40 GiB of memory"
