"""The calls on the logs of runs, with mcli's names, signatures and meaning."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from localrun.api.calls import call
from localrun.api.listing import find as listing
from localrun.api.output import following, logs, masking
from localrun.api.run import Run
from localrun.errors import RunConfigError
from localrun.model import times
from localrun.model.config import described

RunOrName = str | Run


@call
def get_run_logs(
    run: RunOrName,
    rank: int | None = None,
    *,
    node_rank: int | None = None,
    local_gpu_rank: int | None = None,
    global_gpu_rank: int | None = None,
    timeout: float | None = None,
    future: bool = False,
    failed: bool = False,
    resumption: int | None = None,
    tail: int | None = None,
    container: str | None = None,
    timestamps: bool = False,
    stream: str | None = None,
) -> logs.LogText:
    """The log of a run as it is now: text that iterates by line, stdout and stderr merged in time order.

    ``rank`` (or mcli's other names for it) is the process, by default the lowest; ``failed`` takes the first failed
    one; ``resumption`` the attempt, by default the last; ``tail`` the number of characters from the end;
    ``timestamps`` puts each line's time before it; ``stream`` is ``"stdout"`` or ``"stderr"`` for one of them alone.
    ``container`` is mcli's: a run has one, ``"MAIN"``. The values of the user's secrets are shown as ``***``;
    `Run.stdout` and `Run.stderr` have every byte.

    Raises:
        RunConfigError: there is no such resumption, rank or container (400).
    """
    _check(container, tail, resumption)
    found, index, chosen = _log_of(run, rank, node_rank, local_gpu_rank, global_gpu_rank, failed, resumption)
    folder = found._folder
    if stream not in (None, "stdout", "stderr"):
        raise RunConfigError(f"stream: must be 'stdout' or 'stderr', not {stream!r}")
    mask = masking.current()
    if timestamps:
        lines = masking.blocks(logs.MergedReader(folder, index, chosen, stream).rest(), mask)
        data = b"".join(map(stamped, lines))
    elif stream is not None:
        data = logs.stream(folder.stdout(index, chosen) if stream == "stdout" else folder.stderr(index, chosen))
    else:
        data = logs.text(folder, index, chosen)
    if mask is not None and not timestamps:
        data = mask.data(data)
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
    timeout: float | None = None,
    future: bool = False,
    resumption: int | None = None,
    tail: int | None = None,
    container: str | None = None,
    timestamps: bool = False,
) -> Iterator[str]:
    """The log of a run line by line (with their line ends), waiting for more until the run has ended.

    Options as in `get_run_logs`; ``tail`` leaves out all but so many characters of what is there already. With
    ``future`` the lines of the iterator that the future gives are futures too; the one behind the last line raises
    StopAsyncIteration.
    """
    _check(container, tail, resumption)
    found, index, _ = _log_of(run, rank, node_rank, local_gpu_rank, global_gpu_rank, False, resumption)
    chosen = next((r for r in (rank, node_rank, local_gpu_rank, global_gpu_rank) if r is not None), None)
    return _followed(found, index, chosen, timestamps, tail, timeout)


def _followed(
    run: Run, resumption: int, rank: int | None, timestamps: bool, tail: int | None, timeout: float | None
) -> Iterator[str]:
    skip, mask = 0, masking.current()
    if tail is not None:
        there = logs.text(run._folder, resumption, rank or 0)
        skip = max(len((there if mask is None else mask.data(there)).decode(errors="replace")) - tail, 0)
    for line in logs.split(masking.blocks(following.follow(run, resumption, rank, timeout), mask)):
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
    return b"- " if time is None else f"{times.iso(time)[:23]}+00:00 ".encode()


def _check(container: str | None, tail: int | None, resumption: int | None) -> None:
    _check_whole("tail", tail)
    _check_whole("resumption", resumption)
    if container is not None and str(container).upper() != "MAIN":
        raise RunConfigError(f"container: a run has one, 'MAIN', and not {container!r}")


def _check_whole(name: str, value: object) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise RunConfigError(f"{name}: must be a whole number, 0 or more, not {described(value)}")


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
    if global_gpu_rank is not None and (node_rank, local_gpu_rank) != (None, None):
        raise RunConfigError("global_gpu_rank: can't be given together with node_rank or local_gpu_rank")
    for each in (rank, node_rank, local_gpu_rank, global_gpu_rank):
        _check_whole("rank", each)
    found = listing.find(run)
    named = {r for r in (rank, node_rank, local_gpu_rank, global_gpu_rank) if r is not None}
    if len(named) > 1:
        raise RunConfigError(f"rank: one process was asked for by several numbers: {sorted(named)}")
    last = found.latest_attempt
    index = last if resumption is None else resumption
    if not 0 <= index <= last:
        raise RunConfigError(f"resumption: run {found.name} has 0 to {last}, not {index}")
    wanted = found.failed_rank if failed and not named else next(iter(named), None)
    return found, index, logs.choose_rank(found._folder, index, wanted)
