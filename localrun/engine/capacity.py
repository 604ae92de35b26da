"""What this machine has to give: CPUs and memory, as this process may use them."""

from __future__ import annotations

import os

from localrun.engine.queue import Need


def capacity() -> Need:
    """The CPUs of this process's affinity, and the machine's memory or this process's cgroup limit if that is less."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Need(cpus=float(len(os.sched_getaffinity(0))), memory=min([memory, *_cgroup_limits()]))


def _cgroup_limits() -> list[int]:
    limits = []
    for path in _limit_files():
        try:
            with open(path) as file:
                limits.append(int(file.read()))
        except (OSError, ValueError):  # no such controller here, or "max"
            continue
    return limits


def _limit_files() -> list[str]:
    files = []
    with open("/proc/self/cgroup") as groups:
        for line in groups:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            if controllers == "":
                files.append(f"/sys/fs/cgroup{path}/memory.max")
            elif "memory" in controllers.split(","):
                files.append(f"/sys/fs/cgroup/memory{path}/memory.limit_in_bytes")
    return files
