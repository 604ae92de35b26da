"""The dispatcher: one process per user and machine, there while there is work, deciding what starts.

It is started by whoever submits (`ensure`), holds the dispatcher lock while it acts, forks a supervisor for every run
it starts, and puts right what killed processes left behind. What it holds in memory is a copy of what the queue's
folders say: killed at any moment, the next one reads the folders and carries on, and running runs don't notice.
It leaves when nothing is left in the queue, deciding so under the queue lock, so that no submission falls between.
"""

from __future__ import annotations

import bisect
import errno
import gc
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, NoReturn

from localrun import files, settings
from localrun.engine import capacity, processes, scheduling
from localrun.engine.placement import Slot
from localrun.engine.queue import ACTIVE, ENDING, SUBMITTING, WAITING, Queue, Ticket
from localrun.engine.supervisor import NEWS, STOP, supervise
from localrun.errors import LocalrunError, NotARunError, RunNotFoundError, SystemFailureError
from localrun.model import record as records
from localrun.model.folder import SUPERVISOR_BYTE, RunFolder
from localrun.model.record import Record
from localrun.model.status import Reason, RunStatus

if TYPE_CHECKING:
    from localrun.engine.gpus import Gpu
    from localrun.engine.gpuwatch import GpuWatch

_TICK_S = 5.0
_SOON_S = 0.05
_LOG_LIMIT = 1 << 20
_FIRST_PAUSE_S, _MAX_PAUSE_S = 0.25, 60.0
_ALL_SIGNALS = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}


def check_can_start() -> None:
    """Refuse to queue what nobody could start: SystemFailureError if this process doesn't know its interpreter."""
    if not (sys.executable and os.access(sys.executable, os.X_OK)):
        raise SystemFailureError(
            f"localrun starts Python processes, and sys.executable is {sys.executable!r}: set it to an interpreter"
        )


def ensure(queue: Queue) -> None:
    """Start a dispatcher unless one is alive. Returns at once; the dispatcher reads the queue when it is up."""
    if queue.dispatcher_pid() is not None:
        return
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    # Not a part of the run it may be started from, nor marked as one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LOCALRUN_RUN_")}
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
    queue = Queue(home)
    lock = files.ProcessLock.try_acquire(queue.dispatcher_lock)
    if lock is None:
        return
    log = _Log(queue.log)
    try:
        Dispatcher(queue, lock, log, settings.idle_seconds()).loop()
    except Exception:  # noqa: BLE001 - the log is the only place left to say it
        log(f"the dispatcher ends by an error of its own:\n{_traceback()}")
        os._exit(1)


def _become_nobodys() -> None:
    """Let go of what came from the submitter that happened to be first: its folder, its files, its umask."""
    os.chdir("/")
    os.umask(0o077)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    # A descriptor for every supervisor, however many.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _traceback() -> str:
    import traceback

    return traceback.format_exc()


class _Log:
    """Lines in the user's dispatcher log. It starts over when it has grown large."""

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            if os.stat(path).st_size > _LOG_LIMIT:
                os.replace(path, f"{path}.old")
        except OSError:
            pass

    def __call__(self, message: str) -> None:
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, f"{records.now()} [{os.getpid()}] {message}\n".encode(errors="replace"))
            finally:
                os.close(fd)
        except OSError:
            pass  # a full disk must not stop the queue


class Dispatcher:
    """The loop and its steps. ``waiting`` and ``active`` mirror the queue's folders."""

    def __init__(self, queue: Queue, lock: files.ProcessLock, log: _Log, idle: float) -> None:
        self._queue = queue
        self._lock = lock
        self._log = log
        self._idle = idle
        self._pid = os.getpid()
        self._capacity = capacity.capacity()
        self._least = self._capacity
        self._look_at = float("inf")
        self._names: list[str] = []
        self._waiting: dict[str, Ticket] = {}
        self._delayed: dict[str, float] = {}  # ticket → when it may start
        self._active: dict[str, Ticket] = {}
        self._supervisors: dict[int, str] = {}  # pidfd → ticket
        self._gpus: GpuWatch | None = None  # from the first run that needs some on
        self._given: dict[str, tuple[str, ...]] = {}  # active ticket → uuids of its GPUs
        self._arrived: dict[str, float] = {}  # waiting ticket that needs GPUs → when we learned of it
        self._attempts: dict[str, tuple[float, float]] = {}  # ticket → (not before, the pause until then)
        self._fifo = os.open(queue.wake_fifo, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._poll = select.epoll()
        self._poll.register(self._fifo, select.EPOLLIN)
        for number in (signal.SIGCHLD, signal.SIGINT, NEWS, STOP):
            signal.signal(number, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # runs go on; whoever comes next starts another one
        signal.signal(signal.SIGHUP, lambda *_: None)  # not ignored, which a run would inherit
        processes.become_subreaper()
        gc.collect()
        processes.trim_memory()
        gc.freeze()  # forked supervisors share this memory; a collection would copy it

    def loop(self) -> None:
        """Work until the queue has been quiet for the idle time."""
        self._look()
        quiet_since = time.monotonic()
        # Where the home folder was removed and made anew, the lock there is another one, and another's.
        while self._lock.is_at(self._queue.dispatcher_lock):
            self._start_what_fits()
            now = time.monotonic()
            if self._waiting or self._active or self._supervisors:
                quiet_since = now
            elif now - quiet_since >= self._idle:
                if self._leave():
                    return
                quiet_since = now
            self._wait(quiet_since + self._idle - now)

    # -- seeing -----------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Read the queue's folders anew and put right what was left behind."""
        self._look_at = time.monotonic() + _TICK_S
        self._capacity = self._least = capacity.capacity()
        known, self._names, self._waiting, self._delayed = self._waiting, [], {}, {}
        for name in self._queue.names(WAITING):
            self._learn(name, known.get(name))
        self._clean_submissions()
        self._adopt()

    def _read(self, state: str, name: str) -> Ticket | None:
        try:
            return self._queue.read(state, name)
        except LocalrunError as error:
            self._log(f"{error}; it is put aside")
            # A name that starts with a dot is no ticket's.
            os.rename(self._queue.path(state, name), self._queue.path(state, f".damaged-{name}"))
            return None

    def _adopt(self) -> None:
        """Know every claimed run: watch the supervisor that lives, replace the one that doesn't."""
        supervised = set(self._supervisors.values())
        self._active = {}
        for state in (ACTIVE, ENDING):
            for name in self._queue.names(state):
                ticket = self._read(state, name)
                if ticket is None:
                    continue
                if state == ACTIVE:
                    self._active[name] = ticket
                if name not in supervised:
                    self._adopt_one(ticket, state)
        self._given = {name: uuids for name, uuids in self._given.items() if name in self._active}
        there = self._active.keys() | self._waiting.keys()
        self._attempts = {name: attempt for name, attempt in self._attempts.items() if name in there}

    def _adopt_one(self, ticket: Ticket, state: str) -> None:
        try:
            lock = self._take(ticket)
        except OSError as error:
            self._unreachable(ticket, error)
            return
        if ticket.gpus.number:
            self._know_gpus(ticket)
        if lock is None:
            self._watch_recorded(ticket)
            return
        # Nobody looks after it. With its lock in hand, nobody else starts to.
        try:
            record = records.read(RunFolder(ticket.folder))
            status = records.status(record) if record["uid"] == ticket.uid else RunStatus.UNKNOWN
        except LocalrunError as error:
            self._discard(ticket, error)
            lock.release()
            return
        if status.is_terminal() or status is RunStatus.UNKNOWN:
            self._queue.drop(ticket.name, state)
            self._active.pop(ticket.name, None)
            lock.release()
        elif status.is_active():
            self._recover(ticket, lock)
        else:
            self._put_back(ticket, state)
            lock.release()

    def _know_gpus(self, ticket: Ticket) -> None:
        """The GPUs of a run that an earlier dispatcher started, as its record says."""
        try:
            record = records.read(RunFolder(ticket.folder))
        except LocalrunError:
            return
        self._given[ticket.name] = tuple(gpu["uuid"] for gpu in record["gpus"])

    def _put_back(self, ticket: Ticket, state: str) -> None:
        """A run that was claimed and never started waits again, at its old place."""
        with self._queue.lock():
            self._queue.move(ticket.name, state, WAITING)
        self._active.pop(ticket.name, None)
        self._given.pop(ticket.name, None)
        self._learn(ticket.name)
        # A supervisor that fails at once, for want of memory say, isn't forked over and over without a pause.
        if ticket.name in self._waiting:
            self._delay(self._waiting[ticket.name]._replace(not_before=time.time() + self._pause(ticket)))

    def _watch_recorded(self, ticket: Ticket) -> None:
        """Watch a supervisor that an earlier dispatcher forked, by the pid it wrote into the record."""
        self._look_at = time.monotonic() + 4 * _SOON_S  # it may be about to write its pid, or to leave
        try:
            supervisor = records.read(RunFolder(ticket.folder))["supervisor"]
            if supervisor is not None and processes.start_time(supervisor["pid"]) == supervisor["start"]:
                self._watch(os.pidfd_open(supervisor["pid"]), ticket.name)
        except (LocalrunError, ProcessLookupError):
            return

    def _watch(self, pidfd: int, name: str) -> None:
        self._supervisors[pidfd] = name
        self._poll.register(pidfd, select.EPOLLIN)

    def _clean_submissions(self) -> None:
        """End the submissions whose submitter was killed: none was accepted."""
        for name in self._queue.names(SUBMITTING):
            with self._queue.lock():
                if not os.path.exists(self._queue.path(SUBMITTING, name)):
                    continue  # accepted meanwhile
                lock = files.ByteLock.try_acquire(self._queue.path(SUBMITTING, name))
                if lock is None:
                    continue
                try:
                    ticket = self._queue.read(SUBMITTING, name)
                except LocalrunError:
                    ticket = None  # its writing broke off, and with it the submission: nothing else was made
                if ticket is not None:
                    self._clean_submission(ticket)
                self._queue.drop(name, SUBMITTING)
                lock.release()

    def _clean_submission(self, ticket: Ticket) -> None:
        import shutil

        shutil.rmtree(ticket.building, ignore_errors=True)

        def fail(record: Record) -> None:
            if record["uid"] == ticket.uid:
                message = "its submission was interrupted before it was in the queue: submit it again"
                records.advance(record, RunStatus.FAILED, reason=Reason.SYSTEM_FAILURE, message=message)

        try:
            records.update(RunFolder(ticket.folder), fail, sync=True)
        except (RunNotFoundError, NotARunError):
            return  # it had not come so far
        except (LocalrunError, OSError) as error:
            self._log(f"run {ticket.run}, whose submission was interrupted: {error}")

    def _learn(self, name: str, ticket: Ticket | None = None) -> None:
        """Take a ticket that is said to be waiting into the mirror."""
        if name in self._waiting:
            return
        ticket = ticket or self._read(WAITING, name)
        if ticket is not None:
            self._waiting[name] = ticket
            if ticket.not_before:
                self._delay(ticket)
            if ticket.gpus.number:
                self._arrived.setdefault(name, time.monotonic())
            self._least = scheduling.least(self._least, ticket.need)
            bisect.insort(self._names, name)

    def _delay(self, ticket: Ticket) -> None:
        self._waiting[ticket.name] = ticket
        self._delayed[ticket.name] = ticket.not_before

    def _forget(self, name: str) -> None:
        self._delayed.pop(name, None)
        self._arrived.pop(name, None)
        if self._waiting.pop(name, None) is not None:
            self._names.remove(name)

    # -- starting ---------------------------------------------------------------------------------------------------

    def _start_what_fits(self) -> None:
        available = scheduling.free(self._capacity, self._active.values())
        now = time.time()
        for name in [name for name, at in self._delayed.items() if at <= now]:
            del self._delayed[name]
        ready: Iterable[Ticket] = (self._waiting[name] for name in self._names if name not in self._delayed)
        slots: tuple[Slot, ...] = ()
        if self._arrived:
            if self._gpus is None:
                from localrun.engine.gpuwatch import GpuWatch

                self._gpus = GpuWatch(self._log)
            seen_at = self._see_gpus(self._gpus)
            ready = [one for one in ready if not one.gpus.number or self._arrived.get(one.name, seen_at) < seen_at]
            slots = self._gpus.slots({uuid for uuids in self._given.values() for uuid in uuids})
        for ticket, gpus in scheduling.choose(ready, available, self._capacity, self._least, slots):
            self._start(ticket, gpus)

    def _see_gpus(self, gpus: GpuWatch) -> float:
        """When what is known of the GPUs was found out; asks again if someone waits for newer news."""
        self._arrived = {name: at for name, at in self._arrived.items() if name in self._waiting}
        waiting = [at for name, at in self._arrived.items() if name not in self._delayed]
        if waiting and gpus.seen_at() <= max(waiting) and gpus.ask():
            self._poll.register(gpus.fd, select.EPOLLIN)
        return gpus.seen_at()

    def _start(self, ticket: Ticket, gpus: tuple[Gpu, ...]) -> None:
        try:
            lock = self._take(ticket)
        except OSError as error:
            self._unreachable(ticket, error)
            return
        if lock is None:
            # The supervisor of its last attempt is about to leave.
            self._delay(ticket._replace(not_before=time.time() + _SOON_S))
            return
        self._forget(ticket.name)
        with self._queue.lock():
            claimed = self._queue.move(ticket.name, WAITING, ACTIVE)
        if not claimed:
            lock.release()  # stopped while it waited
            return
        self._active[ticket.name] = ticket
        if gpus:
            self._given[ticket.name] = tuple(gpu.uuid for gpu in gpus)
        self._fork(ticket, lock, gpus=gpus)

    def _take(self, ticket: Ticket) -> files.ByteLock | None:
        """The run's lock, which its supervisor will hold; None if one does already."""
        return files.ByteLock.try_acquire(RunFolder(ticket.folder).lock, SUPERVISOR_BYTE)

    def _unreachable(self, ticket: Ticket, error: OSError) -> None:
        """Give up a run whose folder is gone; wait for one whose file system is not to be had now."""
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            self._discard(ticket, error.strerror)
        elif ticket.name in self._waiting:
            self._delay(ticket._replace(not_before=time.time() + _MAX_PAUSE_S / 10))

    def _discard(self, ticket: Ticket, why: object) -> None:
        """Give up a ticket behind which there is no run any more."""
        self._log(f"run {ticket.run} is gone from the queue: {why}")
        self._queue.drop(ticket.name, WAITING, ACTIVE, ENDING)
        self._active.pop(ticket.name, None)
        self._forget(ticket.name)

    def _recover(self, ticket: Ticket, lock: files.ByteLock) -> None:
        """Let a new supervisor end a run that lost its own; ever more patiently if that keeps failing."""
        not_before, _ = self._attempts.get(ticket.name, (0.0, 0.0))
        if time.monotonic() < not_before:
            lock.release()
            return
        self._pause(ticket)
        self._fork(ticket, lock, recover=True)

    def _pause(self, ticket: Ticket) -> float:
        """How long to leave a run alone whose supervisor was lost; longer each time."""
        _, last = self._attempts.get(ticket.name, (0.0, _FIRST_PAUSE_S / 2))
        pause = min(last * 2, _MAX_PAUSE_S)
        self._attempts[ticket.name] = time.monotonic() + pause, pause
        return pause

    def _fork(
        self, ticket: Ticket, lock: files.ByteLock, *, gpus: tuple[Gpu, ...] = (), recover: bool = False
    ) -> None:
        try:
            pid = os.fork()
        except OSError as error:  # no processes or memory left: it waits again
            self._log(f"run {ticket.run} can't be started now: {error}")
            if not recover:
                self._put_back(ticket, ACTIVE)
            lock.release()
            return
        if pid == 0:
            self._supervise(ticket, lock, gpus, recover=recover)
        lock.disown()
        self._watch(os.pidfd_open(pid), ticket.name)

    def _supervise(
        self, ticket: Ticket, lock: files.ByteLock, gpus: tuple[Gpu, ...], *, recover: bool
    ) -> NoReturn:
        """What the forked child does. It first closes all it inherited but the run's lock."""
        code = 1
        try:
            os.closerange(3, lock.fd)
            os.closerange(lock.fd + 1, os.sysconf("SC_OPEN_MAX"))
            supervise(self._queue, ticket, lock, gpus, self._log, self._pid, recover=recover)
            code = 0
        except BaseException:  # noqa: BLE001 - nothing may get back into the dispatcher's loop
            self._log(f"the supervisor of run {ticket.run} failed:\n{_traceback()}")
        finally:
            os._exit(code)

    # -- waiting ----------------------------------------------------------------------------------------------------

    def _wait(self, idle_left: float) -> None:
        """Sleep until news, a supervisor's end, a retry's time, or the tick on which everything is looked at again."""
        timeout = self._look_at - time.monotonic()
        if not (self._waiting or self._active or self._supervisors):
            timeout = min(timeout, idle_left)
        if self._delayed:
            timeout = min(timeout, min(self._delayed.values()) - time.time())
        asked = -1 if self._gpus is None else self._gpus.fd
        if self._gpus is not None:
            timeout = min(timeout, self._gpus.deadline - time.monotonic())
        events = self._poll.poll(max(timeout, 0.001))
        look = time.monotonic() >= self._look_at
        for fd, _ in events:
            if fd == self._fifo:
                look = self._read_wakes() or look
            elif fd != asked:
                self._supervisor_ended(fd)
                look = True
        if self._gpus is not None and asked >= 0:
            self._hear(self._gpus, asked)
        self._reap()
        if look:
            self._look()

    def _hear(self, gpus: GpuWatch, fd: int) -> None:
        """Take what there is of the driver's answer."""
        self._poll.unregister(fd)  # before it is closed: a supervisor that was just forked may still have a copy
        if not gpus.read():
            self._poll.register(fd, select.EPOLLIN)

    def _read_wakes(self) -> bool:
        """Learn the tickets that were announced; True if the folders are to be read: asked for, or some may be lost."""
        data = os.read(self._fifo, 1 << 16)
        names = data.decode(errors="replace").removesuffix("\n").split("\n")
        for name in names:
            ended, is_succession, successor = name.partition(">")
            if is_succession:
                self._succeeded(ended, successor)
            elif name:
                self._learn(name)
        return "" in names or len(data) > (1 << 15)

    def _succeeded(self, ended: str, successor: str) -> None:
        """A supervisor has gone on from one run to the next."""
        self._active.pop(ended, None)
        self._forget(successor)
        ticket = self._read(ACTIVE, successor)
        if ticket is not None:
            self._active[successor] = ticket
        for pidfd, name in self._supervisors.items():
            if name == ended:
                self._supervisors[pidfd] = successor

    def _supervisor_ended(self, pidfd: int) -> None:
        self._poll.unregister(pidfd)
        os.close(pidfd)
        del self._supervisors[pidfd]

    def _reap(self) -> None:
        """Collect exited supervisors, and orphans of those that were killed."""
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass

    def _leave(self) -> bool:
        """Go, unless something came meanwhile. Decided under the queue lock: whoever submits later sees us gone."""
        with self._queue.lock():
            if not self._queue.is_quiet():
                quiet = False
            else:
                quiet = True
                self._queue.forget_environments()
                self._lock.release()
        if not quiet:
            self._look()
        return quiet
