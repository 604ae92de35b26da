"""Finding out about the GPUs by a process of its own, with a time limit: a driver that hangs must not hang the queue.

`inventory` waits for the answer; a ``Probe`` is the same question for a loop that can't wait. The process is killed
when its time is over; one that even that doesn't end, because it is stuck in the kernel, is left alone, and nobody is
asked again until it is gone.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from typing import NamedTuple

from localrun import files, settings
from localrun.engine import gpus
from localrun.engine.gpus import Inventory
from localrun.errors import RunConfigError

TIMEOUT_S = 10.0

_LIBRARY = "libnvidia-ml.so.1"
_DRIVER_FILES = ("/dev/nvidiactl", "/proc/driver/nvidia", "/dev/dxg")  # the last is WSL's
_LIBRARY_FOLDERS = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib")
_PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "nvml.py")
_ANSWER_FD = 3
_REAP_S = 0.2
_ALL_SIGNALS = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}


class _Left(NamedTuple):
    """A process that had not ended when its answer was in or it was given up; ``killed`` in the latter case."""

    parent: int
    pid: int
    pidfd: int
    killed: bool


_unended: list[_Left] = []


def may_have_gpus() -> bool:
    """False if this machine surely has no NVIDIA driver: nobody need be asked. Costs some 50 µs, and loads nothing."""
    if any(map(os.path.exists, _DRIVER_FILES)):
        return True
    folders = [*settings.library_path(), *_LIBRARY_FOLDERS]
    if any(os.path.exists(f"{folder}/{_LIBRARY}") for folder in folders):
        return True
    try:
        return _LIBRARY.encode() in files.read("/etc/ld.so.cache")
    except OSError:  # a C library that has none
        return False


def inventory(timeout: float = TIMEOUT_S) -> Inventory:
    """The GPUs that localrun manages here, as they are now; waits for the driver at most ``timeout`` seconds.

    What goes wrong is the inventory's ``problem``.

    Raises:
        RunConfigError: ``LOCALRUN_GPUS`` is not a list of indices and uuids.
    """
    settings.managed_gpus()
    if not may_have_gpus():
        return Inventory()
    if is_stuck(_REAP_S):
        return Inventory(problem=_STUCK)
    try:
        probe = Probe.start(timeout)
    except OSError as error:
        return Inventory(problem=f"the NVIDIA driver can't be asked: {error}")
    try:
        return _wait(probe)
    finally:
        probe.close()
        _reap(_REAP_S)


def _wait(probe: Probe) -> Inventory:
    poll = select.poll()
    poll.register(probe.fd, select.POLLIN)
    while (left := probe.deadline - time.monotonic()) > 0:
        if poll.poll(left * 1000):
            found = probe.read()
            if found is not None:
                return found
    return probe.give_up()


class Probe:
    """One question to the driver under way.

    Register ``fd``, and call `read` when it is readable until it returns the inventory; call `give_up` when
    ``deadline`` (of the monotonic clock) is past. Either way unregister ``fd`` and `close` afterwards.
    """

    __slots__ = ("_answer", "_killed", "_limit", "_pid", "_pidfd", "deadline", "fd")

    def __init__(self, pid: int, fd: int, timeout: float) -> None:
        self.fd = fd
        self.deadline = time.monotonic() + timeout
        self._limit = timeout
        self._pid = pid
        self._pidfd = os.pidfd_open(pid)
        self._answer = b""
        self._killed = False

    @classmethod
    def start(cls, timeout: float = TIMEOUT_S) -> Probe:
        """Start the process that asks; OSError if there can't be another process."""
        ours, its = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            os.set_blocking(its, True)
            # The answer's end first: it may itself be one of those that are opened then.
            actions = [
                (os.POSIX_SPAWN_DUP2, its, _ANSWER_FD),
                *((os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)),
            ]
            argv = [sys.executable, "-P", _PROGRAM, str(_ANSWER_FD), str(timeout)]
            environment = dict(os.environ)
            pid = os.posix_spawn(
                sys.executable, argv, environment, file_actions=actions,
                setsid=True,  # what the driver's library itself starts is killed with it
                setsigmask=(), setsigdef=_ALL_SIGNALS,
            )  # fmt: skip
            return cls(pid, ours, timeout)
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(its)

    def read(self) -> Inventory | None:
        """Take what has come of the answer; the inventory if that was the last of it."""
        try:
            while piece := os.read(self.fd, 1 << 16):
                self._answer += piece
        except BlockingIOError:
            return None
        try:
            return gpus.decode(self._answer).only(settings.managed_gpus())
        except RunConfigError as error:
            return Inventory(problem=error.message)
        except ValueError:
            return Inventory(problem="the NVIDIA driver can't be asked: the process that did ended without an answer")

    def give_up(self) -> Inventory:
        """Kill the process; the inventory says that the driver hangs."""
        self._killed = True
        if not _has_ended(self._pidfd):  # so the group is still its own
            try:
                os.killpg(self._pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass  # it ended this moment, or is another user's program that the driver's library started
        return Inventory(problem=f"the NVIDIA driver did not answer within {self._limit:g} s")

    def close(self) -> None:
        """Have done with it. Its end is waited for by nobody."""
        os.close(self.fd)
        _unended.append(_Left(os.getpid(), self._pid, self._pidfd, self._killed))
        _reap(0)


_STUCK = "the NVIDIA driver hangs: a process that asked it can't even be killed"


def is_stuck(patience: float = 0) -> bool:
    """True while a process that was given up hasn't ended: to ask again would only leave another one."""
    _reap(patience)
    return any(left.killed for left in _unended)


def _reap(patience: float) -> None:
    """Collect the processes that have ended, waiting so many seconds at most for each."""
    for left in list(_unended):
        if left.parent == os.getpid() and not _has_ended(left.pidfd, patience):
            continue
        try:
            _unended.remove(left)
        except ValueError:
            continue  # another thread was first
        if left.parent != os.getpid():
            continue  # of the process that we were forked from: the descriptor may be anything here
        os.close(left.pidfd)
        try:
            os.waitpid(left.pid, os.WNOHANG)
        except ChildProcessError:
            pass  # whoever collects all children was first


def _has_ended(pidfd: int, patience: float = 0) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(patience * 1000))
