"""Processes as the kernel shows them: who descends from whom, who carries a run's mark, and how to signal just those.

A pid alone names nobody, because the kernel uses it again: everything here goes by pid *and* start time. The files
under /proc are read directly: this is the inside of stopping a run, where each process is looked at many times.
"""

from __future__ import annotations

import ctypes
import functools
import os
import signal
from collections.abc import Callable, Iterable, Mapping

from localrun import files
from localrun.tuples import NamedTuple

# In the environment of every process of a run: what finds them again after their supervisor was killed.
MARK = "LOCALRUN_RUN_UID"

# What the interpreter of a dispatcher is told to execute. It stands in its command line, and in its forks'.
SERVICE_PROGRAM = (
    "import sys; root = sys.argv[1]; root in sys.path or sys.path.insert(0, root); "
    "from localrun.engine.dispatch.service import main; main(sys.argv[2])"
)

_PR_SET_PDEATHSIG = 1
# What the process that asks the NVIDIA driver executes: no part of a run either, whoever started it.
DRIVER_PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "gpus", "nvml.py")

_PR_SET_CHILD_SUBREAPER = 36


class Process(NamedTuple):
    """A process at one moment: ``start`` is in clock ticks since boot, as the kernel counts it."""

    pid: int
    start: int
    parent: int
    session: int
    zombie: bool


_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")
_libc = ctypes.CDLL(None, use_errno=True)


def become_subreaper() -> None:
    """Make orphans among this process's descendants its children, instead of init's."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@functools.cache
def boot_id() -> str:
    """The kernel's name for the time since the machine was booted."""
    return files.read("/proc/sys/kernel/random/boot_id").decode().strip()


def trim_memory() -> None:
    """Give memory that is free inside this process back to the system, where the C library knows how."""
    trim = getattr(_libc, "malloc_trim", None)
    if trim is not None:
        trim(0)


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if there is no such process or it is a zombie."""
    process = look(pid)
    return None if process is None or process.zombie else process.start


def look(pid: int) -> Process | None:
    """A process as it is now; None if there is none of that pid."""
    try:
        text = files.read(f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command, in parentheses, may itself hold spaces and parentheses: the fields start after the last one.
    fields = text[text.rindex(b")") + 2 :].split()
    # A process whose first thread has ended looks like a zombie while its other threads work on.
    ended = fields[0] in (b"Z", b"X") and int(fields[17]) <= 1
    return Process(pid, int(fields[19]), int(fields[1]), int(fields[3]), ended)


def heeds_only_hangup(pid: int) -> bool:
    """True for a process on a terminal that ignores SIGTERM, as interactive shells do; False if it is gone."""
    try:
        stat = files.read(f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError):
        return False
    terminal = int(stat[stat.rindex(b")") + 2 :].split()[4])
    return terminal != 0 and ignores(pid, signal.SIGTERM)


def ignores(pid: int, number: int) -> bool:
    """True for a process that ignores a signal; False if it is gone."""
    try:
        status = files.read(f"/proc/{pid}/status")
    except (FileNotFoundError, ProcessLookupError):
        return False
    ignored = int(status.partition(b"\nSigIgn:\t")[2][:16], 16)
    return bool(ignored >> (number - 1) & 1)


def hang_up_with_parent() -> None:
    """Have this process get SIGHUP when its parent is gone, as when a terminal is closed; a new program keeps that."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGHUP, 0, 0, 0)


def usage(pid: int) -> tuple[float, int]:
    """What a process uses: seconds of CPU, with those of children it has waited for, and resident bytes; 0 if gone."""
    try:
        text = files.read(f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError):
        return 0.0, 0
    fields = text[text.rindex(b")") + 2 :].split()
    return sum(map(int, fields[11:15])) / _TICKS_PER_S, int(fields[21]) * _PAGE_SIZE


def snapshot() -> dict[int, Process]:
    """Every process of the machine that is not a zombie, by pid."""
    found = (look(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {process.pid: process for process in found if process is not None and not process.zombie}


def descendants(
    of: Iterable[int], processes: Mapping[int, Process], *, without: Callable[[int], bool] = lambda pid: False
) -> set[int]:
    """The pids below these, not they themselves; one that ``without`` says is left out together with all below it."""
    children: dict[int, list[int]] = {}
    for process in processes.values():
        children.setdefault(process.parent, []).append(process.pid)
    found, todo = set[int](), list(of)
    while todo:
        for pid in children.get(todo.pop(), ()):
            if pid not in found and not without(pid):
                found.add(pid)
                todo.append(pid)
    return found


def marked(uid: str, processes: Mapping[int, Process]) -> set[int]:
    """The pids whose environment, as it was when they were executed, carries the mark of this run."""
    wanted = f"{MARK}={uid}".encode()
    return {pid for pid in processes if wanted in _environment(pid)}


def mark_of(pid: int) -> str | None:
    """The uid of the run that a process is marked as part of, if it is."""
    prefix = f"{MARK}=".encode()
    return next((entry[len(prefix) :].decode() for entry in _environment(pid) if entry.startswith(prefix)), None)


def is_service(pid: int) -> bool:
    """True for a dispatcher, of whatever home, the supervisors forked from it, and what asks the driver for them.

    They are no part of any run.
    """
    try:
        words = files.read(f"/proc/{pid}/cmdline").split(b"\0")
    except OSError:
        return False
    return SERVICE_PROGRAM.encode() in words or os.fsencode(DRIVER_PROGRAM) in words


def send(process: Process, number: int) -> bool:
    """Signal exactly this process; False if it is gone (or the pid is someone else's by now)."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        # The handle is bound to whoever has the pid now; its start time says whether that is the one meant.
        if start_time(process.pid) != process.start:
            return False
        signal.pidfd_send_signal(handle, number)
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        os.close(handle)
    return True


def signal_pid(pid: int, start: int, number: int) -> bool:
    """Signal the process of that pid and start time; False if it is gone."""
    return send(Process(pid, start, 0, 0, False), number)


def _environment(pid: int) -> list[bytes]:
    try:
        return files.read(f"/proc/{pid}/environ").split(b"\0")
    except OSError:  # gone, or another user's
        return []
