"""What a cluster has and who uses it, as data: its instances, their utilization, and runs by user (names from mcli).

Instances are kinds of machine. Here there is one machine: an instance for each kind of GPU in it, or one without.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from localrun.api.machine.gpus import GpuState, GpuView
from localrun.api.machine.utilization import utilization
from localrun.api.run import Run
from localrun.engine.dispatch.capacity import capacity
from localrun.engine.scheduling.ticket import Ticket
from localrun.errors import LocalrunError
from localrun.model.moment import Moment
from localrun.model.status import RunStatus


@dataclass(frozen=True, kw_only=True)
class Instance:
    """A kind of machine: ``gpus`` of one ``gpu_type`` ("none": without), the CPUs, and the memory in bytes."""

    name: str
    gpu_type: str
    gpus: int
    cpus: float
    memory: int
    nodes: int = 1


@dataclass(frozen=True, kw_only=True)
class InstanceUtilization:
    """How the GPUs of an instance are used: those that runs or other processes have, and those free to be given out.

    A GPU with which something is wrong is counted in ``gpus_total`` alone.
    """

    instance: Instance
    gpus_used: int
    gpus_available: int
    gpus_total: int


@dataclass(frozen=True, kw_only=True)
class RunUtilization:
    """A run that is active or queued, with its user and what it has or wants; None is what can't be known.

    Another user's runs are known by the GPUs that they hold.
    """

    id: str
    name: str
    user: str
    gpus: int
    cpus: float | None = None
    memory: int | None = None
    status: RunStatus | None = None
    created_at: Moment | None = None
    started_at: Moment | None = None


@dataclass(frozen=True, kw_only=True)
class ClusterUtilization:
    """How a cluster is used at one moment: by instance, and by run; queued ones in the order of the queue."""

    cluster_instance_utils: list[InstanceUtilization] = field(default_factory=list)
    active_runs_by_user: list[RunUtilization] = field(default_factory=list)
    queued_runs_by_user: list[RunUtilization] = field(default_factory=list)


def utilization_of(views: Sequence[GpuView]) -> ClusterUtilization:
    """How this machine with its GPUs is used now."""
    now = utilization()
    mine = [found for ticket in now.active if (found := _of_mine(ticket)) is not None]
    return ClusterUtilization(
        cluster_instance_utils=[_used(instance, views) for instance in instances_of(views)],
        active_runs_by_user=mine + _of_others(views, {run.id for run in mine}),
        queued_runs_by_user=[found for ticket, _ in now.queued if (found := _of_mine(ticket)) is not None],
    )


def instances_of(views: Sequence[GpuView]) -> list[Instance]:
    """The kinds of machine that this machine with its GPUs is."""
    has = capacity()
    kinds = Counter(view.gpu.name for view in views) or {"none": 0}
    return [
        Instance(name=_name(kind, count), gpu_type=kind, gpus=count, cpus=has.cpus, memory=has.memory)
        for kind, count in kinds.items()
    ]


def _name(kind: str, count: int) -> str:
    return f"{count} x {kind}" if count else "cpu"


def _used(instance: Instance, views: Sequence[GpuView]) -> InstanceUtilization:
    states = Counter(view.state for view in views if view.gpu.name == instance.gpu_type)
    return InstanceUtilization(
        instance=instance,
        gpus_used=states[GpuState.LEASED] + states[GpuState.BUSY],
        gpus_available=states[GpuState.FREE],
        gpus_total=instance.gpus,
    )


def _of_mine(ticket: Ticket) -> RunUtilization | None:
    """The run of a ticket; None if it was deleted this moment, or can't be read."""
    try:
        run = Run.load(ticket.folder)
    except LocalrunError:
        return None
    return RunUtilization(
        id=run.run_uid, name=run.name, user=run.created_by or "unknown", gpus=run.gpus, cpus=run.cpus,
        memory=run.memory, status=run.status, created_at=run.created_at, started_at=run.started_at,
    )  # fmt: skip


def _of_others(views: Sequence[GpuView], known: set[str]) -> list[RunUtilization]:
    """The runs of other queues on this machine, by the leases they have."""
    holders = [view.holder for view in views if view.holder is not None and view.holder.uid not in known]
    counts = Counter(holder.uid for holder in holders)
    first = {holder.uid: holder for holder in reversed(holders)}
    return [
        RunUtilization(
            id=uid or "", name=holder.run or "unknown", user=holder.user or "unknown", gpus=counts[uid],
            started_at=None if holder.since is None else Moment.parse(holder.since.isoformat()),
        )
        for uid, holder in first.items()
    ]  # fmt: skip
