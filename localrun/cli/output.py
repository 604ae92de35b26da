"""What is printed: facts for people, JSON for programs, and values in words. Tables are made in `table`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from localrun.cli.lines import print_line

if TYPE_CHECKING:
    from localrun.api.run import Run


def print_json(value: Any) -> None:
    """Print a value as JSON, in ASCII."""
    print(json.dumps(value, indent=2))


def print_facts(facts: Iterable[tuple[str, object]], indent: str = "") -> None:
    """Print what is known, a line each, aligned; what is None or empty is left out."""
    known = [(title, one_line(str(fact))) for title, fact in facts if fact not in (None, "")]
    width = max((len(title) for title, _ in known), default=0)
    for title, fact in known:
        print_line(f"{indent}{title.ljust(width)}  {fact}", len(indent) + width + 2)


def byte_stream(stream: TextIO) -> BinaryIO:
    """The bytes below a text stream, buffered whatever Python was told of that (``-u``), and written whole."""
    stream.flush()
    return open(stream.fileno(), "wb", closefd=False)


def say(text: str) -> None:
    """Tell the person something that is not what was asked for: on stderr."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def one_line(text: str) -> str:
    """A text on one line, with what a terminal would act on made visible."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def local_time(moment: datetime | None) -> str | None:
    """A time as the clock on the wall shows it."""
    return None if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def age(moment: datetime | None) -> str | None:
    """How long ago a time was, roughly: "5s", "3m", "2h", "4d"."""
    if moment is None:
        return None
    seconds = max(time.time() - moment.timestamp(), 0)
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f}{unit}"
    return f"{seconds:.0f}s"


def duration(seconds: float | None) -> str | None:
    """How long something took: "0.4s", "12s", "3m05s", "2h04m", "3d02h"."""
    if seconds is None:
        return None
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f}s"
    whole = round(seconds)
    for unit, length, part, smaller in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= length:
            return f"{whole // length}{unit}{whole % length // smaller:02d}{part}"
    return f"{whole}s"


def elapsed(run: Run) -> float | None:
    """Seconds from a run's first start to its end, or until now; None if it never started."""
    if run.started_at is None:
        return None
    end = run.completed_at.timestamp() if run.completed_at is not None else time.time()
    return float(end - run.started_at.timestamp())


def work(run: Run) -> str:
    """What a run does: its command or function."""
    return "\n".join(run.cmds) if run.cmds else run.fn_name or ""


def summary(run: Run) -> dict[str, Any]:
    """A run in short, for programs; times are ISO 8601 in UTC."""
    times = {field: getattr(run, field) for field in ("created_at", "started_at", "completed_at")}
    return {
        "name": run.name, "uid": run.run_uid, "run_type": run.run_type, "status": run.status.value,
        "reason": run.reason, "message": run.message, "exit_code": run.exit_code, "signal": run.signal,
        **{field: moment and moment.isoformat() for field, moment in times.items()},
        "duration": elapsed(run), "fn_name": run.fn_name, "cmds": run.cmds, "cpus": run.cpus, "memory": run.memory,
        "gpus": run.gpus, "gpu_type": run.gpu_type, "priority": run.priority, "preemptible": run.preemptible,
        "created_by": run.created_by, "resumption_count": run.resumption_count, "metadata": run.metadata,
        "path": run.path, "deleted": run.is_deleted,
    }  # fmt: skip


def masked(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with the values of environment variables hidden."""
    shown = dict(record)
    for part in ("config", "request"):
        inside = shown.get(part)
        if isinstance(inside, dict) and isinstance(inside.get("env_variables"), dict):
            shown[part] = {**inside, "env_variables": dict.fromkeys(inside["env_variables"], "***")}
    return shown
