"""The handle on a run, one class for every kind: what its record says, and what can be done with it.

A handle holds a copy of the record as it last saw it; `refresh` and every method that waits bring it up to date.
Names follow ``mcli.Run`` and ``runhouse.Run``. The lists of runs and the calls on them are in `runs`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

from localrun import files, settings
from localrun.api import control
from localrun.api.outcome import Outcome
from localrun.api.output import logs
from localrun.api.tracing import current
from localrun.api.tracing.block import Block
from localrun.engine.dispatch.waiting import check_timeout, ensure_looked_after, up_to_date, wait_until
from localrun.engine.queue import Queue
from localrun.errors import NotARunError, RunNotFoundError, SystemFailureError
from localrun.model import record as records
from localrun.model import times
from localrun.model.folder import RunFolder
from localrun.model.status import RunStatus

if TYPE_CHECKING:
    from localrun.api.moving.places import Place

T = TypeVar("T")


class Run(Outcome, Block):
    """A run: a function call, command or traced block that is queued, at work or over, with its folder.

    Get one from `create_run`, `get_run`, a function's `run`, or by folder with ``localrun.run(path=...)``. Made by hand
    it is a block to be entered: see `Block`.
    """

    _columns = (  # of a list of runs shown as a table
        "name", "status", "reason", "created_at", "started_at", "completed_at", "run_type", "created_by", "cluster",
        "gpus", "gpu_type", "cpus", "priority", "resumption_count", "exit_code",
    )  # fmt: skip

    is_remote = False

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, trust: bool = False) -> Self:
        """The run whose folder is at ``path``. Creates nothing. ``trust``: it may be executed, whoever wrote it.

        Raises:
            RunNotFoundError: there is no such folder.
            NotARunError: the folder is no run folder; the message says what is missing.
        """
        run = cls._of({}, RunFolder(files.absolute(path, "path")))
        if trust:
            run._trusted = True
        return run.refresh()

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

    # -- its output -------------------------------------------------------------------------------------------------

    def stdout(self, rank: int | None = None) -> str:
        """What the latest resumption wrote to its standard output, of the lowest rank or this one."""
        return self._stream(self._folder.stdout, rank)

    def stderr(self, rank: int | None = None) -> str:
        """What the latest resumption wrote to its standard error, of the lowest rank or this one."""
        return self._stream(self._folder.stderr, rank)

    def _stream(self, path: Any, rank: int | None) -> str:
        self._note_use()
        current.sync(self._folder)
        resumption = self.latest_attempt
        chosen = logs.choose_rank(self._folder, resumption, rank)
        return logs.stream(path(resumption, chosen)).decode(errors="replace")

    def logs(self, rank: int | None = None, **options: Any) -> logs.LogText:
        """stdout and stderr merged in time order, as they are now; options as in `get_run_logs`."""
        from localrun.api import runs

        self._note_use()
        return runs.get_run_logs(self, rank, **options)

    def follow_logs(self, rank: int | None = None, **options: Any) -> Iterator[str]:
        """The log line by line, until the run has ended; options as in `follow_run_logs`."""
        from localrun.api import runs

        self._note_use()
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
            IllegalTransitionError: it has not ended, or was deleted.
            UntrustedRunError: others can have written what it executes.
        """
        self._refuse_untrusted()
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

        self._refuse_untrusted()
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
        if not self._is_dry:
            self._in_folder(lambda folder: control.write(folder, data, path))

    def log_artifact(self, path: str | os.PathLike[str]) -> None:
        """Have a file, or every file in a folder, among the run's downstream artifacts, with its size and digest now.

        For what the run made without `localrun.open`; also asked for by another process, while the run has not ended.

        Raises:
            IllegalTransitionError: it has. OSError: there is nothing at ``path``, or it can't be read. RunConfigError:
            it is no path of this machine's.
        """
        from localrun.api.tracing import noting

        if not self._is_dry:
            self._in_folder(lambda folder: noting.log(folder, path))

    # -- moving it --------------------------------------------------------------------------------------------------

    def to(
        self,
        system: str,
        path: str | os.PathLike[str] | None = None,
        data_config: Mapping[str, Any] | None = None,
        overwrite: bool = False,
    ) -> Run:
        """Copy the run, which has ended in whatever way; returns the copy, a Run that reads from where it is.

        ``system`` is "here" or the name of a file system of fsspec's (s3, gs, azure, sftp, ssh, memory, …), ``path``
        the copy's own folder there, or its URL; without one it is in the runs folder: here that of this user, over
        SFTP ``.localrun/runs`` below the login's folder. A bucket has none. ``data_config`` goes to the file system,
        and into no record. A run that is there already is an error, or with ``overwrite`` goes to the archive beside
        it. Locks, pipes, sockets, temporary files, an environment with installed packages and links that lead out of
        the folder stay behind. What is copied is checked against the record's digests and read back. The copy is
        trusted as far as this run is.

        Raises:
            RunExistsError: something is there. IllegalTransitionError: the run has not ended.
            ResultUnavailableError: what is to be copied is cut short or altered.
            SystemFailureError: the place can't be reached or written. In every case nothing there looks complete.
        """
        from localrun.api.moving import copy

        return copy.copy(self, system, path, data_config, overwrite=overwrite)

    def _place(self) -> Place:
        from localrun.api.moving.local import LocalPlace

        return LocalPlace(self._folder.path)

    @property
    def is_trusted(self) -> bool:
        """True if nobody else can have written the run, or somebody said that it may be executed all the same."""
        from localrun.model import trust

        return self._trusted or trust.refusal(self._folder) is None

    def _refuse_untrusted(self) -> None:
        from localrun.model import trust

        if not self._trusted:
            trust.check_run(self._folder)

    # -- as an object -----------------------------------------------------------------------------------------------

    @property
    def _queue(self) -> Queue:
        """The queue the run is in: that of the home folder it was submitted under, unless that is somebody else's.

        A queue's tickets are commands: which one is ours to look after is nothing that a record from elsewhere says,
        which may name a folder that came along with it.
        """
        own = Queue(settings.home())
        home = self._record.get("home")
        queue = Queue(home) if isinstance(home, str) and home else own
        return queue if queue.home == own.home or (queue.is_ours() and self.is_trusted) else own

    def __repr__(self) -> str:
        return f"<Run {self.name!r} {self._record['status']} {self.path!r}>"

    def __eq__(self, other: object) -> bool:
        return self.run_uid == other.run_uid if isinstance(other, Run) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.run_uid)


def broken(folder: RunFolder, error: SystemFailureError) -> Run:
    """The handle on a run whose record can't be read: UNKNOWN, with the reason; the file is left as it is."""
    record = records.new(uid="", name=os.path.basename(folder.path), run_type="UNKNOWN")
    changed = times.iso(os.stat(folder.record).st_mtime)
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
