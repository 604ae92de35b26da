"""What runs used, read back: rows for those who plot, and the sums that people look at."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from localrun import files
from localrun.model.folder import RunFolder
from localrun.model.moment import Moment

# What the driver itself keeps of a GPU's memory is less.
_IDLE_MEMORY = 1 << 30
_ENOUGH = 3


class Summary(NamedTuple):
    """Means and peaks over a resumption; ``gpus_used``: how many GPUs were ever seen in use (None: too little was seen
    of them to tell).

    Percent are of one CPU, or of a GPU; memory is in bytes.
    """

    samples: int
    cpu_mean: float
    cpu_peak: float
    rss_mean: float
    rss_peak: int
    gpu_mean: float | None
    gpu_peak: int | None
    gpu_memory_peak: int | None
    gpus_used: int | None


def rows(folder: RunFolder, resumption: int) -> list[dict[str, Any]]:
    """The samples of a resumption, in order; none if it was too short to be sampled."""
    try:
        text = files.read(folder.telemetry(resumption))
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = []
    for line in text.splitlines():
        try:
            row: dict[str, Any] = json.loads(line)
            if _is_row(row):
                found.append(row | {"time": Moment.parse(row["time"])})
        except (ValueError, KeyError, TypeError, RecursionError):
            continue  # a full disk has cut it short
    return found


def _is_row(row: Any) -> bool:
    """True for what has the numbers of a sample, whoever wrote it."""
    numbers = [row["cpu_percent"], row["rss"]]
    seen = [gpu[key] for gpu in row["gpus"] for key in ("utilization", "memory_used") if gpu[key] is not None]
    return all(isinstance(each, int | float) for each in (*numbers, *seen))


def summary(samples: Sequence[dict[str, Any]]) -> Summary | None:
    """The sums over these rows; None if there are none."""
    if not samples:
        return None
    cpu = [row["cpu_percent"] for row in samples]
    rss = [row["rss"] for row in samples]
    gpus = [gpu for row in samples for gpu in row["gpus"]]
    busy = _known(gpu["utilization"] for gpu in gpus)
    return Summary(
        samples=len(samples),
        cpu_mean=_mean(cpu),
        cpu_peak=max(cpu),
        rss_mean=_mean(rss),
        rss_peak=max(rss),
        gpu_mean=_mean(busy) if busy else None,
        gpu_peak=max(busy, default=None),
        gpu_memory_peak=max(_known(gpu["memory_used"] for gpu in gpus), default=None),
        gpus_used=len({gpu["uuid"] for gpu in gpus if _is_used(gpu)}) if _tells(samples) else None,
    )


def _tells(samples: Sequence[dict[str, Any]]) -> bool:
    """True if the GPUs were looked at often, or late, enough to say that some were never used."""
    looks = [bool(row["gpus"]) for row in samples]
    return sum(looks) >= _ENOUGH or any(looks[len(looks) // 2 :])


def _is_used(gpu: Mapping[str, Any]) -> bool:
    """True if a GPU worked or a process had its memory; the driver tells of a MIG instance only how much is used."""
    memory: int = gpu["memory_used"] or 0
    return bool(memory if gpu["utilization"] is None else gpu["utilization"] or memory > _IDLE_MEMORY)


def _known(values: Iterable[int | None]) -> list[int]:
    return [value for value in values if value is not None]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
