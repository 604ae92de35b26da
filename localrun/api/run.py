"""The handle on a run, one class for every kind: what its record says, and what can be done with it.

A handle holds a copy of the record as it last saw it; `refresh` and every method that waits bring it up to date.
Names follow ``mcli.Run`` and ``runhouse.Run``. The lists of runs and the calls on them are in `runs`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self, TypeVar

from localrun import files, settings
from localrun.api import control
from localrun.api.output import logs
from localrun.api.tracing.block import Block
from localrun.engine.dispatch.waiting import check_timeout, ensure_looked_after, up_to_date, wait_until
from localrun.engine.queue import Queue
from localrun.errors import NotARunError, RunFailedError, RunNotFoundError, RunStoppedError, SystemFailureError
from localrun.model import record as records
from localrun.model.folder import RunFolder
from localrun.model.status import RunStatus

T = TypeVar("T")

_LOG_LINES_IN_ERRORS = 5


class RemoteTraceback(Exception):  # noqa: N818 - it is the cause of an error, shown above it
    """The traceback of an exception that was raised in a run, attached as its cause."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class Run(Block):
    """A run: a function call, command or traced block that is queued, at work or over, with its folder.

    Get one from `create_run`, `get_run`, a function's `run`, or by folder with ``localrun.run(path=...)``. Made by hand
    it is a block to be entered: see `Block`.
    """

    _columns = (  # of a list of runs shown as a table
        "name", "status", "reason", "created_at", "started_at", "completed_at", "run_type", "created_by", "cluster",
        "gpus", "gpu_type", "cpus", "priority", "resumption_count", "exit_code",
    )  # fmt: skip

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """The run whose folder is at ``path``. Creates nothing.

        Raises:
            RunNotFoundError: there is no such folder.
            NotARunError: the folder is no run folder; the message says what is missing.
        """
        return cls._of({}, RunFolder(files.absolute(path, "path"))).refresh()

    # -- following it -----------------------------------------------------------------------------------------------

    def refresh(self) -> Self:
        """Read the record again, in place; a run that was archived meanwhile is found there. Returns self."""
        self._record = self._in_folder(up_to_date)
        self._folder.uid = self._record["uid"]
        ensure_looked_after(self._queue, self._folder, self._record)
        return self

    def _in_folder(self, act: Callable[[RunFolder], T]) -> T:
        """Do something with the run's folder, wherever that is: one that makes way for another run goes to the archive.

        Raises:
            RunNotFoundError: it is in neither place.
        """
        try:
            return act(self._folder)
        except RunNotFoundError:
            there = self._folder.archived(self._folder.uid or "")
            if self._folder.uid is None or not os.path.isdir(there.path):
                raise
            self._folder = there
            return act(self._folder)

    def wait(self, timeout: float | None = None) -> Self:
        """Wait until the run has ended; returns self. RunTimeoutError after ``timeout`` seconds."""
        self._record = self._in_folder(
            lambda folder: wait_until(self._queue, folder, lambda r: records.status(r).is_terminal(), timeout)
        )
        return self

    def result(self, timeout: float | None = None, rank: int | None = None) -> Any:
        """Wait for the end, and return what came of the run.

        A function's return value (with ``nproc_per_node`` the list of its ranks', or with ``rank`` that one's),
        or its own exception raised with the run's traceback as its cause; a command's stdout if it completed, its
        stderr if not.

        Raises:
            RunFailedError: it failed and its exception can't be raised here.
            RunStoppedError: it was stopped.
            ResultUnavailableError: the result file is missing, cut short or altered.
            RunTimeoutError: it has not ended after ``timeout`` seconds.
            ValueError: there is no such rank.
        """
        if rank is not None and (type(rank) is not int or rank not in range(self.nproc_per_node or 1)):
            raise ValueError(f"rank: run {self.name} has ranks 0 to {(self.nproc_per_node or 1) - 1}, not {rank!r}")
        self.wait(timeout)
        if self.run_type != "FUNCTION":
            return self.stdout(rank) if self.status is RunStatus.COMPLETED else self.stderr(rank)
        error = self.exception()
        if error is not None:
            raise error
        if self.nproc_per_node is None or rank is not None:
            return self._load_result(rank)
        return [self._load_result(each) for each in range(self.nproc_per_node)]

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the end, and return the exception with which the run ended; None if it completed."""
        self.wait(timeout)
        if self.status is RunStatus.COMPLETED:
            return None
        if self.status is RunStatus.STOPPED:
            return RunStoppedError(f"run {self.name} was stopped: {self.message}")
        return self._own_exception() or RunFailedError(self._failure())

    def _own_exception(self) -> BaseException | None:
        from localrun.model.pickles import payload

        path = self._folder.exception(self.failed_rank if self.nproc_per_node else None)
        if self._record.get("error") is None or not os.path.exists(path):
            return None
        try:
            error = payload.load(path, None)
        except Exception:  # noqa: BLE001 - whatever keeps it from being unpickled here: its text is in the record
            return None
        if not isinstance(error, Exception):  # SystemExit and its like would end the caller instead of telling it
            return None
        error.__cause__ = RemoteTraceback(self.error_traceback)
        return error

    def _failure(self) -> str:
        """What went wrong, with the end of the log and where the rest of it is."""
        from localrun.api.output import masking

        rank = self.failed_rank or 0
        written, mask = logs.text(self._folder, self.resumption_count, rank), masking.current()
        log = (written if mask is None else mask.data(written)).decode(errors="replace").splitlines()
        tail = "".join(f"\n    {line}" for line in log[-_LOG_LINES_IN_ERRORS:])
        where = self._folder.resumption_logs(self.resumption_count)
        return f"run {self.name} {self.status}, {self.reason}: {self.message}{tail}\nIts log: {where}"

    def _load_result(self, rank: int | None) -> Any:
        from localrun.model.pickles import payload

        stored, path = self._record["result"], self._folder.result()
        if self.nproc_per_node is not None:
            stored, path = stored[rank], self._folder.result(rank)
        return payload.load(path, payload.Stored(stored["size"], stored["sha256"]))

    def inputs(self) -> dict[str, Any]:
        """A function's inputs: ``{"args": [...], "kwargs": {...}}``; of a command run, both empty."""
        from localrun.model.pickles import payload

        if self.run_type != "FUNCTION":
            return {"args": [], "kwargs": {}}
        loaded: dict[str, Any] = payload.load(self._folder.inputs, None)
        return loaded

    # -- its output -------------------------------------------------------------------------------------------------

    def stdout(self, rank: int | None = None) -> str:
        """What the latest resumption wrote to its standard output, of the lowest rank or this one."""
        return self._stream(self._folder.stdout, rank)

    def stderr(self, rank: int | None = None) -> str:
        """What the latest resumption wrote to its standard error, of the lowest rank or this one."""
        return self._stream(self._folder.stderr, rank)

    def _stream(self, path: Any, rank: int | None) -> str:
        from localrun.api.tracing import current

        current.sync(self._folder)
        resumption = self.latest_attempt
        chosen = logs.choose_rank(self._folder, resumption, rank)
        return logs.stream(path(resumption, chosen)).decode(errors="replace")

    def logs(self, rank: int | None = None, **options: Any) -> logs.LogText:
        """stdout and stderr merged in time order, as they are now; options as in `get_run_logs`."""
        from localrun.api import runs

        return runs.get_run_logs(self, rank, **options)

    def follow_logs(self, rank: int | None = None, **options: Any) -> Iterator[str]:
        """The log line by line, until the run has ended; options as in `follow_run_logs`."""
        from localrun.api import runs

        lines: Iterator[str] = runs.follow_run_logs(self, rank, **options)
        return lines

    def telemetry(self, resumption: int | None = None) -> list[dict[str, Any]]:
        """What the run used while it worked, a row every few seconds, of the latest resumption or this one.

        A row has ``time``; ``cpu_percent`` (100 is one CPU) and ``rss`` (bytes) of all its processes; and ``gpus``, for
        each its ``uuid``, ``utilization`` (percent), ``memory_used`` (bytes) and the number of its ``processes``.
        """
        from localrun.api import telemetry

        return telemetry.rows(self._folder, self.latest_attempt if resumption is None else resumption)

    # -- changing it ------------------------------------------------------------------------------------------------

    def stop(self, reason: str | None = None, timeout: float | None = 10) -> Self:
        """Stop the run, and wait for its end at most ``timeout`` seconds; returns self, TERMINATING if it still is.

        A queued run is STOPPED at once. Stopping a run that has ended does nothing.
        """
        check_timeout(timeout)
        self._record = self._in_folder(lambda folder: control.request_stop(self._queue, folder, reason))
        try:
            return self.wait(timeout)
        except TimeoutError:
            return self.refresh()

    cancel = stop

    def withdraw(self, reason: str | None = None) -> bool:
        """Stop the run if it has not started; False, and nothing done, if it has."""
        self._record = self._in_folder(
            lambda folder: control.request_stop(self._queue, folder, reason, only_waiting=True)
        )
        return self.status is RunStatus.STOPPED and self.started_at is None

    def start(self) -> Self:
        """Queue an ended run again under its name, as its next resumption; it starts from the beginning.

        Raises:
            IllegalTransitionError: it has not ended.
        """
        self._record = self._in_folder(lambda folder: control.restart(self._queue, folder))
        return self

    def delete(self, timeout: float | None = None) -> Self:
        """Delete the run, stopping it first; its folder moves to the archive, where ``include_deleted`` finds it."""
        check_timeout(timeout)
        self.stop("deleted", 0).wait(timeout)
        self._folder = self._in_folder(lambda folder: control.move_to_archive(self._queue, folder))
        self._record = records.read(self._folder)
        return self

    def clone(
        self,
        name: str | None = None,
        image: str | None = None,
        cluster: str | None = None,
        instance: str | None = None,
        nodes: int | None = None,
        gpu_type: str | None = None,
        gpus: int | None = None,
        priority: str | None = None,
        preemptible: bool | None = None,
        max_retries: int | None = None,
        max_duration: float | None = None,
        **overrides: Any,
    ) -> Run:
        """Submit a new run with this one's configuration (and function and inputs), some fields overridden.

        ``overrides`` are any other fields of `RunConfig`, and of its ``compute`` and ``scheduling``, by name.
        """
        from localrun.api import submit

        overrides |= {
            "image": image, "cluster": cluster, "instance": instance, "nodes": nodes, "gpu_type": gpu_type,
            "gpus": gpus, "priority": priority, "preemptible": preemptible, "max_retries": max_retries,
            "max_duration": max_duration,
        }  # fmt: skip
        return submit.clone(self, name, overrides)

    def update(
        self,
        preemptible: bool | None = None,
        priority: str | None = None,
        max_retries: int | None = None,
        retry_on_system_failure: bool | None = None,
        max_duration: float | None = None,
    ) -> Self:
        """Change how the run is scheduled; what isn't given stays. IllegalTransitionError once it has ended."""
        wanted = {
            "preemptible": preemptible, "priority": priority, "max_retries": max_retries,
            "retry_on_system_failure": retry_on_system_failure, "max_duration": max_duration,
        }  # fmt: skip
        wanted = {field: value for field, value in wanted.items() if value is not None}
        self._record = self._in_folder(lambda folder: control.update_scheduling(self._queue, folder, wanted))
        return self

    def update_metadata(self, metadata: Mapping[str, Any]) -> Self:
        """Merge these keys into the run's metadata, whatever its status."""
        self._record = self._in_folder(lambda folder: control.update_metadata(folder, metadata))
        return self

    def save(self, name: str | None = None, overwrite: bool = False) -> Self:
        """Give an ended run another name; every field but the name stays, the uid too.

        Raises:
            RunExistsError: the name is taken, and ``overwrite`` is not set.
            IllegalTransitionError: the run has not ended.
        """
        if name is not None and name != self.name:
            self._folder = self._in_folder(
                lambda folder: control.rename(self._queue, folder, name, overwrite=overwrite)
            )
        return self.refresh()

    def write(self, data: Any, path: str) -> None:
        """Write a file of the user's own into the run's folder: text as UTF-8, bytes as they are, else pickled."""
        self._in_folder(lambda folder: control.write(folder, data, path))

    # -- as an object -----------------------------------------------------------------------------------------------

    @property
    def _queue(self) -> Queue:
        """The queue the run is in: that of the home folder it was submitted under."""
        return Queue(self._record.get("home") or settings.home())

    def __repr__(self) -> str:
        return f"<Run {self.name!r} {self._record['status']} {self._folder.path!r}>"

    def __eq__(self, other: object) -> bool:
        return self.run_uid == other.run_uid if isinstance(other, Run) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.run_uid)


def broken(folder: RunFolder, error: SystemFailureError) -> Run:
    """The handle on a run whose record can't be read: UNKNOWN, with the reason; the file is left as it is."""
    record = records.new(uid="", name=os.path.basename(folder.path), run_type="UNKNOWN")
    changed = records.iso(os.stat(folder.record).st_mtime)
    record.update(status=RunStatus.UNKNOWN.value, reason="Unreadable", message=error.message, created_at=changed)
    return Run._of(record, folder)


def readable(path: str) -> Run | None:
    """The run in a folder as it is now, UNKNOWN if its record can't be read; None if there is no run."""
    folder = RunFolder(path)
    try:
        return Run._of(records.read(folder), folder)
    except SystemFailureError as error:
        return broken(folder, error)
    except (RunNotFoundError, NotARunError, OSError):
        return None  # a file or folder of someone else's, or a run archived this moment
