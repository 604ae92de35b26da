"""What a rank's container is started with: the arguments of the engine's ``run``, from the record alone.

Pure functions. Two words differ between the engines: how a user keeps its number without privileges, and GPUs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from localrun.engine.launchers import ranks
from localrun.engine.launchers.containerengine import LABEL
from localrun.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Mount(NamedTuple):
    """A folder or file of the machine, and its place in the container."""

    source: str
    target: str
    read_only: bool = False

    def argument(self) -> str:
        """As ``--mount`` takes it: comma-separated values, in which quotes are doubled."""
        parts = ["type=bind", f"src={self.source}", f"dst={self.target}", *(["readonly"] if self.read_only else [])]
        return ",".join('"' + part.replace('"', '""') + '"' for part in parts)


def name(record: Mapping[str, Any], resumption: int, rank: int) -> str:
    """The name of a rank's container: the engine refuses a second one."""
    return f"localrun-{record['uid']}-{resumption}-{rank}"


def arguments(record: Mapping[str, Any], rank: int, resumption: int, mounts: Sequence[Mount]) -> list[str]:
    """Everything between the engine's name and the image's, but for the environment."""
    is_podman = "podman" in os.path.basename(record["request"]["engine"]["program"])
    return [
        "run", "--pull=never", "--init", "--log-driver=none", "--sig-proxy=false",
        f"--name={name(record, resumption, rank)}", f"--label={LABEL}={record['uid']}",
        f"--label=localrun.run={record['name']}", f"--label=localrun.rank={rank}",
        f"--label=localrun.resumption={resumption}",
        *_user(record, rank, resumption, is_podman), "--security-opt=label=disable", f"--workdir={record['cwd']}",
        *_shared(record, rank, resumption), *_limits(record), *_gpus(record["gpus"], is_podman),
        *(f"--mount={mount.argument()}" for mount in mounts),
    ]  # fmt: skip


def shell(arguments: Sequence[str], before: str = "", given: Sequence[str] = ()) -> list[str]:
    """The image's bash, or its sh if it has none, with these arguments.

    ``before`` is what sh does first, with ``given`` as its parameters, which it has to shift away.
    """
    become = "if command -v bash >/dev/null; then exec bash \"$@\"; else exec sh \"$@\"; fi"
    return ["sh", "-c", f"{before}{become}", "localrun", *given, *arguments]


def shared_memory(request: Mapping[str, Any]) -> int:
    """The size of /dev/shm in bytes: half the memory if none was asked for, as a machine's own."""
    half = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return request["shm_size"] or half


def visible_indices(gpus: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """GPUs as a container counts them: only its own, from 0 on, in the machine's order."""
    order = sorted(gpu["index"] for gpu in gpus if isinstance(gpu["index"], int))
    return [{**gpu, "index": order.index(gpu["index"]) if gpu["index"] in order else gpu["index"]} for gpu in gpus]


def _user(record: Mapping[str, Any], rank: int, resumption: int, is_podman: bool) -> list[str]:
    """The caller's numbers; podman without privileges has them in a namespace, which who shares IPC must share, too."""
    caller = f"--user={os.geteuid()}:{os.getegid()}"
    if is_podman and os.geteuid():
        return [f"--userns={f'container:{name(record, resumption, 0)}' if rank else 'keep-id'}", caller]
    groups = [group for group in os.getgroups() if group != os.getegid()]
    return ["--userns=host", caller, *(f"--group-add={group}" for group in groups)]


def _shared(record: Mapping[str, Any], rank: int, resumption: int) -> list[str]:
    """Network and IPC: rank 0 has them, the others share them."""
    request = record["request"]
    if rank:
        first = f"container:{name(record, resumption, 0)}"
        return [f"--network={'host' if request['network'] == 'host' else first}", f"--ipc={first}"]
    own = [f"--network={request['network']}", f"--shm-size={shared_memory(request)}"]
    return [*own, "--ipc=shareable"] if ranks.count(request) > 1 else own


def _limits(record: Mapping[str, Any]) -> list[str]:
    """CPU and memory limits where they were asked for; ranks have equal shares, so that the run has no more."""
    request, asked = record["request"], record["config"].get("compute", {})
    share = ranks.count(request)
    limits = [f"--cpus={request['cpus'] / share:.3f}"] if asked.get("cpus") else []
    if request["memory"]:
        memory = request["memory"] // share
        limits += [f"--memory={memory}", f"--memory-swap={memory}"]
    return limits


def _gpus(gpus: Sequence[Mapping[str, Any]], is_podman: bool) -> list[str]:
    uuids = [gpu["uuid"] for gpu in gpus]
    if is_podman:
        return [f"--device=nvidia.com/gpu={uuid}" for uuid in uuids]
    # The quotes are the engine's: without them it takes what comes after a comma for another option.
    return [f'--gpus="device={",".join(uuids)}"'] if uuids else []
