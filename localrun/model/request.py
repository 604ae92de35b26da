"""What a run asks for, validated: ``Request``, made of a ``RunConfig`` before anything is created.

Owns what the fields mean together. Which keys there are is ``config.py``'s, what a field's value must be is
``rules.py``'s; whether this machine has what is asked for is the engine's. All is a pure function of its arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from localrun.errors import RunConfigError
from localrun.model.config import RunConfig, check_keys
from localrun.model.rules import RULES

# What is for containers alone.
_OF_CONTAINERS = ("compute.volumes", "compute.shm_size", "compute.pull", "compute.network")


@dataclass(frozen=True, kw_only=True)
class Request:
    """A run's configuration with every value checked, converted and defaulted (fields as in ``mcli.RunConfig``)."""

    name: str | None = None
    parent_name: str | None = None
    image: str | None = None
    command: str = ""
    cwd: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    env_variables: dict[str, str] = field(default_factory=dict, repr=False)
    metadata: dict[str, Any] = field(default_factory=dict)
    secrets: list[str] | None = None  # None: all there are when it starts
    integrations: list[dict[str, Any]] = field(default_factory=list)  # as `integrations` spells them out
    # compute
    cluster: str | None = None
    instance: str | None = None
    nodes: int = 1
    gpu_type: str | None = None
    gpus: int = 0
    gpu_memory: int = 0  # bytes, each GPU's in all; 0 asks for none in particular
    gpu_binding: str = "all"
    gpu_visibility: str = "uuid"
    allow_shared_gpus: bool = False
    nproc_per_node: int | None = None  # "gpu" has become a number
    cpus: float = 1.0  # 0 for a run with GPUs
    memory: int = 0  # bytes; 0 asks for none in particular
    volumes: list[dict[str, Any]] = field(default_factory=list)  # as `containers` spells them out
    shm_size: int = 0  # bytes; 0: half the machine's memory
    pull: str = "missing"
    network: str = "host"
    # scheduling
    priority: str = "auto"
    preemptible: bool = False
    max_retries: int = 0
    retry_on_system_failure: bool = False
    max_duration: float | None = None  # hours
    stop_grace: float = 30.0  # seconds
    after: list[Any] = field(default_factory=list)  # names of runs, or Runs
    after_any: list[Any] = field(default_factory=list)

    @classmethod
    def from_config(cls, config: RunConfig, *, needs_command: bool = True) -> Self:
        """The request a configuration makes, which itself stays as it is; ``needs_command`` unless it runs a function.

        Raises RunConfigError with one line that begins with the field at fault.
        """
        mapping = config.to_mapping()
        check_keys(mapping)
        given = _by_path(mapping)
        values = {path.rpartition(".")[2]: rule(given[path], path) for path, rule in RULES.items() if path in given}
        if values.get("integrations") and "cwd" in values:
            raise RunConfigError("cwd: a run with integrations works in a folder of its own: leave it out")
        if values.get("image") or any(path in given for path in _OF_CONTAINERS):
            from localrun.model.containers import check_together

            check_together(values, {path: given.get(path) for path in _OF_CONTAINERS})
        if needs_command and not values.get("command", "").strip():
            raise RunConfigError("command: must not be empty")
        return cls(**_with_gpus_settled(values))


def _by_path(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """What a configuration sets, by dotted path; None sets nothing."""
    parts = [("", mapping), ("compute.", mapping.get("compute", {})), ("scheduling.", mapping.get("scheduling", {}))]
    return {prefix + key: value for prefix, part in parts for key, value in part.items() if value is not None}


def _with_gpus_settled(values: dict[str, Any]) -> dict[str, Any]:
    """The values with what GPUs decide: ``gpu_type: none`` means no GPUs, and a run with GPUs asks for no CPU."""
    gpus, gpu_type = values.get("gpus", 0), values.get("gpu_type")
    if gpu_type is not None and gpu_type.lower() == "none":
        if gpus:
            raise RunConfigError(f"compute.gpu_type: {gpu_type!r} asks for no GPU, and compute.gpus for {gpus}")
        gpu_type = None
    for name, value in (("gpu_type", gpu_type), ("gpu_memory", values.get("gpu_memory"))):
        if value and "gpus" not in values:  # an explicit 0 is a run that tries without
            raise RunConfigError(f"compute.{name}: says which GPUs, and compute.gpus not how many: set that, too")
    kind = {"gpu_type": gpu_type or None} if gpus else {"gpu_type": None, "gpu_memory": 0}
    values = {"cpus": 0.0 if gpus else 1.0} | values | kind
    ranks = values.get("nproc_per_node")
    if ranks == "gpu":
        if not gpus:
            raise RunConfigError("compute.nproc_per_node: 'gpu' starts a process for each GPU: set compute.gpus")
        values["nproc_per_node"] = ranks = gpus
    share = gpus
    if values.get("gpu_binding") == "rank":
        if gpus % (ranks or 1):
            raise RunConfigError(f"compute.gpu_binding: {gpus} GPUs can't be divided among {ranks} ranks")
        share = gpus // (ranks or 1)
    if share > 1 and "mig" in (gpu_type or "").lower():
        raise RunConfigError(
            f"compute.gpus: CUDA gives a process one MIG instance, not {share}: "
            "set compute.gpu_binding to 'rank' and compute.nproc_per_node to 'gpu'"
        )
    return values
