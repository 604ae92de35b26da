"""The GPUs that localrun manages, each with whether it is free and, if not, why and who has it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from localrun.engine import leasefolder, leases, probe
from localrun.engine.gpus import Gpu, GpuProcess, Inventory, foreign
from localrun.engine.leases import Holder
from localrun.errors import LocalrunError, SystemFailureError

_NAMED = 2  # so many processes are named in a sentence, the others counted


class GpuState(StrEnum):
    """What keeps a GPU from being given out: something is wrong with it, a run has it, others use it; or nothing."""

    UNAVAILABLE = "unavailable"
    LEASED = "leased"
    BUSY = "busy"
    FREE = "free"


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuView:
    """A GPU as it is now: what the driver says, its state with the reason (None if free), and who has its lease."""

    gpu: Gpu
    state: GpuState
    reason: str | None = None
    holder: Holder | None = None


def gpus(timeout: float = probe.TIMEOUT_S) -> list[GpuView]:
    """The GPUs that localrun manages on this machine, in PCI order; none if there is no NVIDIA driver.

    Waits for the driver at most ``timeout`` seconds.

    Raises:
        SystemFailureError: the driver doesn't answer, or answers with an error.
        RunConfigError: ``LOCALRUN_GPUS`` is not a list of indices and uuids.
    """
    inventory = probe.inventory(timeout)
    if inventory.problem is not None:
        raise SystemFailureError(f"nothing is known of the GPUs: {inventory.problem}")
    return views(inventory)


def views(inventory: Inventory) -> list[GpuView]:
    """The GPUs of an inventory with their leases, as these are now."""
    if not inventory.gpus:
        return []
    try:
        leasefolder.folder()
        problem = None
    except LocalrunError as error:
        problem = error.message
    return [_view(gpu, problem) for gpu in inventory.gpus]


def _view(gpu: Gpu, problem: str | None) -> GpuView:
    holder = None
    problem = gpu.problem or problem
    if gpu.uuid:
        try:
            holder = leases.holder(gpu.uuid)
        except LocalrunError as error:
            problem = problem or error.message
    if problem is not None:
        return GpuView(gpu=gpu, state=GpuState.UNAVAILABLE, reason=problem, holder=holder)
    if holder is not None:
        return GpuView(gpu=gpu, state=GpuState.LEASED, reason=_held(holder), holder=holder)
    others = foreign(gpu)
    if others:
        return GpuView(gpu=gpu, state=GpuState.BUSY, reason=_in_words(others))
    return GpuView(gpu=gpu, state=GpuState.FREE)


def _held(holder: Holder) -> str:
    return f"run {holder.run or 'unknown'} of user {holder.user or 'unknown'} has it"


def _in_words(processes: tuple[GpuProcess, ...]) -> str:
    """The processes that hold a GPU, in words: "pid 12 of user ann (python) holds 3 GiB, …"."""
    named = [
        f"pid {process.pid} of user {process.user or 'unknown'} ({process.command or 'unknown command'}) holds "
        + ("an unknown amount" if process.memory is None else size(process.memory))
        for process in processes[:_NAMED]
    ]
    rest = len(processes) - _NAMED
    return ", ".join(named) + (f" and {rest} more" if rest > 0 else "")
