"""What ``trace_files=True`` costs a program that opens many files: to the end of the block, and to the program's end.

Another process looks at the files. The block's end doesn't wait for it; the program's end does.

    python tests/benchmarks/trace_files.py [FILES] [ROUNDS]

Three programs: one that reads JSON documents and works with them, one that writes them, and one that does nothing but
read files that are in memory, which is the worst there can be. Each round is a process of its own: an audit hook stays
for as long as its process, so that a second round would have it in what is measured without it, too.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from rounds import report

from localrun.engine.tracing.files import audit, witness  # noqa: F401 - the import of the second takes no part
from localrun.model import noted
from localrun.model.folder import RunFolder

AIM = 1.05


def main() -> None:
    """Measure each program alone and watched."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 15
    place = Path(tempfile.mkdtemp(prefix="localrun-benchmark-"))
    os.environ["LOCALRUN_HOME"] = str(place / "home")
    try:
        measure(place, count, rounds)
    finally:
        shutil.rmtree(place)


def measure(place: Path, count: int, rounds: int) -> None:
    """Make the files, and measure."""
    text = json.dumps([{"id": number, "text": "word " * 8, "score": number / 2} for number in range(40)])
    paths = [str(place / "data" / str(number % 100) / f"{number}.json") for number in range(count)]
    for path in paths:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Path(path).write_text(text)
    made = place / "made"
    made.mkdir()
    os.chdir(place)

    def work() -> None:
        total = 0.0
        for path in paths:
            with open(path) as file:
                total += sum(entry["score"] for entry in json.load(file))

    def write() -> None:
        for number in range(count):
            with open(made / f"{number}.json", "w") as file:
                file.write(text)

    def read() -> None:
        for path in paths:
            with open(path) as file:
                file.read()

    for program in (work, write, read):
        program()  # once, to warm up caches
        times: dict[bool, list[list[float]]] = {False: [], True: []}
        for number in range(rounds):
            for is_watched in (number % 2 == 0, number % 2 == 1):
                times[is_watched].append(_in_a_process(partial(_round, program, place, is_watched, count)))
        for index, until in enumerate(("the end of the block", "the end of the program")):
            alone, watched = ([each[index] for each in times[is_watched]] for is_watched in (False, True))
            title = f"{count} files, {rounds} rounds: {program.__name__}, until {until}"
            report(title, {"alone": statistics.median(alone), "watched": statistics.median(watched)}, "alone", AIM)
            print(f"  {'in the quicker rounds':<28} {'':>13}   {_quicker(watched) / _quicker(alone):6.2f} x alone")


def _quicker(times: list[float]) -> float:
    """The lower quartile: what it takes when nobody else on the machine takes part."""
    return statistics.quantiles(times, n=4)[0]


def _round(program: Callable[[], None], place: Path, is_watched: bool, count: int) -> list[float]:
    """Seconds until the end of the block, and of the program."""
    folder = RunFolder(place / "run", "uid")
    os.mkdir(folder.path)
    start = time.perf_counter()
    watch = audit.start(folder, True) if is_watched else None
    program()
    if watch is not None:
        watch.stop()
    block = time.perf_counter() - start
    audit.settle()
    whole = time.perf_counter() - start
    noted.settle(folder)
    if watch is not None:
        assert Path(folder.artifacts).read_bytes().count(b"sha256:") == count
    shutil.rmtree(folder.path)
    return [block, whole]


def _in_a_process(work: Callable[[], list[float]]) -> list[float]:
    mine, its = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(its, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(its)
    with open(mine, "rb") as line:
        said = line.read()
    os.waitpid(pid, 0)
    found: list[float] = json.loads(said)
    return found


if __name__ == "__main__":
    main()
