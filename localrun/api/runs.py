"""The calls on runs, with mcli's names, signatures and meaning. Each is short: the work is a `Run`'s.

Every call takes ``timeout`` (seconds) and ``future`` (return a ``Future`` instead). Where a run is asked for, its name
or a `Run` will do. A ``runs`` argument that is an empty list is a no-op.
"""

from __future__ import annotations

import fnmatch
import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from localrun import settings
from localrun.api import following, logs, submit
from localrun.api.calls import call
from localrun.api.run import Run, broken
from localrun.engine import submission
from localrun.engine.queue import Queue
from localrun.engine.waiting import wait_until
from localrun.errors import NotARunError, RunConfigError, RunNotFoundError, RunStatusNotReached, SystemFailureError
from localrun.model import record as records
from localrun.model.config import RunConfig
from localrun.model.folder import RunFolder
from localrun.model.record import Record
from localrun.model.request import validate_name
from localrun.model.status import RunStatus

RunOrName = str | Run


@call
def create_run(
    run: RunConfig | Mapping[str, Any],
    *,
    path: str | None = None,
    timeout: float | None = 10,
    future: bool = False,
) -> Run:
    """Queue a command run as configured, and return it. The configuration is not changed.

    The config's name is used if it is free, else ``-`` and 6 characters are appended; without a name one is made from
    the command. ``path`` puts this run's folder there.

    Raises:
        RunConfigError: the configuration is refused (400). Nothing was created.
    """
    config = run if isinstance(run, RunConfig) else RunConfig.from_mapping(run)
    return submit.command(config, path)


@call
def get_run(run: RunOrName, *, include_details: bool = True, timeout: float | None = 10, future: bool = False) -> Run:
    """The run of that name, as it is now. ``include_details`` is mcli's: the details are always there.

    Raises:
        RunNotFoundError: there is no run of that name (404).
    """
    if isinstance(run, Run):
        return Run.load(run.path) if os.path.isdir(run.path) else run.refresh()
    folder = RunFolder(submit.folder_of(validate_name(run, "run")))
    try:
        return Run.load(folder.path)
    except RunNotFoundError:
        raise RunNotFoundError(f"run {run}: there is none of that name in {settings.runs_dir()}") from None
    except SystemFailureError as error:
        return broken(folder, error)


@call
def get_runs(
    runs: Sequence[RunOrName] | None = None,
    *,
    statuses: Sequence[str | RunStatus] | None = None,
    include_deleted: bool = False,
    include_details: bool = False,
    limit: int | None = 100,
    timeout: float | None = 10,
    future: bool = False,
) -> list[Run]:
    """The runs, newest first: those of these names or globs (``lr-*``), or all; with one of these statuses, or any.

    ``limit`` is the most that are returned (None: the latest 100). An unreadable record is listed as UNKNOWN.

    Raises:
        RunNotFoundError: a name that is no glob is no run's. ValueError: a status that doesn't exist.
    """
    if statuses is not None and isinstance(statuses, str):
        raise RunConfigError(f"statuses: must be a list, not the text {statuses!r}: put it in brackets")
    if limit is not None and limit < 0:
        raise RunConfigError(f"limit: must be 0 or more, not {limit}")
    wanted = None if statuses is None else {_known_status(status) for status in statuses}
    found = _all_runs(include_deleted) if runs is None else _named_runs(_listed(runs), include_deleted)
    chosen = [run for run in found if wanted is None or run.status in wanted]
    if any(not run.status.is_terminal() for run in chosen):
        submission.ensure_progress(Queue(settings.home()))
    chosen.sort(key=lambda run: run._record["created_at"], reverse=True)
    return chosen[: 100 if limit is None else limit]


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
) -> list[Run]:
    """Stop several runs at once; waits for them as `stop_run` does. If one of the names is unknown, none is stopped."""
    found = [get_run(run) for run in _listed(runs)]
    for run in found:
        run.stop(reason, 0)
    return [run.stop(reason, timeout) for run in found]


@call
def delete_run(run: RunOrName, *, timeout: float | None = None, future: bool = False) -> Run:
    """Delete a run, stopping it first if it has not ended. ``get_runs(include_deleted=True)`` still finds it."""
    return get_run(run).delete(timeout)


@call
def delete_runs(runs: Sequence[RunOrName], *, timeout: float | None = None, future: bool = False) -> list[Run]:
    """Delete several runs. If one of the names is unknown, none is deleted."""
    found = [get_run(run) for run in _listed(runs)]
    for run in found:
        run.stop("deleted", 0)
    return [run.delete(timeout) for run in found]


@call
def start_run(run: RunOrName, *, timeout: float | None = 10, future: bool = False) -> Run:
    """Queue an ended run again under its name, as its next resumption."""
    return get_run(run).start()


@call
def start_runs(runs: Sequence[RunOrName], *, timeout: float | None = 10, future: bool = False) -> list[Run]:
    """Queue several ended runs again. If one of the names is unknown, none is started."""
    return [run.start() for run in [get_run(run) for run in _listed(runs)]]


@call
def update_run(
    run: RunOrName,
    update_run_data: Mapping[str, Any] | None = None,
    *,
    timeout: float | None = 10,
    future: bool = False,
    **fields: Any,
) -> Run:
    """Change a run's ``preemptible``, ``priority``, ``max_retries``, ``retry_on_system_failure``, ``max_duration``."""
    return get_run(run).update(**{**dict(update_run_data or {}), **fields})


@call
def update_run_metadata(
    run: RunOrName,
    metadata: Mapping[str, Any],
    *,
    timeout: float | None = 10,
    future: bool = False,
) -> Run:
    """Merge keys into a run's metadata; keys that aren't named stay."""
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
        TimeoutError: it has not after ``timeout`` seconds. ValueError: no such status.
    """
    target = _known_status(status)
    found = get_run(run)

    def done(record: Record) -> bool:
        return _reached(record, target) or records.status(record).is_terminal()

    found._record = wait_until(found._queue, found._folder, done, timeout)
    if not _reached(found._record, target):
        raise RunStatusNotReached(
            f"run {found.name} ended {found.status} ({found.reason}: {found.message}) and did not reach {target}"
        )
    return found


@call
def get_run_logs(
    run: RunOrName,
    rank: int | None = None,
    *,
    node_rank: int | None = None,
    local_gpu_rank: int | None = None,
    global_gpu_rank: int | None = None,
    timestamps: bool = False,
    failed: bool = False,
    resumption: int | None = None,
    tail: int | None = None,
    stream: str | None = None,
    timeout: float | None = 10,
    future: bool = False,
) -> logs.LogText:
    """The log of a run as it is now: text that iterates by line, stdout and stderr merged in time order.

    ``rank`` (or mcli's other names for it) is the process, by default the lowest; ``failed`` takes the first failed
    one; ``resumption`` the attempt, by default the last; ``tail`` the number of characters from the end;
    ``timestamps`` puts each line's time before it; ``stream`` is ``"stdout"`` or ``"stderr"`` for one of them alone.
    """
    found, index, chosen = _log_of(run, rank, node_rank, local_gpu_rank, global_gpu_rank, failed, resumption)
    folder = RunFolder(found.path)
    if stream not in (None, "stdout", "stderr"):
        raise RunConfigError(f"stream: must be 'stdout' or 'stderr', not {stream!r}")
    if timestamps:
        data = b"".join(stamped(line) for line in logs.MergedReader(folder, index, chosen, stream).rest())
    elif stream is not None:
        data = logs.stream(folder.stdout(index, chosen) if stream == "stdout" else folder.stderr(index, chosen))
    else:
        data = logs.text(folder, index, chosen)
    text = data.decode(errors="replace")
    return logs.LogText(text if tail is None else text[max(len(text) - tail, 0) :])


@call
def follow_run_logs(
    run: RunOrName,
    rank: int | None = None,
    *,
    node_rank: int | None = None,
    local_gpu_rank: int | None = None,
    global_gpu_rank: int | None = None,
    timestamps: bool = False,
    resumption: int | None = None,
    tail: int | None = None,
    timeout: float | None = None,
    future: bool = False,
) -> Iterator[str]:
    """The log of a run line by line (with their line ends), waiting for more until the run has ended.

    Options as in `get_run_logs`; ``tail`` leaves out all but so many characters of what is there already.
    """
    found, index, _ = _log_of(run, rank, node_rank, local_gpu_rank, global_gpu_rank, False, resumption)
    chosen = next((r for r in (rank, node_rank, local_gpu_rank, global_gpu_rank) if r is not None), None)
    return _followed(found, index, chosen, timestamps, tail, timeout)


def _followed(
    run: Run, resumption: int, rank: int | None, timestamps: bool, tail: int | None, timeout: float | None
) -> Iterator[str]:
    skip = 0
    if tail is not None:
        there = logs.text(RunFolder(run.path), resumption, rank or 0).decode(errors="replace")
        skip = max(len(there) - tail, 0)
    for line in logs.split(following.follow(run, resumption, rank, timeout)):
        text = line.data.decode(errors="replace")
        if skip >= len(text):
            skip -= len(text)
            continue
        yield (stamped(line).decode(errors="replace") if timestamps else text[skip:])
        skip = 0


def stamped(line: logs.Line) -> bytes:
    """A line behind its time, ISO 8601 UTC with milliseconds; ``-`` where nobody was there to note it."""
    return _stamp(line.time) + line.data


@functools.lru_cache(maxsize=16)
def _stamp(time: float | None) -> bytes:
    return b"- " if time is None else f"{records.iso(time)[:23]}+00:00 ".encode()


def _log_of(
    run: RunOrName,
    rank: int | None,
    node_rank: int | None,
    local_gpu_rank: int | None,
    global_gpu_rank: int | None,
    failed: bool,
    resumption: int | None,
) -> tuple[Run, int, int]:
    """The run, resumption and rank that are asked for."""
    found = get_run(run)
    named = {r for r in (rank, node_rank, local_gpu_rank, global_gpu_rank) if r is not None}
    if len(named) > 1:
        raise RunConfigError(f"rank: one process was asked for by several numbers: {sorted(named)}")
    last = max(found.resumption_count, found._record["first_resumption"])
    index = last if resumption is None else resumption
    if not 0 <= index <= last:
        raise RunConfigError(f"resumption: run {found.name} has 0 to {last}, not {index}")
    wanted = found.failed_rank if failed and not named else next(iter(named), None)
    return found, index, logs.choose_rank(RunFolder(found.path), index, wanted)


def _known_status(status: str | RunStatus) -> RunStatus:
    known = RunStatus.from_string(status)
    if known is RunStatus.UNKNOWN and status is not RunStatus.UNKNOWN and str(status).upper() != "UNKNOWN":
        raise ValueError(f"status: {status!r} is none of {', '.join(each.value for each in RunStatus)}")
    return known


def _reached(record: Record, target: RunStatus) -> bool:
    """True if the run has or had that status since it was submitted, or last started again by hand."""
    for entry in reversed(record["lifecycle"]):
        if entry["status"] == target.value:
            return True
        if entry["status"] == RunStatus.PENDING.value:
            return False
    return False


def _named_runs(asked: Sequence[RunOrName], include_deleted: bool) -> list[Run]:
    patterns = [name for name in asked if isinstance(name, str) and (include_deleted or _is_glob(name))]
    found = {run.path: run for run in (get_run(name) for name in asked if name not in patterns)}
    matched = set()
    for run in _all_runs(include_deleted) if patterns else ():
        by = {pattern for pattern in patterns if fnmatch.fnmatchcase(run.name, pattern)}
        if by:
            found[run.path] = run
            matched |= by
    for name in patterns:
        if name not in matched and not _is_glob(name):
            get_run(name)  # which says that there is none
    return list(found.values())


def _is_glob(name: str) -> bool:
    return any(mark in name for mark in "*?[")


def _listed(runs: Sequence[RunOrName], field: str = "runs") -> Sequence[RunOrName]:
    """The list itself; text would be taken for a list of one-letter names."""
    if isinstance(runs, str | bytes):
        raise RunConfigError(f"{field}: must be a list, not the text {runs!r}: put it in brackets")
    return runs


def _all_runs(include_deleted: bool) -> list[Run]:
    runs_dir = str(settings.runs_dir())
    folders = [f"{runs_dir}/{name}" for name in _entries(runs_dir) if not name.startswith(".")]
    if include_deleted:
        archive = f"{runs_dir}/{submission.ARCHIVE}"
        folders += [f"{archive}/{name}" for name in _entries(archive)]
    return [run for run in map(_readable, folders) if run is not None]


def _readable(path: str) -> Run | None:
    folder = RunFolder(path)
    try:
        return Run(records.read(folder), folder)
    except SystemFailureError as error:
        return broken(folder, error)
    except (RunNotFoundError, NotARunError, OSError):
        return None  # a file or folder of someone else's, or a run archived this moment


def _entries(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
