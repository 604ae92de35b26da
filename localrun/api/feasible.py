"""What this machine can't give, refused before anything is made."""

from __future__ import annotations

import dataclasses
import warnings
from typing import TYPE_CHECKING

from localrun import settings
from localrun.engine.dispatch.capacity import capacity
from localrun.errors import RunConfigError
from localrun.model.sizes import size

if TYPE_CHECKING:
    from localrun.model.request import Request

_GPU_PATIENCE_S = 2.0


def check(request: Request) -> None:
    """Refuse what this machine can never give, naming what it has.

    Raises:
        RunConfigError: more CPUs, memory or GPUs than there are. SecretNotFoundError: there is no secret of that name.
    """
    has = capacity()
    if request.cpus > has.cpus:
        raise RunConfigError(f"compute.cpus: {request.cpus:g} were asked for, and this process may use {has.cpus:g}")
    if request.memory > has.memory:
        asked, there = size(request.memory), size(has.memory)
        raise RunConfigError(f"compute.memory: {asked} were asked for, and this machine has {there}")
    if request.gpus:
        _refuse_gpus_there_are_not(request)
    _refuse_unknown_secrets(request)


def _refuse_gpus_there_are_not(request: Request) -> None:
    """Refuse GPUs that this machine doesn't have, whoever uses those it has. A driver that can't be asked refuses none.

    A GPU that is there and has a problem counts: the run waits until it is well.
    """
    from localrun.engine.gpus import inventory as gpus
    from localrun.engine.gpus import probe
    from localrun.engine.scheduling import placement

    there = probe.inventory(_GPU_PATIENCE_S)
    if there.problem is not None:
        warnings.warn(f"GPUs: {there.problem}; the run waits until that is over", RuntimeWarning, stacklevel=2)
        return
    need = placement.GpuNeed.of(dataclasses.asdict(request))
    if len(placement.suitable(need, there.gpus)) < need.number:
        asked = f"{need} {'was' if need.number == 1 else 'were'} asked for"
        limited = " (LOCALRUN_GPUS limits them)" if settings.managed_gpus() is not None else ""
        instances = any(gpu.is_mig for gpu in there.gpus) and need.number > 1 and not need.split
        alone = ". Of MIG instances CUDA gives a process one: bind one to each rank" if instances else ""
        has = gpus.types(there.gpus)
        raise RunConfigError(f"compute.gpus: {asked}, and localrun manages {has} here{limited}{alone}")


def _refuse_unknown_secrets(request: Request) -> None:
    if request.secrets:
        from localrun.engine.launchers.secretfolder import SecretFolder

        there = SecretFolder(settings.home())
        for name in request.secrets:
            there.read(name)
