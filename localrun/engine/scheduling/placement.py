"""Which GPUs a run gets: a pure function of what it asks for and what there is.

A choice is deterministic. It takes GPUs that lie beside each other in PCI order, out of the smallest gap into which
they go, so that bigger sets stay together. What a GPU is comes from `gpus`, which only those load who deal with some.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum

from localrun.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from localrun.engine.gpus.inventory import Gpu


class Use(Enum):
    """What keeps a GPU from being given out, if anything does."""

    FREE = "free"
    FOREIGN = "foreign"  # a process that is no run's holds memory of it: for those who share
    OURS = "ours"  # of an active run of this queue: it comes back
    THEIRS = "theirs"  # leased by another queue, or nobody can tell
    BROKEN = "broken"  # something is wrong with it


class GpuNeed(NamedTuple):
    """What a run asks of GPUs; ``memory`` in bytes, each GPU's at least; ``split``: each process gets one of its own.

    ``among`` are the entries of the submitter's ``LOCALRUN_GPUS``, None if it has none.
    """

    number: int = 0
    type: str | None = None
    memory: int | None = None
    shared: bool = False
    split: bool = False
    among: tuple[str, ...] | None = None

    @classmethod
    def of(cls, request: Mapping[str, Any]) -> GpuNeed:
        """The need that a record's request holds."""
        number, among = request.get("gpus") or 0, request.get("managed_gpus")
        return cls(
            number,
            request.get("gpu_type"),
            request.get("gpu_memory") or None,
            bool(request.get("allow_shared_gpus")),
            request.get("gpu_binding") == "rank" and number == (request.get("nproc_per_node") or 1),
            None if among is None else tuple(among),
        )

    def request(self) -> dict[str, Any]:
        """The need as ``of`` reads it."""
        binding, processes = ("rank", self.number) if self.split else (None, None)
        return {
            "gpus": self.number, "gpu_type": self.type, "gpu_memory": self.memory, "allow_shared_gpus": self.shared,
            "gpu_binding": binding, "nproc_per_node": processes, "managed_gpus": self.among,
        }  # fmt: skip

    def __str__(self) -> str:
        from localrun.model.sizes import size

        kind = f" of type {self.type}" if self.type else ""
        memory = f" with at least {size(self.memory)} of memory" if self.memory else ""
        return f"{self.number} GPU{'' if self.number == 1 else 's'}{kind}{memory}"


class Slot(NamedTuple):
    """A GPU and what it is used for."""

    gpu: Gpu
    use: Use

    def is_for(self, need: GpuNeed) -> bool:
        """True if a run with that need could have it now."""
        return self.use is Use.FREE or (self.use is Use.FOREIGN and need.shared)


def suitable(need: GpuNeed, there: Iterable[Gpu]) -> list[Gpu]:
    """The GPUs among these that are what a run asks for; of MIG instances CUDA gives a process one."""
    found = [gpu for gpu in there if _matches(gpu, need.type, need.memory, need.among)]
    return found if need.number <= 1 or need.split else [gpu for gpu in found if not gpu.is_mig]


@functools.lru_cache(4096)
def _matches(gpu: Gpu, kind: str | None, memory: int | None, among: tuple[str, ...] | None) -> bool:
    from localrun.engine.gpus.inventory import is_among, matches

    return matches(gpu, kind, memory) and (among is None or is_among(gpu, among))


def choose(need: GpuNeed, slots: Sequence[Slot]) -> tuple[Gpu, ...] | None:
    """The GPUs for a run that starts now; None if there are not enough.

    Free ones are preferred to those in foreign use, and then whole ones to instances.
    """
    free = suitable(need, (slot.gpu for slot in slots if slot.use is Use.FREE))
    if len(free) >= need.number:
        return _of_a_kind(free, need.number)
    shared = suitable(need, (slot.gpu for slot in slots if slot.use is Use.FOREIGN and slot.is_for(need)))
    if len(free) + len(shared) < need.number:
        return None
    return tuple(sorted((*free, *_of_a_kind(shared, need.number - len(free))), key=lambda gpu: gpu.rank))


def _of_a_kind(there: Sequence[Gpu], count: int) -> tuple[Gpu, ...]:
    whole = [gpu for gpu in there if not gpu.is_mig]
    return _together(whole if len(whole) >= count else there, count) if count else ()


def can_come_free(need: GpuNeed, slots: Sequence[Slot]) -> bool:
    """True if there are enough once this queue's own runs have ended."""
    return len(suitable(need, (slot.gpu for slot in slots if slot.use is Use.OURS or slot.is_for(need)))) >= need.number


def without(slots: Sequence[Slot], taken: Iterable[Gpu]) -> tuple[Slot, ...]:
    """These slots, with the taken GPUs in use by a run of ours."""
    uuids = {gpu.uuid for gpu in taken}
    return tuple(Slot(slot.gpu, Use.OURS) if slot.gpu.uuid in uuids else slot for slot in slots)


def can_change(need: GpuNeed, slots: Sequence[Slot]) -> bool:
    """True if there may be enough although no run of this queue ends: others end, or a GPU is well again."""
    return len(suitable(need, (slot.gpu for slot in slots if slot.use is not Use.OURS))) >= need.number


def kept_for(need: GpuNeed, slots: Sequence[Slot]) -> list[Gpu]:
    """What a run that has not enough yet keeps from those behind it: all that it could use."""
    return suitable(need, (slot.gpu for slot in slots if slot.is_for(need)))


def _together(there: Sequence[Gpu], count: int) -> tuple[Gpu, ...]:
    gaps = sorted(_gaps(there), key=len)
    gap = next((gap for gap in gaps if len(gap) >= count), None)
    if gap is None:  # no gap is large enough: the fewest pieces
        pieces = [gpu for gap in reversed(gaps) for gpu in gap]
        return tuple(sorted(pieces[:count], key=lambda gpu: gpu.rank))
    # On a multiple of the count, where pairs and fours are wired together.
    start = next((i for i in range(len(gap) - count + 1) if gap[i].index % count == 0), 0)
    return tuple(gap[start : start + count])


def _gaps(there: Sequence[Gpu]) -> Iterator[list[Gpu]]:
    """These GPUs in pieces that lie beside each other."""
    piece: list[Gpu] = []
    for gpu in sorted(there, key=lambda gpu: gpu.rank):
        if piece and (gpu.is_mig != piece[-1].is_mig or gpu.index - piece[-1].index > 1):
            yield piece
            piece = []
        piece.append(gpu)
    if piece:
        yield piece
