"""What a process run takes over from its submitter besides its record: environment, umask, CPUs, limits, niceness.
And the user's secrets, which go over that environment when the run starts.

The dispatcher is started by one submitter and serves others, so none of these may come from it. What only a
privileged process may change (a higher hard limit, a lower niceness) is tried, and otherwise stays the dispatcher's.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterable, Mapping

from localrun import files
from localrun.settings import CONFIDENTIAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LIMITS = sorted({getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")})


def of_this_process() -> dict[str, Any]:
    """The surroundings of this process, as JSON has them."""
    return {
        "environ": environment(),
        "umask": _umask(),
        "cpus": sorted(os.sched_getaffinity(0)),
        "limits": _limits(),
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
    }


def environment() -> dict[str, str]:
    """The environment of this process, to be kept or passed on: in a run, without the variables of its secrets.

    What a run submits or starts for others gets secrets of its own, or none.
    """
    environ = dict(os.environ)
    for name in environ.pop(CONFIDENTIAL, "").split():
        environ.pop(name, None)
    return environ


def confidential() -> list[bytes]:
    """The values of this run's secrets, in a process of the run: of its variables, and in the files they name.

    Also those that the process was started with: the user's code may have taken them out of its environment.
    """
    try:
        entries = os.fsdecode(files.read("/proc/self/environ")).split("\0")
    except OSError:
        entries = []
    at_first = {name: value for name, _, value in (entry.partition("=") for entry in entries)}
    now, found = dict(os.environ), dict[bytes, None]()
    for name in (at_first.get(CONFIDENTIAL) or now.get(CONFIDENTIAL, "")).split():
        for environ in (at_first, now):
            if name in environ:
                found[_content(name, environ[name])] = None
    return list(found)


def _content(name: str, value: str) -> bytes:
    """What is secret about a variable: its value or, if that is the path of a mounted secret, what the file has."""
    if not name.startswith("SECRET_PATH_"):
        return os.fsencode(value)
    try:
        return files.read(value)
    except (OSError, ValueError):
        return b""


def secrets(home: str, request: Mapping[str, Any]) -> dict[str, str]:
    """The variables of a run's secrets, read anew for each attempt: they are kept nowhere but where they belong.

    Raises:
        SecretNotFoundError: one that the run names is gone.
        SystemFailureError: one can't be read.
    """
    names = request.get("secrets")
    if names == [] or (names is None and not os.path.exists(f"{home}/secrets")):
        return {}
    from localrun.engine.launchers.secretfolder import SecretFolder

    return SecretFolder(home).environment(names, request["env_variables"])


def start_in(surroundings: Mapping[str, Any], spawn: Callable[[], int]) -> int:
    """Start a process by ``spawn`` in other surroundings than this process's own; returns its pid."""
    cpus, limits = os.sched_getaffinity(0), _limits()
    taken_on = [
        [hard if _exceeds(soft, hard) else soft, hard]
        for (soft, _), (_, hard) in zip(surroundings["limits"], limits, strict=False)
    ]
    os.umask(surroundings["umask"])
    try:
        _take_on(surroundings["cpus"], taken_on, limits)
        pid = spawn()
    finally:
        _take_on(cpus, limits, taken_on)
        os.umask(0o077)
    _grant(pid, surroundings, limits)
    return pid


def _limits() -> list[list[int]]:
    return [list(resource.getrlimit(number)) for number in _LIMITS]


def _take_on(cpus: Iterable[int], limits: list[list[int]], instead_of: list[list[int]]) -> None:
    """What is started next inherits these CPUs and limits; of the limits those are set that differ."""
    if os.sched_getaffinity(0) != set(cpus):
        try:
            os.sched_setaffinity(0, cpus)
        except OSError:
            pass  # these CPUs are gone
    for number, (soft, hard), (before, _) in zip(_LIMITS, limits, instead_of, strict=False):
        if soft != before:
            resource.setrlimit(number, (soft, hard))


def _grant(pid: int, surroundings: Mapping[str, Any], ours: list[list[int]]) -> None:
    """Give the new process what can't be taken on for a moment, because there would be no way back."""
    for number, wanted, mine in zip(_LIMITS, surroundings["limits"], ours, strict=False):
        if wanted[1] != mine[1]:
            _try(resource.prlimit, pid, number, tuple(wanted))
    if surroundings["nice"] != os.getpriority(os.PRIO_PROCESS, 0):
        # It leads a group of its own, in which its first children are by now.
        _try(os.setpriority, os.PRIO_PGRP, pid, surroundings["nice"])


def _try(change: Callable[..., object], *arguments: object) -> None:
    try:
        change(*arguments)
    except (OSError, ValueError):
        pass  # not ours to give, or the process has ended


def _exceeds(one: int, other: int) -> bool:
    return other != resource.RLIM_INFINITY and (one == resource.RLIM_INFINITY or one > other)


def _umask() -> int:
    # os.umask can only be read by setting it, which other threads would see.
    _, found, rest = files.read("/proc/self/status").partition(b"Umask:\t")
    return int(rest[:4], 8) if found else 0o022
