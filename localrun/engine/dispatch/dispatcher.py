"""The dispatcher: one per user and machine, there while there is work, deciding what starts.

It holds the dispatcher lock while it acts, forks a supervisor for every run it starts, and puts right what killed
processes left behind. What it holds in memory is a copy of what the queue's folders say (`Backlog`, `Roster`): killed
at any moment, the next one reads the folders and carries on, and running runs don't notice. It leaves when nothing is
left in the queue, deciding so under the queue lock, so that no submission falls between.
"""

from __future__ import annotations

import errno
import functools
import gc
import os
import select
import signal
import time

from localrun import files
from localrun.engine import processes
from localrun.engine.dispatch import capacity, dependencies, interrupted, withdrawal
from localrun.engine.dispatch.backlog import Backlog
from localrun.engine.dispatch.dependencies import Verdict
from localrun.engine.dispatch.log import Log, traceback
from localrun.engine.dispatch.roster import Roster
from localrun.engine.launchers import load_container_launcher
from localrun.engine.queue import ACTIVE, ENDING, WAITING, Queue
from localrun.engine.scheduling import plan as scheduling
from localrun.engine.scheduling import room
from localrun.engine.scheduling.placement import Slot
from localrun.engine.scheduling.room import Active, Room
from localrun.engine.scheduling.ticket import Ticket
from localrun.engine.supervision import conclusion
from localrun.engine.supervision.signals import NEWS, STOP
from localrun.engine.supervision.supervisor import supervise
from localrun.errors import LocalrunError
from localrun.model import record as records
from localrun.model.folder import SUPERVISOR_BYTE, RunFolder
from localrun.model.record import Record
from localrun.model.status import RunStatus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from localrun.engine.gpus.gpuwatch import GpuWatch
    from localrun.engine.gpus.inventory import Gpu

_TICK_S = 5.0
_SOON_S = 0.05
_UNREACHABLE_S = 6.0
_FIRST_PAUSE_S, _MAX_PAUSE_S = 0.25, 60.0
_MAX_CLEAR_PAUSE_S = 4.0  # an engine that was down comes back when somebody looks, and at what it shows
_CLEARED_PER_S = 2.0


class Dispatcher:
    """The loop and its steps."""

    def __init__(self, queue: Queue, lock: files.ProcessLock, log: Log, idle: float) -> None:
        self._queue = queue
        self._lock = lock
        self._log = log
        self._idle = idle
        self._pid = os.getpid()
        self._poll = select.epoll()
        self._capacity = capacity.capacity()
        self._look_at = float("inf")
        self._backlog = Backlog(queue, log)
        self._roster = Roster(queue, self._poll, log)
        self._gpus: GpuWatch | None = None  # from the first run that needs some on
        self._attempts: dict[str, tuple[float, float]] = {}  # ticket → (not before, the pause until then)
        self._fifo = os.open(queue.wake_fifo, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
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
            if self._backlog or self._roster:
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
        self._capacity = capacity.capacity()
        self._backlog.look(self._capacity)
        interrupted.clean(self._queue, self._log)
        for ticket, state in self._roster.look():
            self._adopt(ticket, state)
        self._attempts = {name: attempt for name, attempt in self._attempts.items() if self._queue.has(name)}

    def _adopt(self, ticket: Ticket, state: str) -> None:
        """Watch the supervisor of a claimed run; if it has none, end the run, or let it wait again."""
        ticket = self._follow(ticket)
        try:
            lock = self._take(ticket)
        except OSError as error:
            if not self._has_moved(ticket):
                self._unreachable(ticket, error)
            return
        if lock is None:
            self._look_at = time.monotonic() + 4 * _SOON_S  # it may be about to write its pid, or to leave
        try:
            record = records.read(RunFolder(ticket.folder))
        except LocalrunError as error:
            if lock is not None:
                if not self._has_moved(ticket):
                    self._discard(ticket, error)
                lock.release()
            return
        self._roster.recall(ticket, record)
        if lock is None:
            self._roster.recall_supervisor(ticket, record)
            return
        # Nobody looks after it. With its lock in hand, nobody else starts to.
        status = records.status(record) if record["uid"] == ticket.uid else RunStatus.UNKNOWN
        if status.is_terminal() and record["request"].get("image"):
            # Its container may be there still. Those of many runs are not asked for more often than those of a few.
            self._recover(ticket, lock, most=max(_MAX_CLEAR_PAUSE_S, len(self._attempts) / _CLEARED_PER_S))
        elif status.is_terminal() or status is RunStatus.UNKNOWN:
            if not self._has_moved(ticket):
                self._queue.drop(ticket.name, state)
                self._roster.remove(ticket.name)
            lock.release()
        elif status.is_active():
            self._recover(ticket, lock)
        else:
            self._put_back(ticket, state)
            lock.release()

    def _follow(self, ticket: Ticket) -> Ticket:
        """The ticket, with the folder to which its run was moved if it was deleted or replaced.

        Something may be left of such a run that is to be cleared.
        """
        archived = RunFolder(ticket.folder).archived(ticket.uid).path
        return ticket._replace(folder=archived) if os.path.exists(archived) else ticket

    def _has_moved(self, ticket: Ticket) -> bool:
        """True if a run was deleted or replaced while we looked at it; then we look again."""
        moved = self._follow(ticket) != ticket
        if moved:
            self._look_at = time.monotonic()
        return moved

    def _put_back(self, ticket: Ticket, state: str) -> None:
        """A run that was claimed and never started waits again, at its old place."""
        with self._queue.lock():
            self._queue.move(ticket.name, state, WAITING)
        self._roster.remove(ticket.name)
        self._backlog.learn(ticket.name)
        # A supervisor that fails at once, for want of memory say, isn't forked over and over without a pause.
        if ticket.name in self._backlog:
            self._backlog.delay(ticket, self._pause(ticket))

    def _unreachable(self, ticket: Ticket, error: OSError) -> None:
        """Give up a run whose folder is gone; wait for one whose file system is not to be had now."""
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            self._discard(ticket, error.strerror)
        elif ticket.name in self._backlog:
            self._backlog.delay(ticket, _UNREACHABLE_S)

    def _discard(self, ticket: Ticket, why: object) -> None:
        """Give up a ticket behind which there is no run any more."""
        self._log(f"run {ticket.run} is gone from the queue: {why}")
        self._queue.drop(ticket.name, WAITING, ACTIVE, ENDING)
        self._roster.remove(ticket.name)
        self._backlog.forget(ticket.name)

    # -- starting ---------------------------------------------------------------------------------------------------

    def _start_what_fits(self) -> None:
        for ticket in self._backlog.overdue():
            self._withdraw(ticket, withdrawal.stop_overdue)
        self._settle_dependencies()
        active = self._roster.active()
        left = room.free(self._capacity, (run.ticket for run in active))
        seen_at, slots = self._see_gpus() if self._backlog.wants_gpus() else (float("-inf"), ())
        plan = scheduling.plan(
            self._backlog.ready(),
            Room(left, slots),
            self._capacity,
            active,
            unseen=self._backlog.unseen(seen_at),
            smallest=self._backlog.least,
            now=time.time(),
        )
        if plan.victims and self._find_ending(active):
            return self._start_what_fits()
        for ticket, gpus in plan.starts:
            self._start(ticket, gpus)
        for victim, ahead in plan.victims:
            self._preempt(victim.ticket, ahead)
        return None

    def _settle_dependencies(self) -> None:
        """See which of the runs that others wait for are over, and write it down. Those in the queue are not."""
        held = self._backlog.held()
        there = self._backlog.uids() | {run.ticket.uid for run in self._roster.active()} if held else set()
        for ticket in held:
            verdicts = [(each, *dependencies.judge(each)) for each in ticket.after if each.uid not in there]
            failed = next((why for _, verdict, why in verdicts if verdict is Verdict.FAILED), None)
            if failed is not None:
                self._withdraw(ticket, functools.partial(withdrawal.fail_after, why=failed))
                there.discard(ticket.uid)  # for those who wait for this one
                continue
            met = {each for each, verdict, _ in verdicts if verdict is Verdict.MET}
            if met:
                left = ticket._replace(after=tuple(each for each in ticket.after if each not in met))
                self._backlog.replace(left)
                self._queue.rewrite(left)

    def _withdraw(self, ticket: Ticket, end: Callable[[Queue, Ticket], None]) -> None:
        """End a waiting run; if that can't be written now, later."""
        try:
            end(self._queue, ticket)
        except (LocalrunError, OSError) as error:
            self._log(f"run {ticket.run} is to be ended, and its record can't be written: {error}")
            return
        self._backlog.forget(ticket.name)

    def _find_ending(self, active: list[Active]) -> bool:
        """True if active runs that we took to stay are ending; nobody makes way for what comes free anyway."""
        found = False
        for run in active:
            try:
                is_ending = not run.is_ending and conclusion.is_ending(records.read(RunFolder(run.ticket.folder)))
            except LocalrunError:
                continue
            if is_ending:
                self._roster.mark_ending(run.ticket.name)
                found = True
        return found

    def _preempt(self, ticket: Ticket, ahead: Ticket) -> None:
        """Have an active run stop and wait again, for the sake of one that is ahead of it."""

        def change(record: Record) -> None:
            if record["uid"] == ticket.uid and records.status(record).is_active():
                conclusion.preempt(record, ahead.run)

        try:
            record = records.update(RunFolder(ticket.folder), change, sync=True)
        except (LocalrunError, OSError) as error:
            self._log(f"run {ticket.run} can't be made to make way for {ahead.run}: {error}")
            return
        if record["preempt_requested"] is None:  # about to start, or over by now
            self._look_at = min(self._look_at, time.monotonic() + _SOON_S)
            return
        self._log(f"run {ticket.run} makes way for {ahead.run}")
        self._roster.mark_ending(ticket.name)
        if record["supervisor"] is not None:
            processes.signal_pid(record["supervisor"]["pid"], record["supervisor"]["start"], NEWS)

    def _see_gpus(self) -> tuple[float, tuple[Slot, ...]]:
        """What is known of the GPUs, and when it was found out; asks again if someone waits for newer news.

        The last answer may be older than the end of a run, and show its processes.
        """
        if self._gpus is None:
            from localrun.engine.gpus.gpuwatch import GpuWatch

            self._gpus = GpuWatch(self._log)
        gpus, ours, wanted = self._gpus, self._roster.gpus(), self._backlog.wants_gpus_seen_after()
        since = max(wanted, self._roster.freed_at)
        if wanted > float("-inf") and not gpus.is_enough(since, self._backlog.gpu_needs(), ours) and gpus.ask():
            self._poll.register(gpus.fd, select.EPOLLIN)
        return gpus.seen_at(), gpus.slots(ours)

    def _start(self, ticket: Ticket, gpus: tuple[Gpu, ...]) -> None:
        try:
            lock = self._take(ticket)
        except OSError as error:
            self._unreachable(ticket, error)
            return
        if lock is None:
            self._backlog.delay(ticket, _SOON_S)  # the supervisor of its last attempt is about to leave
            return
        self._backlog.forget(ticket.name)
        with self._queue.lock():
            claimed = self._queue.move(ticket.name, WAITING, ACTIVE)
        if not claimed:
            lock.release()  # stopped while it waited
            return
        self._roster.add(ticket, tuple(gpu.uuid for gpu in gpus))
        if ticket.is_container:
            load_container_launcher()
        self._fork(ticket, lock, gpus=gpus)

    def _take(self, ticket: Ticket) -> files.ByteLock | None:
        """The run's lock, which its supervisor will hold; None if one does already."""
        return files.ByteLock.try_acquire(RunFolder(ticket.folder).lock, SUPERVISOR_BYTE)

    def _recover(self, ticket: Ticket, lock: files.ByteLock, most: float = _MAX_PAUSE_S) -> None:
        """Let a new supervisor end a run that lost its own; ever more patiently, up to ``most`` s, if that fails."""
        not_before, _ = self._attempts.get(ticket.name, (0.0, 0.0))
        if time.monotonic() < not_before:
            lock.release()
            return
        self._pause(ticket, most)
        self._fork(ticket, lock, recover=True)

    def _pause(self, ticket: Ticket, most: float = _MAX_PAUSE_S) -> float:
        """How long to leave a run alone whose supervisor was lost; longer each time."""
        _, last = self._attempts.get(ticket.name, (0.0, _FIRST_PAUSE_S / 2))
        pause = min(last * 2, most)
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
        self._roster.watch(os.pidfd_open(pid), ticket.name)

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
            self._log(f"the supervisor of run {ticket.run} failed:\n{traceback()}")
        finally:
            os._exit(code)

    # -- waiting ----------------------------------------------------------------------------------------------------

    def _wait(self, idle_left: float) -> None:
        """Sleep until news, a supervisor's end, a retry's time, or the tick on which everything is looked at again."""
        timeout = self._look_at - time.monotonic()
        if not (self._backlog or self._roster):
            timeout = min(timeout, idle_left)
        next_at = self._backlog.next_at()
        if next_at is not None:
            timeout = min(timeout, next_at - time.time())
        asked = -1 if self._gpus is None else self._gpus.fd
        if self._gpus is not None:
            timeout = min(timeout, self._gpus.deadline - time.monotonic())
        events = self._poll.poll(max(timeout, 0.001))
        look = time.monotonic() >= self._look_at
        for fd, _ in events:
            if fd == self._fifo:
                look = self._read_wakes() or look
            elif fd != asked:
                self._roster.supervisor_ended(fd)
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
        look = "" in names or len(data) > (1 << 15)
        for name in names:
            ended, is_succession, successor = name.partition(">")
            if is_succession:
                self._roster.replace(ended, successor)
                self._backlog.forget(successor)
            elif name.startswith("~"):
                self._backlog.forget(name[1:])
                look = True  # to be read again
            elif name:
                self._backlog.learn(name)
        return look

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
            quiet = self._queue.is_quiet()
            if quiet:
                self._queue.forget_environments()
                self._lock.release()
        if not quiet:
            self._look()
        return quiet
