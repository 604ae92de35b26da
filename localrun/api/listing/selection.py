"""Which runs are asked for: the filters of `get_runs`, read once, and asked of each run."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from localrun.api.run import Run
from localrun.engine.gpus import inventory as gpus
from localrun.errors import RunConfigError
from localrun.model import times
from localrun.model.config import described
from localrun.model.status import RunStatus, known_status

# mcli's INTERACTIVE, HERO_RUN (metadata says so) and TRAINING (all others), and localrun's own.
_RUN_TYPES = ("INTERACTIVE", "HERO_RUN", "TRAINING", "FUNCTION", "COMMAND", "CONTEXT")


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Conditions that a run must meet all of; None asks for nothing. Times are UTC text as records have it."""

    statuses: frozenset[RunStatus] | None = None
    before: str | None = None
    after: str | None = None
    ended_before: str | None = None
    ended_after: str | None = None
    clusters: frozenset[str] | None = None
    gpu_types: tuple[str, ...] | None = None
    gpu_nums: frozenset[int] | None = None
    users: frozenset[str] | None = None
    run_types: frozenset[str] | None = None
    include_deleted: bool = False

    @classmethod
    def of(
        cls,
        *,
        cluster_names: Sequence[Any] | None,
        clusters: Sequence[Any] | None,
        before: str | datetime | None,
        after: str | datetime | None,
        gpu_types: Sequence[Any] | None,
        gpu_nums: Sequence[int] | None,
        statuses: Sequence[str | RunStatus] | None,
        user_emails: Sequence[str] | None,
        run_types: Sequence[str] | None,
        include_deleted: bool,
        ended_before: str | datetime | None,
        ended_after: str | datetime | None,
    ) -> Selection:
        """The selection that `get_runs` is asked for by these arguments.

        Raises:
            RunConfigError: an argument is of the wrong kind, or a status that doesn't exist.
        """
        if clusters is not None:
            warnings.warn("clusters is an older spelling: use cluster_names", DeprecationWarning, stacklevel=4)
        return cls(
            statuses=_set(statuses, "statuses", known_status),
            before=_time(before, "before"),
            after=_time(after, "after"),
            ended_before=_time(ended_before, "ended_before"),
            ended_after=_time(ended_after, "ended_after"),
            clusters=_set(clusters if cluster_names is None else cluster_names, "cluster_names", _name),
            gpu_types=None if gpu_types is None else tuple(_set(gpu_types, "gpu_types", _name) or ()),
            gpu_nums=_set(gpu_nums, "gpu_nums", _number),
            users=_set(user_emails, "user_emails", _user),
            run_types=_set(run_types, "run_types", _run_type),
            include_deleted=bool(include_deleted),
        )

    def __contains__(self, run: Run) -> bool:
        """True if the run meets every condition, by its record as the handle has it."""
        created, ended = run._record["created_at"], run._record.get("end_time")
        return (
            (self.statuses is None or run.status in self.statuses)
            and (self.before is None or created < self.before)
            and (self.after is None or created >= self.after)
            and (self.ended_before is None or (ended is not None and ended < self.ended_before))
            and (self.ended_after is None or (ended is not None and ended >= self.ended_after))
            and (self.clusters is None or run.cluster in self.clusters)
            and (self.gpu_types is None or any(_has_gpu(run, kind) for kind in self.gpu_types))
            and (self.gpu_nums is None or run.gpus in self.gpu_nums)
            and (self.users is None or run.created_by in self.users)
            and (self.run_types is None or not self.run_types.isdisjoint(_types_of(run)))
        )


def listed(values: Any, field: str) -> Sequence[Any]:
    """The list itself; text would be taken for a list of letters."""
    if isinstance(values, str | bytes):
        raise RunConfigError(f"{field}: must be a list, not the text {values!r}: put it in brackets")
    if not isinstance(values, Iterable):
        raise RunConfigError(f"{field}: must be a list, not {described(values)}")
    return list(values)


def _set(values: Any, field: str, read: Callable[[Any, str], Any]) -> frozenset[Any] | None:
    return None if values is None else frozenset(read(value, field) for value in listed(values, field))


def _name(value: Any, field: str) -> str:
    """A name, an enum's value, or the name of an object that has one, such as a cluster."""
    value = getattr(value, "value", getattr(value, "name", value))
    if not isinstance(value, str):
        raise RunConfigError(f"{field}: must be names, not {described(value)}")
    return value


def _user(value: Any, field: str) -> str:
    """A user's name, also from an address: what is before its @."""
    return _name(value, field).partition("@")[0]


def _number(value: Any, field: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise RunConfigError(f"{field}: must be whole numbers, not {described(value)}")
    return int(value)


def _run_type(value: Any, field: str) -> str:
    kind = _name(value, field).upper()
    if kind not in _RUN_TYPES:
        raise RunConfigError(f"{field}: {described(value)} is none of {', '.join(_RUN_TYPES)}")
    return kind


def _time(value: str | datetime | None, field: str) -> str | None:
    """A moment, ISO 8601 text or a ``datetime``, as records have it; without an offset it is local time."""
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        return times.iso(moment.timestamp())
    except (ValueError, OverflowError, AttributeError, TypeError, OSError):
        wanted = "a datetime or ISO 8601 text such as '2023-03-31T12:23:04+05:30'"
        raise RunConfigError(f"{field}: must be {wanted}, not {described(value)}") from None


def _has_gpu(run: Run, kind: str) -> bool:
    """True if the run has, or asks for, GPUs of that type (``none``: has and asks for none)."""
    if kind.lower() == "none":
        return not run.gpus
    names = [gpu["name"] for gpu in run._record.get("gpus") or []] or [run.gpu_type or ""]
    return bool(run.gpus) and any(gpus.is_type(name, kind) for name in names)


def _types_of(run: Run) -> set[str]:
    """Its type as localrun has it, and as mcli would."""
    kind = "INTERACTIVE" if run.run_type == "INTERACTIVE" else "TRAINING"
    return {run.run_type, "HERO_RUN" if run.metadata.get("is_hero_run") else kind}
