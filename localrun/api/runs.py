"""The calls on runs, with mcli's names, signatures and meaning. Each is short: the work is a `Run`'s.

Every call takes ``timeout`` (seconds) and ``future`` (return a ``Future`` instead). Where a run is asked for, its name
or a `Run` will do, and where several are, any list of both, such as `get_runs` gives. An empty list is a no-op. The
calls on logs are in `runlogs`; mcli's pages import all of them, and what they need, from one place.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from localrun.api import submit
from localrun.api.calls import call, undisturbed
from localrun.api.listing import find as listing
from localrun.api.listing.lists import ObjectList, PaginatedObjectList
from localrun.api.listing.selection import Selection, listed
from localrun.api.output.runlogs import follow_run_logs, get_run_logs
from localrun.api.run import Run
from localrun.api.watching import watch_run_status
from localrun.engine.dispatch.waiting import wait_until
from localrun.errors import RunConfigError, RunStatusNotReached
from localrun.model import record as records
from localrun.model.config import ComputeConfig, RunConfig, SchedulingConfig, described, hint
from localrun.model.record import Record
from localrun.model.status import RunStatus, known_status

__all__ = [
    "ComputeConfig",
    "ObjectList",
    "PaginatedObjectList",
    "Run",
    "RunConfig",
    "RunStatus",
    "SchedulingConfig",
    "create_run",
    "delete_run",
    "delete_runs",
    "follow_run_logs",
    "get_run",
    "get_run_logs",
    "get_runs",
    "start_run",
    "start_runs",
    "stop_run",
    "stop_runs",
    "update_run",
    "update_run_metadata",
    "wait_for_run_status",
    "watch_run_status",
]

RunOrName = str | Run


@call
def create_run(
    run: RunConfig | Mapping[str, Any],
    *,
    timeout: float | None = 10,
    future: bool = False,
    path: str | None = None,
    _priority: str | None = None,
    _job_type: Any = None,
) -> Run:
    """Queue a command run as configured, and return it. The configuration is not changed.

    The config's name is used if it is free, else ``-`` and 6 characters are appended; without a name one is made from
    the command. ``path`` puts this run's folder there. ``_priority`` and ``_job_type`` are mcli's older ones: the
    former is the config's ``priority``, the latter means nothing here.

    Raises:
        RunConfigError: the configuration is refused (400). Nothing was created.
    """
    config = run.copy() if isinstance(run, RunConfig) else RunConfig.from_mapping(run)
    if _priority is not None:
        warnings.warn("_priority is an older spelling: use scheduling.priority", DeprecationWarning, stacklevel=3)
        config.priority = str(getattr(_priority, "value", _priority))
    if _job_type is not None:
        warnings.warn("_job_type means nothing any more: leave it out", DeprecationWarning, stacklevel=3)
    return submit.command(config, path)


@call
def get_run(run: RunOrName, *, timeout: float | None = 10, future: bool = False, include_details: bool = True) -> Run:
    """The run of that name, as it is now. ``include_details`` is mcli's: the details are always there.

    Raises:
        RunNotFoundError: there is no run of that name (404).
    """
    return listing.find(run)


@call
def get_runs(
    runs: Sequence[RunOrName] | None = None,
    *,
    cluster_names: Sequence[Any] | None = None,
    before: str | datetime | None = None,
    after: str | datetime | None = None,
    gpu_types: Sequence[Any] | None = None,
    gpu_nums: Sequence[int] | None = None,
    statuses: Sequence[str | RunStatus] | None = None,
    timeout: float | None = 10,
    future: bool = False,
    user_emails: Sequence[str] | None = None,
    run_types: Sequence[str] | None = None,
    include_details: bool = False,
    include_deleted: bool = False,
    ended_before: str | datetime | None = None,
    ended_after: str | datetime | None = None,
    limit: int | None = 100,
    clusters: Sequence[Any] | None = None,
) -> PaginatedObjectList[Run]:
    """The runs, newest first: those of these names or globs (``lr-*``), or all, that meet every filter given.

    Names may be `Run`s, clusters anything that has a name. ``before`` and ``ended_before`` are strict, ``after`` and
    ``ended_after`` are not; times are datetimes or ISO 8601 text, local where they say no offset. A GPU type matches
    loosely, as where one is asked for. A user is a login name or an address that begins with one. Run types are mcli's
    INTERACTIVE, HERO_RUN and TRAINING (all others), and localrun's FUNCTION and COMMAND. ``include_details`` is
    mcli's: the details are always there.

    ``limit`` is the most that are returned (None: the latest 100); ``next_page()`` of what is returned gives those
    behind them. A record that can't be read is listed as UNKNOWN.

    Raises:
        RunNotFoundError: a name that is no glob is no run's. RunConfigError: a filter of the wrong kind, or a status
            that doesn't exist.
    """
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 0):
        raise RunConfigError(f"limit: must be 0 or more, not {described(limit)}")
    selection = Selection.of(
        cluster_names=cluster_names, clusters=clusters, before=before, after=after, gpu_types=gpu_types,
        gpu_nums=gpu_nums, statuses=statuses, user_emails=user_emails, run_types=run_types,
        include_deleted=include_deleted, ended_before=ended_before, ended_after=ended_after,
    )  # fmt: skip
    asked = None if runs is None else listed(runs, "runs")
    return listing.page(selection, asked, listing.DEFAULT_LIMIT if limit is None else limit)


@call
def stop_run(run: RunOrName, *, reason: str | None = None, timeout: float | None = 10, future: bool = False) -> Run:
    """Stop a run and wait for its end at most ``timeout`` seconds; one that takes longer is returned TERMINATING."""
    return get_run(run).stop(reason, timeout)


@call
def stop_runs(
    runs: Sequence[RunOrName],
    *,
    reason: str | None = None,
    timeout: float | None = 10,
    future: bool = False,
) -> ObjectList[Run]:
    """Stop several runs at once; waits for them as `stop_run` does. If one of the names is unknown, none is stopped."""
    found = _several(runs)
    for run in found:
        run.stop(reason, 0)
    return ObjectList((run.stop(reason, timeout) for run in found), Run)


@call
def delete_run(run: RunOrName, *, timeout: float | None = 10, future: bool = False) -> Run:
    """Delete a run, stopping it first if it has not ended. ``get_runs(include_deleted=True)`` still finds it.

    Raises:
        RunTimeoutError: it has not ended after ``timeout`` seconds. It is being stopped, and was not deleted.
    """
    return get_run(run).delete(timeout)


@call
def delete_runs(runs: Sequence[RunOrName], *, timeout: float | None = 10, future: bool = False) -> ObjectList[Run]:
    """Delete several runs, as `delete_run` does. If one of the names is unknown, none is deleted."""
    found = _several(runs)
    for run in found:
        run.stop("deleted", 0)
    return ObjectList((run.delete(timeout) for run in found), Run)


@call
def start_run(run: RunOrName, *, timeout: float | None = 10, future: bool = False) -> Run:
    """Queue an ended run again under its name, as its next resumption."""
    return get_run(run).start()


@call
def start_runs(runs: Sequence[RunOrName], *, timeout: float | None = 10, future: bool = False) -> ObjectList[Run]:
    """Queue several ended runs again. If one of the names is unknown, none is started."""
    return ObjectList((run.start() for run in _several(runs)), Run)


@call
def update_run(
    run: RunOrName,
    update_run_data: Mapping[str, Any] | None = None,
    *,
    preemptible: bool | None = None,
    priority: str | None = None,
    max_retries: int | None = None,
    retry_on_system_failure: bool | None = None,
    timeout: float | None = 10,
    future: bool = False,
    max_duration: float | None = None,
) -> Run:
    """Change how a run is scheduled; what isn't given stays. ``max_duration`` is in hours.

    ``update_run_data`` is the older way to say the same: a mapping, its keys also as mcli has them (``maxRetries``).

    Raises:
        IllegalTransitionError: the run has ended (409). RunConfigError: a value or key that isn't allowed.
    """
    fields: dict[str, Any] = {
        "preemptible": preemptible, "priority": priority, "max_retries": max_retries,
        "retry_on_system_failure": retry_on_system_failure, "max_duration": max_duration,
    }  # fmt: skip
    if update_run_data is not None:
        warnings.warn("update_run_data is an older way: name the arguments", DeprecationWarning, stacklevel=3)
        older = _older_update(update_run_data, list(fields))
        fields = {**older, **{field: value for field, value in fields.items() if value is not None}}
    return get_run(run).update(**fields)


@call
def update_run_metadata(
    run: RunOrName,
    metadata: Mapping[str, Any],
    *,
    timeout: float | None = 10,
    future: bool = False,
    protect: bool = False,
) -> Run:
    """Merge keys into a run's metadata, whatever its status; keys that aren't named stay.

    With ``protect`` a SIGTERM that arrives meanwhile (the run's own stop, say) takes effect when the call has ended.

    Raises:
        RunConfigError: the whole would have more than 200 keys, or a key or value is too large (400). Nothing changed.
    """
    with undisturbed(protect):
        return get_run(run).update_metadata(metadata)


@call
def wait_for_run_status(
    run: RunOrName,
    status: str | RunStatus,
    timeout: float | None = None,
    *,
    future: bool = False,
) -> Run:
    """Wait until a run has reached a status; returns at once if it has passed it already since its last start by hand.

    Raises:
        RunStatusNotReached: it ended without reaching it (a FAILED run never reaches COMPLETED).
        RunTimeoutError: it has not after ``timeout`` seconds. RunConfigError: no such status (400).
    """
    target = known_status(status)
    found = get_run(run)

    def done(record: Record) -> bool:
        return _reached(record, target) or records.status(record).is_terminal()

    found._record = wait_until(found._queue, found._folder, done, timeout)
    if not _reached(found._record, target):
        raise RunStatusNotReached(
            f"run {found.name} ended {found.status} ({found.reason}: {found.message}) and did not reach {target}"
        )
    return found


def _several(runs: Sequence[RunOrName]) -> list[Run]:
    return [get_run(run) for run in listed(runs, "runs")]


def _older_update(data: Mapping[str, Any], allowed: list[str]) -> dict[str, Any]:
    """What ``update_run_data`` says, by the arguments' names."""
    if not isinstance(data, Mapping):
        raise RunConfigError(f"update_run_data: must be a mapping, not {described(data)}")
    said = {"".join(f"_{c.lower()}" if c.isupper() else c for c in str(key)): value for key, value in data.items()}
    for key in said:
        if key not in allowed:
            raise RunConfigError(f"update_run_data: unknown key {described(key)}{hint(key, allowed)}")
    return said


def _reached(record: Record, target: RunStatus) -> bool:
    """True if the run has or had that status since it was submitted, or last started again by hand."""
    for entry in reversed(record["lifecycle"]):
        if entry["status"] == target.value:
            return True
        if entry["status"] == RunStatus.PENDING.value:
            return False
    return False
