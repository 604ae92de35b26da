"""The dispatcher as a process: started by whoever submits, one per home folder, nobody's child, with a log of its own.

What it does is in `dispatcher`, which only that process imports.
"""

from __future__ import annotations

import os
import resource
import signal
import sys

from localrun import files, settings
from localrun.engine import processes
from localrun.engine.launchers import surroundings
from localrun.engine.queue import Queue
from localrun.errors import SystemFailureError

_ALL_SIGNALS = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}


def check_can_start() -> None:
    """Refuse to queue what nobody could start: SystemFailureError if this process doesn't know its interpreter."""
    if not (sys.executable and os.access(sys.executable, os.X_OK)):
        raise SystemFailureError(
            f"localrun starts Python processes, and sys.executable is {sys.executable!r}: set it to an interpreter"
        )


def ensure(queue: Queue) -> None:
    """Start a dispatcher unless one is alive. Returns at once; the dispatcher reads the queue when it is up.

    Raises:
        SystemFailureError: this process doesn't know its interpreter. OSError: the system can't start it now.
    """
    if queue.dispatcher_pid() is not None:
        return
    check_can_start()
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    # Not a part of the run it may be started from, nor marked as one.
    environ = surroundings.environment()
    environment = {name: value for name, value in environ.items() if not name.startswith("LOCALRUN_RUN_")}
    silent = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1)]
    # What keeps it from coming up is for its log.
    silent += [(os.POSIX_SPAWN_OPEN, 2, queue.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)]
    argv = [sys.executable, "-P", "-c", processes.SERVICE_PROGRAM, root, queue.home]
    pid = os.posix_spawn(
        sys.executable, argv, environment, file_actions=silent, setsid=True, setsigmask=(), setsigdef=_ALL_SIGNALS
    )
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass  # a submitter that ignores SIGCHLD: the kernel has collected it


def main(home: str) -> None:
    """Become the dispatcher of that home folder, or leave if there is one."""
    if os.fork():
        os._exit(0)  # the caller goes on; nobody is our parent any more
    os.setsid()
    _become_nobodys()
    from localrun.engine.dispatch.dispatcher import Dispatcher
    from localrun.engine.dispatch.log import Log, traceback

    queue = Queue(home)
    lock = files.ProcessLock.try_acquire(queue.dispatcher_lock)
    if lock is None:
        return
    log = Log(queue.log)
    try:
        Dispatcher(queue, lock, log, settings.idle_seconds()).loop()
    except Exception:  # noqa: BLE001 - the log is the only place left to say it
        log(f"the dispatcher ends by an error of its own:\n{traceback()}")
        os._exit(1)


def _become_nobodys() -> None:
    """Let go of what came from the submitter that happened to be first: its folder, its files, its umask."""
    os.chdir("/")
    os.umask(0o077)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    # A descriptor for every supervisor, however many.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
