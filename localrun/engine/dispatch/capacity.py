"""What this machine has to give: CPUs and memory, as this process may use them."""

from __future__ import annotations

import functools
import os

from localrun import files
from localrun.engine.scheduling.ticket import Need


def capacity() -> Need:
    """The CPUs of this process's affinity, and the machine's memory or this process's cgroup limit if that is less."""
    return Need(cpus=float(len(os.sched_getaffinity(0))), memory=_memory())


@functools.cache
def _memory() -> int:
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([machine, *_cgroup_limits()])


def _cgroup_limits() -> list[int]:
    limits = []
    for path in _limit_files():
        try:
            limits.append(int(files.read(path)))
        except (OSError, ValueError):  # no such controller here, or "max"
            continue
    return limits


def _limit_files() -> list[str]:
    found = []
    for line in files.read("/proc/self/cgroup").decode().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            found.append(f"/sys/fs/cgroup{path}/memory.max")
        elif "memory" in controllers.split(","):
            found.append(f"/sys/fs/cgroup/memory{path}/memory.limit_in_bytes")
    return found
