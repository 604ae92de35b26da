"""The processes in containers, as the kernel of this machine shows them: which are inside, and whom to signal."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection, Sequence

from localrun import files
from localrun.engine import processes


def send(found: Sequence[processes.Process], number: int, clients: Collection[int]) -> None:
    """Signal a run's processes, in its containers and outside, but for these:

    The first process of a container hands on to its child what it gets, which has got it already; SIGKILL it gets, too.
    A client (their pids are given) ends with its container, and is killed only when there is nothing inside any more.
    """
    inside = [process for process in found if is_inside(process)]
    first = {process.pid for process in inside if _numbers(process.pid)[-1:] == [1]}
    spared = set(clients) if inside or number != signal.SIGKILL else set()
    if number != signal.SIGKILL and len(inside) > len(first):
        spared |= first
    for process in found:
        if process.pid not in spared:
            processes.send(process, number)


def take_on(found: Sequence[processes.Process], cpus: Collection[int], nice: int) -> None:
    """Give the processes in a run's containers the CPUs and the niceness of its submitter, for all that they start."""
    for process in found:
        if is_inside(process):
            try:
                os.sched_setaffinity(process.pid, cpus)
                os.setpriority(os.PRIO_PROCESS, process.pid, nice)
            except OSError:
                pass  # gone, as the CPUs may be, or a niceness that only root may give


def is_inside(process: processes.Process) -> bool:
    """True for a process in a container: it has a number there besides ours."""
    return len(_numbers(process.pid)) > len(_numbers(os.getpid()))


def _numbers(pid: int) -> list[int]:
    """The numbers of a process, ours for it first and that of its own namespace last; none if it is gone."""
    try:
        status = files.read(f"/proc/{pid}/status")
    except OSError:
        return []
    return [int(number) for number in status.partition(b"\nNSpid:")[2].partition(b"\n")[0].split()]
