"""What a run's record says, as properties with mcli's and Runhouse's names. What can be done with a run is `Run`'s."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from localrun import files
from localrun.api.parts import Event, Node, Resumption, RunLifecycle
from localrun.model import artifacts, catalogue
from localrun.model import record as records
from localrun.model.folder import RunFolder
from localrun.model.moment import Moment
from localrun.model.record import Record
from localrun.model.status import RunStatus

if TYPE_CHECKING:
    from localrun.model.config import RunConfig


class Recorded:
    """A copy of a run's record, and the folder that it came from."""

    _record: Record
    _folder: RunFolder

    @classmethod
    def _of(cls, record: Record, folder: RunFolder) -> Self:
        """The handle on the run with that record, in that folder."""
        run = cls.__new__(cls)
        run._record = record
        run._folder = RunFolder(folder.path, record.get("uid") or None)
        return run

    # -- what it is -------------------------------------------------------------------------------------------------

    name = property(lambda self: self._record["name"], doc="The run's name, unique in its runs folder.")
    run_uid = property(lambda self: self._record["uid"], doc="The run's identity, whatever its name.")
    run_type = property(lambda self: self._record["run_type"], doc="FUNCTION, COMMAND, …")
    fn_name = property(lambda self: self._record.get("fn_name"), doc="The qualified name of a function run's function.")
    cmds = property(lambda self: self._record.get("cmds"), doc="The commands of a command run, a list; else None.")
    created_by = property(lambda self: self._record.get("creator"), doc="The user who submitted the run.")
    creation_stacktrace = property(lambda self: self._record.get("creation_stacktrace"), doc="Where it was submitted.")
    cwd = property(lambda self: self._record.get("cwd"), doc="The run's working folder.")
    reason = property(lambda self: self._record.get("reason"), doc="Why it is in its status: one of a documented set.")
    message = property(lambda self: self._record.get("message"), doc="The reason in words.")
    exit_code = property(lambda self: self._record.get("exit_code"), doc="As a shell has it: 128 + N for signal N.")
    signal = property(lambda self: self._record.get("signal"), doc="The name of the signal that ended it, or None.")
    failed_rank = property(lambda self: self._record.get("failed_rank"), doc="The first rank that failed, or None.")
    error = property(lambda self: self._record.get("error"), doc="The exception of a function that raised, one line.")
    error_traceback = property(lambda self: self._record.get("error_traceback"), doc="Its traceback, as text.")
    metadata = property(lambda self: dict(self._record.get("metadata") or {}), doc="The metadata, a copy.")
    upstream_artifacts = property(lambda self: self._artifacts(artifacts.UPSTREAM), doc="What it has read so far.")
    downstream_artifacts = property(lambda self: self._artifacts(artifacts.DOWNSTREAM), doc="What it has made so far.")

    def _artifacts(self, direction: str) -> list[dict[str, Any]]:
        return [dict(each) for each in catalogue.of(self._folder, self._record, direction)]

    @property
    def path(self) -> str:
        """The run's folder."""
        return self._folder.path

    @property
    def display_name(self) -> str:
        """The name as the command line shows it."""
        return str(self.name)

    @property
    def status(self) -> RunStatus:
        """The status when this handle last looked (`refresh` looks again)."""
        return RunStatus.from_string(self._record["status"])

    @property
    def provenance(self) -> dict[str, Any]:
        """What made the run what it was: ``git``, ``packages``, ``python``, ``machine``, ``argv``, ``localrun``.

        All that as it was where and when the run was submitted, and of its latest start ``gpus``, their ``driver``, and
        a container run's ``image_id``. A run whose ``provenance.json`` is missing or damaged has only the latter.
        """
        try:
            gathered = files.read_json(self._folder.provenance)
        except (FileNotFoundError, ValueError, RecursionError):
            gathered = None
        at_start = {field: self._record.get(field) for field in ("gpus", "driver", "image_id")}
        return {**gathered, **at_start} if isinstance(gathered, dict) else at_start

    @property
    def is_deleted(self) -> bool:
        """True if the run was deleted or replaced: its folder lies in the archive beside the others."""
        return self._folder.is_archived

    @property
    def config(self) -> RunConfig:
        """The configuration as submitted, a new copy each time."""
        from localrun.model.config import RunConfig

        return RunConfig.from_mapping(self._record.get("config") or {})

    submitted_config = config

    @property
    def run_config(self) -> dict[str, Any]:
        """What ``config.json`` said when this handle last looked, a copy. Named after Runhouse's."""
        import copy

        copied: dict[str, Any] = copy.deepcopy(self._record)
        return copied

    @property
    def config_for_rns(self) -> dict[str, Any]:
        """What identifies the run to others: its name, uid, type, machine and folder. Named after Runhouse's."""
        return {
            "name": self.name, "uid": self.run_uid, "run_type": self.run_type, "system": self.host, "path": self.path,
        }  # fmt: skip

    # -- when -------------------------------------------------------------------------------------------------------

    created_at = property(lambda self: Moment.parse(self._record["created_at"]), doc="When it was submitted.")
    updated_at = property(lambda self: Moment.parse(self._record.get("updated_at")), doc="Its record's last change.")
    started_at = property(lambda self: Moment.parse(self._record.get("start_time")), doc="When it first started.")
    completed_at = property(lambda self: Moment.parse(self._record.get("end_time")), doc="When it ended.")

    start_time, end_time = started_at, completed_at  # as the record has them
    creator = created_by
    host = property(lambda self: self._record.get("host"), doc="The machine it was submitted on.")
    last_resumption_id = property(lambda self: f"{self.name}-{self.resumption_count}", doc="The latest attempt.")

    @property
    def lifecycle(self) -> list[RunLifecycle]:
        """The phases the run went through, in order."""
        return [RunLifecycle.of(entry) for entry in self._record["lifecycle"]]

    @property
    def resumptions(self) -> list[Resumption]:
        """The attempts at the run, in order."""
        return [Resumption.of(entry) for entry in self._record["resumptions"]]

    @property
    def latest_resumption(self) -> Resumption | None:
        """The last attempt; None before the first."""
        return self.resumptions[-1] if self._record["resumptions"] else None

    @property
    def resumption_count(self) -> int:
        """How often the run was resumed: 0 during and after its first attempt."""
        return records.resumption_index(self._record)

    @property
    def latest_attempt(self) -> int:
        """The number of the attempt whose output is shown: the last, or that which a run started again waits for."""
        return records.latest_attempt(self._record)

    @property
    def events(self) -> list[Event]:
        """What else happened to the run, in order."""
        return [
            Event(time=Moment.parse(entry["time"]), type=entry["type"], message=entry["message"])
            for entry in self._record["events"]
        ]

    @property
    def cumulative_pending_time(self) -> float:
        """Seconds spent waiting, PENDING and QUEUED, over all resumptions."""
        return self._seconds_in(RunStatus.PENDING, RunStatus.QUEUED)

    @property
    def cumulative_running_time(self) -> float:
        """Seconds spent RUNNING, over all resumptions."""
        return self._seconds_in(RunStatus.RUNNING)

    def _seconds_in(self, *statuses: RunStatus) -> float:
        return sum(phase.seconds for phase in self.lifecycle if phase.status in statuses)

    # -- what it asked for ------------------------------------------------------------------------------------------

    cpus = property(lambda self: self._requested("cpus", 0), doc="The number of CPUs it asked for.")
    memory = property(lambda self: self._requested("memory", 0), doc="The memory it asked for, in bytes; 0: none said.")
    gpus = property(lambda self: self._requested("gpus", 0), doc="The number of GPUs it asked for.")
    gpu_type = property(lambda self: self._requested("gpu_type"), doc="The type of GPU it asked for, or None.")
    nproc_per_node = property(lambda self: self._requested("nproc_per_node"), doc="Its number of ranks, or None.")
    image = property(lambda self: self._requested("image"), doc="The image of a container run, or None.")
    cluster = property(lambda self: self._requested("cluster") or self._record.get("host"), doc="The machine.")
    node_count = property(lambda self: self._requested("nodes", 1), doc="The number of machines: 1.")
    priority = property(lambda self: self._requested("priority", "auto"), doc="high, auto, low or lowest.")
    preemptible = property(lambda self: self._requested("preemptible", False), doc="Whether others may displace it.")
    max_retries = property(lambda self: self._requested("max_retries", 0), doc="How often it is tried again.")
    retry_on_system_failure = property(
        lambda self: self._requested("retry_on_system_failure", False), doc="Whether it is tried again after one."
    )
    max_duration = property(lambda self: self._requested("max_duration"), doc="Its time limit in hours, or None.")
    stop_grace = property(lambda self: self._requested("stop_grace", 30.0), doc="Seconds from SIGTERM to SIGKILL.")

    def _requested(self, field: str, default: Any = None) -> Any:
        return (self._record.get("request") or {}).get(field, default)

    @property
    def nodes(self) -> list[Node]:
        """The machine the run is on."""
        return [Node(rank=0, name=self._record.get("host") or "", status=self.status, reason=self.reason)]
