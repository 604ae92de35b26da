"""What tells a rank which one it is: the environment that torchrun gives its processes, and the GPUs a rank sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MASTER_ADDR = "127.0.0.1"

# What says which rank a submitter is itself, if a launcher like this one started it. It is not for its runs.
_OF_A_RANK = {
    "RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK", "ROLE_RANK", "ROLE_NAME", "NUM_NODES",
    "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
}  # fmt: skip
_ELASTIC = "TORCHELASTIC_"


def count(request: Mapping[str, Any]) -> int:
    """How many processes a run has."""
    return request.get("nproc_per_node") or 1


def without_ranks(environ: Mapping[str, str]) -> dict[str, str]:
    """A submitter's environment, less what makes it a rank."""
    return {name: value for name, value in environ.items() if name not in _OF_A_RANK and not name.startswith(_ELASTIC)}


def defaults(request: Mapping[str, Any]) -> dict[str, str]:
    """What torchrun sets besides, where the user has not."""
    if not request.get("nproc_per_node"):
        return {}
    # Several processes that each start a thread for every core would be in each other's way.
    threads = {"OMP_NUM_THREADS": "1"} if count(request) > 1 else {}
    return threads | {"TORCH_NCCL_ASYNC_ERROR_HANDLING": "1"}


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
            "TORCHELASTIC_MAX_RESTARTS": request["max_retries"], "TORCHELASTIC_USE_AGENT_STORE": False,
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
