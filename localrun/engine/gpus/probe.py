"""Finding out about the GPUs by a process of its own, with a time limit: a driver that hangs must not hang the queue.

`ask` waits for the answer; a ``Probe`` is the same question for a loop that can't wait. The process is killed when its
time is over, and soon if it has told of one device and then falls silent, because the driver hangs on another. One that
even that doesn't end, because it is stuck in the kernel, is left alone, and nobody is asked again until it is gone.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from typing import NamedTuple

from localrun import files, settings
from localrun.engine import processes
from localrun.engine.gpus.answer import Answer
from localrun.engine.gpus.inventory import Inventory

TIMEOUT_S = 10.0

_LIBRARY = "libnvidia-ml.so.1"
_DRIVER_FILES = ("/dev/nvidiactl", "/proc/driver/nvidia", "/dev/dxg")  # the last is WSL's
_LIBRARY_FOLDERS = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib")
_ANSWER_FD = 3
_REAP_S = 0.2
# So long, or as long as the first took, the last device may take once another was heard of.
_SILENCE_S = 2.0
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
    """The GPUs that localrun manages for this process, as they are now: as `ask`, less what ``LOCALRUN_GPUS`` excludes.

    Raises:
        RunConfigError: ``LOCALRUN_GPUS`` is not a list of indices and uuids.
    """
    chosen = settings.managed_gpus()
    return ask(timeout).only(chosen)


def ask(timeout: float = TIMEOUT_S) -> Inventory:
    """The GPUs of this machine; waits for the driver at most ``timeout`` seconds.

    What goes wrong is the inventory's ``problem``, or that of a GPU.
    """
    if not may_have_gpus():
        return Inventory()
    if is_stuck(min(_REAP_S, timeout)):
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
    ``deadline`` (of the monotonic clock; it may come nearer by a `read`) is past. Either way unregister ``fd`` and
    `close` afterwards. ``cost`` is what the question has cost by then, in seconds of CPU.
    """

    __slots__ = ("_answer", "_begun", "_killed", "_pid", "_pidfd", "deadline", "fd")

    def __init__(self, pid: int, fd: int, timeout: float) -> None:
        self.fd = fd
        self._begun = time.monotonic()
        self.deadline = self._begun + timeout
        self._pid = pid
        self._pidfd = os.pidfd_open(pid)
        self._answer = Answer()
        self._killed = False

    @property
    def cost(self) -> float:
        """What the process says to have used; 0 if it could not say so."""
        return self._answer.cost

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
            argv = [sys.executable, "-P", processes.DRIVER_PROGRAM, str(_ANSWER_FD), str(timeout)]
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
                self._answer.add(piece)
        except BlockingIOError:
            if not self._answer.is_whole:
                if self._answer.has_devices:
                    now = time.monotonic()
                    self.deadline = min(self.deadline, now + max(_SILENCE_S, now - self._begun))
                return None
        except ValueError:
            self._answer = Answer()
        return self._inventory("the process that asked the NVIDIA driver ended without an answer")

    def give_up(self) -> Inventory:
        """Kill the process; the inventory says that the driver hangs, or on which devices it does."""
        self._killed = True
        if not _has_ended(self._pidfd):  # so the group is still its own
            try:
                os.killpg(self._pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass  # it ended this moment, or is another user's program that the driver's library started
        return self._inventory(f"the NVIDIA driver did not answer within {round(self.deadline - self._begun, 1):g} s")

    def _inventory(self, silence: str) -> Inventory:
        try:
            return self._answer.inventory(silence)
        except ValueError as error:
            return Inventory(problem=f"what the NVIDIA driver says can't be understood: {error}")

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
