"""The GPUs that localrun manages, each with whether it is free and, if not, why and who has it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum

from localrun.engine.gpus import leasefolder, leases, probe
from localrun.engine.gpus.inventory import Gpu, GpuProcess, Inventory, foreign
from localrun.engine.gpus.leases import Holder
from localrun.engine.processes import mark_of
from localrun.errors import LocalrunError, SystemFailureError
from localrun.model.sizes import size

_NAMED = 2  # so many processes are named in a sentence, the others counted


class GpuState(StrEnum):
    """What keeps a GPU from being given out: something is wrong with it, a run has it, others use it; or nothing."""

    UNAVAILABLE = "unavailable"
    LEASED = "leased"
    BUSY = "busy"
    FREE = "free"


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuView:
    """A GPU as it is now: what the driver says, its state with the reason (None if free), and who has its lease.

    ``problem`` is what makes it unavailable; ``others`` are the processes that hold memory of it and are not of the
    run that has it.
    """

    gpu: Gpu
    state: GpuState
    reason: str | None = None
    problem: str | None = None
    holder: Holder | None = None
    others: tuple[GpuProcess, ...] = ()


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
            if problem is None and holder is None:
                leases.check(gpu.uuid)
        except LocalrunError as error:
            problem = problem or error.message
    others = tuple(process for process in foreign(gpu) if holder is None or _is_stranger(process, holder))
    return GpuView(
        gpu=gpu, state=_state(problem, holder, others), reason=_reason(problem, holder, others), problem=problem,
        holder=holder, others=others,
    )  # fmt: skip


def _state(problem: str | None, holder: Holder | None, others: tuple[GpuProcess, ...]) -> GpuState:
    if problem is not None:
        return GpuState.UNAVAILABLE
    if holder is not None:
        return GpuState.LEASED
    return GpuState.BUSY if others else GpuState.FREE


def _reason(problem: str | None, holder: Holder | None, others: tuple[GpuProcess, ...]) -> str | None:
    held = holder and not problem and f"run {holder.run or 'unknown'} of user {holder.user or 'unknown'} has it"
    return "; ".join(filter(None, (problem, held or None, in_words(others) if others else None))) or None


def _is_stranger(process: GpuProcess, holder: Holder) -> bool:
    """True for a process that is not of the run which has the GPU, as far as can be told."""
    mark = mark_of(process.pid)
    if mark is not None or os.access(f"/proc/{process.pid}/environ", os.R_OK):
        return mark != holder.uid
    return process.user not in (holder.user, "root", None)  # a container's are root's


def in_words(processes: tuple[GpuProcess, ...]) -> str:
    """The processes that hold a GPU, in words: "pid 12 of user ann (python) holds 3 GiB, …"."""
    named = [
        f"pid {process.pid} of user {process.user or 'unknown'} ({process.command or 'unknown command'}) holds "
        + ("an unknown amount" if process.memory is None else size(process.memory))
        for process in processes[:_NAMED]
    ]
    rest = len(processes) - _NAMED
    return ", ".join(named) + (f" and {rest} more" if rest > 0 else "")
