"""What a run uses while it works: CPU, memory and GPUs of all its processes, a row every few seconds.

Sampling is rare enough to cost less than half a percent of a core: rows come quickly at first and then every ten
seconds, and where a look at the machine takes long they come more rarely still. A disk that refuses a row loses it.
"""

from __future__ import annotations

import json
import os
import time

from localrun.engine import processes
from localrun.model import record as records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from localrun.engine.probe import Probe

_FIRST_S, _LAST_S = 1.0, 10.0
_GROWTH = 1.5
# So many times what a sample took passes before the next one.
_REST = 250


class Telemetry:
    """The sampler of one run, for the loop of its supervisor: `due` says when to call `sample`."""

    def __init__(self, path: str, gpus: Sequence[str]) -> None:
        """``path`` is the file of rows, made with the first one; ``gpus`` are the uuids of the run's."""
        self._path = path
        self._gpus = gpus
        self._pause = _FIRST_S
        self._next = time.monotonic() + self._pause
        self._cpu = time.monotonic(), 0.0  # when, and the seconds of CPU by then
        self._probe: Probe | None = None
        self._asked = 0.0
        self._ask_next = 0.0
        self._row: dict[str, Any] | None = None  # a row that waits for what the driver says

    @property
    def fd(self) -> int:
        """What becomes readable when the driver answers; -1 while it is not being asked."""
        return -1 if self._probe is None else self._probe.fd

    def due(self, now: float) -> float:
        """Seconds until the next call of `sample`."""
        return max(0.0, min(self._next, float("inf") if self._probe is None else self._probe.deadline) - now)

    def sample(self) -> None:
        """Take the row that is due, or the driver's answer to the last one."""
        if self._probe is not None:
            self._hear()
        began = time.monotonic()
        if began < self._next:
            return
        row = self._look(began)
        self._pause = max(min(self._pause * _GROWTH, _LAST_S), _REST * (time.monotonic() - began))
        self._next = began + self._pause
        if self._gpus and self._probe is None and began >= self._ask_next and self._ask():
            self._row = row
        else:
            self._write(row)

    def close(self) -> None:
        """The run has ended: write what was not yet, and leave the driver alone."""
        if self._probe is not None:
            self._probe.give_up()
            self._probe.close()
            self._probe = None
        if self._row is not None:
            self._write(self._row)

    def _look(self, now: float) -> dict[str, Any]:
        everything = processes.snapshot()
        tree = processes.descendants([os.getpid()], everything, without=processes.is_service)
        used = [processes.usage(pid) for pid in tree]
        cpu, before = sum(seconds for seconds, _ in used), self._cpu
        self._cpu = now, cpu
        # What ended in between, and nobody of the run waited for, takes its time out of the sum.
        percent = max(0.0, 100 * (cpu - before[1]) / (now - before[0]))
        rss = sum(size for _, size in used)
        return {"time": records.now(), "cpu_percent": round(percent, 1), "rss": rss, "gpus": []}

    def _ask(self) -> bool:
        from localrun.engine.probe import Probe, is_stuck

        if is_stuck():
            return False
        try:
            self._probe, self._asked = Probe.start(), time.monotonic()
        except OSError:
            return False
        return True

    def _hear(self) -> None:
        assert self._probe is not None
        now = time.monotonic()
        found = self._probe.read()
        if found is None and now >= self._probe.deadline:
            found = self._probe.give_up()
        if found is None:
            return
        self._probe.close()
        self._probe = None
        self._ask_next = now + _REST * (now - self._asked)
        row, self._row = self._row, None
        if row is not None:
            row["gpus"] = [
                {
                    "uuid": gpu.uuid, "utilization": gpu.utilization, "memory_used": gpu.memory_used,
                    "processes": len(gpu.processes),
                }
                for gpu in found.gpus if gpu.uuid in self._gpus
            ]  # fmt: skip
            self._write(row)

    def _write(self, row: dict[str, Any]) -> None:
        self._row = None
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
            fd = os.open(self._path, flags, 0o600)
            try:
                os.write(fd, json.dumps(row).encode() + b"\n")
            finally:
                os.close(fd)
        except OSError:
            pass  # the run matters, not the row
