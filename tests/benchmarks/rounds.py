"""What the benchmarks share: interleaved rounds, medians, and ratios to a floor measured in the same rounds."""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path


def interleaved(rounds: int, **candidates: Callable[[], object]) -> dict[str, float]:
    """The median seconds of each candidate; all are measured once in every round, so that noise hits them alike."""
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    for work in candidates.values():  # once to warm up caches and bytecode
        work()
    for _ in range(rounds):
        for name, work in candidates.items():
            start = time.perf_counter()
            work()
            taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in taken.items()}


def report(title: str, medians: dict[str, float], floor: str, limit: float | None = None) -> None:
    """Print medians in milliseconds and their ratios to the floor."""
    print(title)
    for name, seconds in medians.items():
        ratio = seconds / medians[floor]
        note = "" if name == floor or limit is None else f"   (aim: at most {limit:g})"
        print(f"  {name:<28} {seconds * 1000:10.3f} ms   {ratio:6.2f} x {floor}{note}")


@contextlib.contextmanager
def fresh_home() -> Iterator[Path]:
    """An empty LOCALRUN_HOME for the benchmark, whose dispatcher stays up; removed afterwards."""
    home = Path(tempfile.mkdtemp(prefix="localrun-benchmark-"))
    os.environ.update(LOCALRUN_HOME=str(home), LOCALRUN_IDLE_S="60")
    try:
        yield home
    finally:
        end_dispatcher(home)
        shutil.rmtree(home, ignore_errors=True)


def end_dispatcher(home: Path) -> None:
    """End the home's dispatcher, and wait until it is gone."""
    from localrun.engine.queue import Queue

    queue = Queue(home)
    pid = queue.dispatcher_pid()
    if pid is not None:
        os.kill(pid, 15)
        while queue.dispatcher_pid() is not None:
            time.sleep(0.01)
