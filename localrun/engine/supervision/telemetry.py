"""What a run uses while it works: CPU, memory and GPUs of all its processes, a row every few seconds.

Sampling is rare enough to cost less than half a percent of a core: rows come quickly at first and then every ten
seconds, the driver is asked for some of them, and whatever costs more CPU is done more rarely still. A row waits for
the driver's answer until the next one is due, which then gets it. A disk that refuses a row loses it.
"""

from __future__ import annotations

import json
import os
import time

from localrun.engine import processes
from localrun.model import times

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from localrun.engine.gpus.inventory import Inventory
    from localrun.engine.gpus.probe import Probe
    from localrun.engine.processes import Process

_FIRST_S, _LAST_S = 1.0, 10.0
_GROWTH = 1.5
# So many times the CPU that a look at the processes, or a question to the driver, took passes before the next one.
_REST = 400
_ASK_FIRST_S, _ASK_LAST_S = 10.0, 30.0
_KILLED_S = 0.2


class Telemetry:
    """The sampler of one run, for the loop of its supervisor: `due` says when to call `sample`."""

    def __init__(self, path: str, gpus: Sequence[str], alive: Callable[[], Sequence[Process]]) -> None:
        """``path`` is the file of rows, made with the first one; ``gpus`` are the uuids of the run's.

        ``alive`` gives the run's processes.
        """
        self._path = path
        self._alive = alive
        self._gpus = gpus
        self._pause = _FIRST_S
        self._next = time.monotonic() + self._pause
        self._cpu = time.monotonic(), 0.0  # when, and the seconds of CPU by then
        self._probe: Probe | None = None
        self._ask_next = 0.0
        self._row: dict[str, Any] | None = None  # one that waits for what the driver says

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
            self._hear(self._probe)
        now = time.monotonic()
        if now < self._next:
            return
        self._write_waiting()
        began = time.thread_time()
        self._row = self._look(now)
        self._pause = max(min(self._pause * _GROWTH, _LAST_S), _REST * (time.thread_time() - began))
        self._next = now + self._pause
        if self._gpus and self._probe is None and now >= self._ask_next:
            self._ask(now)
        if self._probe is None:
            self._write_waiting()

    def close(self) -> None:
        """The run has ended: write what was not yet, and have no process left that asks the driver."""
        if self._probe is not None:
            from localrun.engine.gpus.probe import is_stuck

            self._probe.give_up()
            self._probe.close()
            self._probe = None
            is_stuck(_KILLED_S)
        self._write_waiting()

    def _look(self, now: float) -> dict[str, Any]:
        used = [processes.usage(process.pid) for process in self._alive()]
        cpu, before = sum(seconds for seconds, _ in used), self._cpu
        self._cpu = now, cpu
        # What ended in between, and nobody of the run waited for, takes its time out of the sum.
        percent = max(0.0, 100 * (cpu - before[1]) / (now - before[0]))
        rss = sum(size for _, size in used)
        return {"time": times.now(), "cpu_percent": round(percent, 1), "rss": rss, "gpus": []}

    def _ask(self, now: float) -> None:
        from localrun.engine.gpus.probe import Probe, is_stuck

        self._ask_next = now + _ASK_LAST_S
        if is_stuck():
            return
        try:
            self._probe = Probe.start()
        except OSError:
            return

    def _hear(self, probe: Probe) -> None:
        found, now = probe.read(), time.monotonic()
        if found is None and now >= probe.deadline:
            found = probe.give_up()
        if found is None:
            return
        if probe.cost:
            self._ask_next = now + min(max(_REST * probe.cost, _ASK_FIRST_S), _ASK_LAST_S)
        probe.close()
        self._probe = None
        if self._row is not None:
            self._row["gpus"] = self._in_row(found)
            self._write_waiting()

    def _in_row(self, found: Inventory) -> list[dict[str, Any]]:
        return [
            {"uuid": gpu.uuid, "utilization": gpu.utilization, "memory_used": gpu.memory_used}
            for gpu in found.gpus if gpu.uuid in self._gpus and gpu.problem is None
        ]  # fmt: skip

    def _write_waiting(self) -> None:
        row, self._row = self._row, None
        if row is None:
            return
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
