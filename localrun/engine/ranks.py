"""What tells a rank which one it is: the environment that torchrun gives its processes, and the GPUs a rank sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MASTER_ADDR = "127.0.0.1"


def count(request: Mapping[str, Any]) -> int:
    """How many processes a run has."""
    return request.get("nproc_per_node") or 1


def environment(record: Mapping[str, Any], rank: int, resumption: int) -> dict[str, str]:
    """The variables of one rank, as torchrun sets them; without ``nproc_per_node`` those that mcli sets."""
    request, gpus = record["request"], record["gpus"]
    if request.get("nproc_per_node"):
        world = count(request)
        variables = {
            "RANK": rank, "LOCAL_RANK": rank, "ROLE_RANK": rank, "GROUP_RANK": 0, "NODE_RANK": 0,
            "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "ROLE_WORLD_SIZE": world, "GROUP_WORLD_SIZE": 1,
            "NUM_NODES": 1, "ROLE_NAME": "default",
            "TORCHELASTIC_RUN_ID": record["name"], "TORCHELASTIC_RESTART_COUNT": resumption,
            "TORCHELASTIC_MAX_RESTARTS": request["max_retries"],
        }  # fmt: skip
    else:
        world = len(gpus) or 1
        variables = {"NODE_RANK": 0, "NUM_NODES": 1, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
    if record["port"] is not None:
        variables |= {"MASTER_ADDR": MASTER_ADDR, "MASTER_PORT": record["port"]}
    # Empty, never unset: a run without GPUs must not find some.
    variables |= {"CUDA_VISIBLE_DEVICES": ",".join(_visible(request, gpus, rank)), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    return {name: str(value) for name, value in variables.items()}


def _visible(request: Mapping[str, Any], gpus: Sequence[Mapping[str, Any]], rank: int) -> list[str]:
    """The run's GPUs as CUDA is told of them; with ``gpu_binding: rank`` only this rank's slice."""
    if request.get("gpu_binding") == "rank":
        share = len(gpus) // count(request)
        gpus = gpus[rank * share : (rank + 1) * share]
    # CUDA counts no MIG instances: they go by uuid whatever was asked.
    by_index = request.get("gpu_visibility") == "index" and all(isinstance(gpu["index"], int) for gpu in gpus)
    return [str(gpu["index" if by_index else "uuid"]) for gpu in gpus]
