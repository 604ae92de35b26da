"""The supervisor: one process per active run, from its claim to its final record.

It is forked from the dispatcher and holds the run's lock all its life; that lock, not its pid, says that the run is
looked after. Its steps stand in `Supervisor.run`. What a process or container is it leaves to the launcher, how an end
is to be called to `outcome`. A supervisor that was killed is replaced by one that starts at the end: `recover`.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence

from localrun import files
from localrun.engine import processes
from localrun.engine.launchers import launcher_of, lost_launcher_of, ranks, surroundings
from localrun.engine.launchers.process import CannotStartError, NoImageError, ProcessLauncher
from localrun.engine.queue import Queue
from localrun.engine.scheduling.ticket import Ticket
from localrun.engine.supervision import conclusion, outcome, signals, termination
from localrun.engine.supervision.attempt import Attempt, Judge
from localrun.engine.supervision.holdings import Holdings
from localrun.engine.supervision.logclock import LogClock
from localrun.engine.supervision.news import News
from localrun.engine.supervision.outcome import Cause, Ending
from localrun.engine.supervision.signals import NEWS, STOP
from localrun.engine.supervision.telemetry import Telemetry
from localrun.engine.supervision.writing import Writing, unwritable
from localrun.engine.watch import Watch
from localrun.errors import IllegalTransitionError, LocalrunError, SystemFailureError
from localrun.model import record as records
from localrun.model import times
from localrun.model.folder import RunFolder
from localrun.model.record import Record
from localrun.model.status import Reason, RunStatus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from localrun.engine.gpus.inventory import Gpu

_LEASE_RETRY_S = 0.5
# A signal may be lost with who was to send it: the record is looked at so often at least.
_LOOK_S = 5.0


class _ConnectedError(Exception):
    """Somebody has connected to the run: what was started so is to be ended before the run's end is written."""


class Supervisor:
    """Looks after one run. ``me`` is this process as records have it, ``pipe`` where its signals appear.

    ``log`` reaches the dispatcher's log.
    """

    def __init__(
        self,
        queue: Queue,
        ticket: Ticket,
        gpus: Sequence[Gpu],
        me: Mapping[str, Any],
        pipe: int,
        clock: LogClock,
        log: Callable[[str], None],
    ) -> None:
        self._queue = queue
        self._ticket = ticket
        self._held = Holdings(gpus, run=ticket.run, uid=ticket.uid, log=log)
        self._log = log
        self._folder = RunFolder(ticket.folder)
        self._me = me
        self._news = News(pipe, self._folder)
        self._record = Writing(self._folder, ticket.run, log)
        self._attempt = Attempt(self._folder)
        self._launcher: ProcessLauncher  # from the claim on
        self.is_cleared = True  # nothing is left of the run that the system keeps for it
        self._clock = clock
        self._telemetry: Telemetry | None = None

    # -- the two ways through ---------------------------------------------------------------------------------------

    def run(self) -> None:
        """Start the run, watch it, end it."""
        if not self._held.take_gpus():
            self._queue.requeue(self._ticket, _LEASE_RETRY_S)
            return
        try:
            record = self._begin()
        except CannotStartError as error:
            self._finish(outcome.failed_to_start(str(error)))
            return
        except (IllegalTransitionError, LocalrunError) as error:
            self._log(f"run {self._ticket.run} was not started: {error}")
            self._held.release()
            return
        self._launcher = self._attempt.launcher = launcher_of(record, self._folder, self._held.fds())
        self._launcher.is_to_end = lambda: self._is_to_end(record)
        ending: Ending | None = None
        try:
            context = self._set_up(record)
            cause = self._cause(record, conclusion.deadline(record))
            cause = cause or self._prepare(record, context) or self._start_all(record, context)
            if cause is None and self._attempt.stage is None:
                cause = self._watch(record)
        except CannotStartError as error:
            cause, ending = None, outcome.failed_to_start(str(error), error.reason)
        if self._telemetry is not None:  # first, because what asks the driver is a child of ours, too
            self._telemetry.close()
            self._telemetry = None
        left = self._attempt.reap()
        if cause or left or self._launcher.strangers:
            self._terminate(record, cause)
        self._clock.stop()
        ending = ending or self._attempt.ending(record, cause)
        self._finish_with_all(record, cause, ending)
        self.is_cleared = self._launcher.clear()

    def recover(self, dispatcher: int) -> None:
        """End a run whose supervisor was lost: its processes first, then its record."""
        try:
            record = records.read(self._folder)
        except LocalrunError:
            record = None
        if record is None or record["uid"] != self._ticket.uid:
            self.is_cleared = False  # deleted or replaced this moment: the dispatcher finds where it lies now
            return
        self._launcher = self._attempt.launcher = lost_launcher_of(record, self._folder, dispatcher)
        if records.status(record).is_terminal():
            self.is_cleared = self._launcher.clear()
            return
        self._log(f"run {record['name']} had lost its supervisor")
        cause = conclusion.stop_cause(record) or Cause(
            RunStatus.FAILED, Reason.SYSTEM_FAILURE, "its supervisor was lost (killed, or the machine was restarted)"
        )
        self._held.take_again(record)
        self._terminate(record, cause)
        self.is_cleared = self._launcher.clear()  # with what was about to come up as its supervisor was killed
        self._held.take_again(record)
        self._finish_with_all(record, cause, outcome.stopped(cause, {}))

    # -- starting ---------------------------------------------------------------------------------------------------

    def _begin(self) -> Record:
        """Enter STARTING: from here on the record says that the run may have done something."""

        def change(record: Record) -> None:
            if record["uid"] != self._ticket.uid:
                raise IllegalTransitionError(f"{self._folder.path} holds another run by now")
            records.advance(record, RunStatus.STARTING)
            record["supervisor"] = self._me
            record["ranks"] = []
            record["gpus"], record["driver"] = self._held.in_record(), self._held.driver
            # A run that is one process without GPUs has nobody to meet.
            if self._held.gpus or record["request"].get("nproc_per_node"):
                self._held.take_port()
            record["port"] = self._held.port

        try:
            return records.update(self._folder, change)
        except SystemFailureError as error:
            raise CannotStartError(error.message) from None
        except OSError as error:
            raise CannotStartError(unwritable(self._folder, error)) from None

    def _set_up(self, record: Record) -> dict[str, Any]:
        """What the run inherits, and its secrets; what it needs to start is there then."""
        try:
            context = self._queue.environment(self._ticket.environment)
            context["secrets"] = surroundings.secrets(self._queue.home, record["request"])
            os.makedirs(self._folder.resumption_logs(records.resumption_index(record)), mode=0o700, exist_ok=True)
            self._launcher.check()
        except LocalrunError as error:
            raise CannotStartError(error.message) from None
        except OSError as error:
            raise CannotStartError(unwritable(self._folder, error)) from None
        return context

    def _prepare(self, record: Record, context: Mapping[str, Any]) -> Cause | None:
        """Let the integrations, if there are some, do their work."""
        pid = self._launcher.prepare(records.resumption_index(record), context)
        if pid is None:
            return None
        self._attempt.ranks[pid] = 0
        self._enter_running(record)
        return self._pass_stage(record, outcome.preparation_ended)

    def _start_all(self, record: Record, context: Mapping[str, Any]) -> Cause | None:
        """Start the ranks and enter RUNNING, unless a stage before has failed; if need be their image is fetched."""
        if self._attempt.stage is not None:
            return None
        try:
            self._start(record, context)
        except NoImageError as error:
            self._attempt.ranks = {error.fetch(): 0}
            self._watch_logs(records.resumption_index(record))
            why = error.why
            cause = self._pass_stage(record, lambda wait_status, said: outcome.fetch_ended(wait_status, why()))
            if cause is not None or self._attempt.stage is not None:
                return cause
            self._start(record, context)
        return None

    def _pass_stage(self, record: Record, judge: Judge) -> Cause | None:
        """Wait for what stands in rank 0's place before the ranks; if it succeeded, nothing of it is left in mind."""
        self._attempt.stage = judge
        cause = self._watch(record)
        if cause is None and not self._attempt.has_failed(record):
            self._attempt.pass_stage()
            self._news.add(NEWS)  # what the record said meanwhile
        return cause

    def _start(self, record: Record, context: Mapping[str, Any]) -> None:
        for rank in range(ranks.count(record["request"])):
            pid = self._launcher.start(rank, records.resumption_index(record), context)
            self._attempt.add_rank(pid, rank)
            if self._launcher.interrupted:
                break
        self._enter_running(record)
        details = self._launcher.details()
        if details:
            self._record.note(lambda record: record.update(details))

    def _is_to_end(self, record: Mapping[str, Any]) -> bool:
        """True if there is a cause to end the run by now; asked by what takes its time to start."""
        self._news.hear()
        now = self._news.reread(record)
        if now is not record:
            self._news.add(NEWS)  # for whoever looks next
        return self._cause(now, conclusion.deadline(now)) is not None

    def _enter_running(self, record: Record) -> None:
        """Have it in the record that this attempt runs, and as which processes; look after their logs."""
        resumption = records.resumption_index(record)
        at, at_work = times.now(), self._attempt.ranks.items()
        started = [{"rank": rank, "pid": pid, "start": processes.start_time(pid)} for pid, rank in at_work]

        def change(record: Record) -> None:
            if records.status(record) is RunStatus.STARTING:
                records.advance(record, RunStatus.RUNNING, at=at)
            record["ranks"] = started

        self._watch_logs(resumption)
        if self._telemetry is None:
            uuids = [gpu.uuid for gpu in self._held.gpus]
            self._telemetry = Telemetry(self._folder.telemetry(resumption), uuids, self._launcher.alive)
        self._record.note_sometime(change)

    # -- watching ---------------------------------------------------------------------------------------------------

    def _watch(self, record: Mapping[str, Any]) -> Cause | None:
        """Wait until the run ends by itself (None), which it does with the first rank that fails, or is to be ended."""
        while True:
            self._attempt.reap()
            if self._attempt.is_over(record):
                return None
            record = self._news.reread(record)
            deadline = conclusion.deadline(record)
            cause = self._cause(record, deadline)
            if cause:
                return cause
            self._record.catch_up()
            self._wait(None if deadline is None else deadline - time.time())

    def _cause(self, record: Mapping[str, Any], deadline: float | None) -> Cause | None:
        if signal.SIGTERM in self._news:
            message = "its supervisor was asked to end (SIGTERM), as when the machine shuts down"
            return Cause(RunStatus.FAILED, Reason.SYSTEM_FAILURE, message)
        if deadline is not None and time.time() >= deadline:
            return Cause(RunStatus.STOPPED, Reason.MAX_DURATION, "its max_duration was over")
        if STOP in self._news:
            return Cause(RunStatus.STOPPED, Reason.STOPPED_BY_USER, "stopped, while its record could not be written")
        return conclusion.stop_cause(record)

    def _wait(self, timeout: float | None) -> None:
        """Sleep until a signal, a log's growth or the timeout."""
        timeouts = [_LOOK_S if timeout is None else min(max(timeout, 0.0), _LOOK_S)]
        timeouts.append(self._record.due(time.monotonic()))
        fds = []
        due = self._clock.due(time.monotonic())
        if self._clock.fd is not None and due <= 0:
            fds.append(self._clock.fd)
        else:
            timeouts.append(max(due, 0.001))
        if self._telemetry is not None:
            timeouts.append(self._telemetry.due(time.monotonic()))
            if self._telemetry.fd >= 0:
                fds.append(self._telemetry.fd)
        ready = self._news.wait(min(timeouts), fds)
        if self._telemetry is not None and (self._telemetry.fd in ready or not self._telemetry.due(time.monotonic())):
            self._telemetry.sample()
        if self._clock.fd in ready or (self._clock.fd is None and due <= 0):
            self._clock.sample()

    def _watch_logs(self, resumption: int) -> None:
        for rank in self._attempt.ranks.values():
            out, err = self._folder.stdout(resumption, rank), self._folder.stderr(resumption, rank)
            self._clock.add(out, err, self._folder.log_times(resumption, rank))

    # -- ending -----------------------------------------------------------------------------------------------------

    def _terminate(self, record: Mapping[str, Any], cause: Cause | None) -> None:
        """SIGTERM to every process of the run, the grace, SIGKILL to all, until nothing is left."""
        if records.status(dict(record)) is not RunStatus.TERMINATING:
            why = cause and cause.reason
            self._record.note(lambda record: records.advance(record, RunStatus.TERMINATING, reason=why))
        self._launcher.strangers |= self._let_in_no_more()
        termination.terminate(self._launcher, self._attempt, float(record["request"]["stop_grace"]), self._wait)

    def _let_in_no_more(self) -> bool:
        """True if somebody has connected to the run since it was last asked; TERMINATING keeps others from it."""
        try:
            return files.remove(self._folder.connected)
        except OSError:
            return True

    def _finish_with_all(self, record: Mapping[str, Any], cause: Cause | None, ending: Ending) -> None:
        """Write the end, after that of everyone who has connected to the run, up to the last moment."""
        self._attempt.close(record)
        while True:
            try:
                return self._finish(ending)
            except _ConnectedError:
                self._terminate(record, cause)

    def _finish(self, ending: Ending) -> None:
        """Write the end, or go back to the queue for another attempt."""
        again = False

        def change(record: Record) -> None:
            nonlocal again
            if records.status(record) is RunStatus.RUNNING and os.path.exists(self._folder.connected):
                raise _ConnectedError
            again = conclusion.conclude(record, ending)

        def keep_nothing() -> None:
            self._held.release()
            self._queue.set_aside(self._ticket)

        record = self._record.end(change, keep_nothing)
        self._held.release()
        if record is None:
            return
        if again:
            tried = conclusion.attempts(record)
            delay = 0.0 if tried[-1]["reason"] == Reason.PREEMPTED else outcome.retry_delay(tried)
            priority = record["request"]["priority"]
            self._queue.requeue(self._ticket, delay, conclusion.first_started(record), priority)


def supervise(
    queue: Queue,
    ticket: Ticket,
    lock: files.ByteLock,
    gpus: Sequence[Gpu],
    log: Callable[[str], None],
    dispatcher: int,
    *,
    recover: bool,
) -> None:
    """Be the supervisor of a claimed run, and then of the one that takes its place in the queue, and so on.

    ``lock`` is the run's, held already; ``gpus`` are those chosen for it. ``dispatcher`` is who forked this process;
    once that is gone, this run is the last one, because a dispatcher inherits what the processes of a lost supervisor
    leave, and the next is no parent.
    """
    pid = os.getpid()
    me = {"pid": pid, "start": processes.start_time(pid), "boot_id": processes.boot_id()}
    pipe = signals.pipe()
    processes.become_subreaper()
    clock = LogClock(Watch())
    supervisor = Supervisor(queue, ticket, gpus, me, pipe, clock, log)
    supervisor.recover(dispatcher) if recover else supervisor.run()
    while supervisor.is_cleared:
        successor = queue.leave(ticket, claim_next=os.getppid() == dispatcher)
        if successor is None:
            return
        lock.release()
        ticket, lock = successor
        supervisor = Supervisor(queue, ticket, (), me, pipe, clock, log)
        supervisor.run()
    queue.set_aside(ticket)  # for another to clear: the dispatcher sees to that as long as there is a ticket
