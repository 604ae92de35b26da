"""What ``trace_files=True`` costs a program that opens many files: a traced block of it with, and without.

Another process looks at the files, most of them when the block is over. The end of the block doesn't wait for it; the
end of the program does, which is told apart.

    python tests/benchmarks/trace_files.py [FILES] [ROUNDS]

Four programs: one that reads compressed samples and unpacks them, as what feeds a training does; one that reads JSON
documents and works with them; one that writes them; and one that does nothing but read files that are in memory, which
is the worst there can be. Each time is that of a process of its own, with and then without or the other way round. A
machine whose speed varies more than what is to be measured needs many rounds.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeAlias

import localrun
from localrun.engine.tracing.files import audit

AIM = 1.05

Program: TypeAlias = Callable[[int], None]


class Times(NamedTuple):
    """Seconds until the end of the block, and until all is noted."""

    block: float
    noted: float


def load(count: int) -> None:
    """Read compressed samples, and unpack them."""
    for number in range(count):
        with open(f"samples/{number}.z", "rb") as file:
            zlib.crc32(zlib.decompress(file.read()))


def work(count: int) -> None:
    """Read JSON documents, and work with them."""
    total = 0.0
    for number in range(count):
        with open(_document(number)) as file:
            total += sum(entry["score"] for entry in json.load(file))


def write(count: int) -> None:
    """Write documents."""
    for number in range(count):
        with open(f"made/{number}.json", "w") as file:
            file.write("word " * 600)


def read(count: int) -> None:
    """Read documents."""
    for number in range(count):
        with open(_document(number)) as file:
            file.read()


PROGRAMS = {program.__name__: program for program in (load, work, write, read)}


def main() -> None:
    """Measure each program with and without."""
    if sys.argv[1:2] == ["--once"]:
        return once(sys.argv[2], int(sys.argv[3]), trace_files=sys.argv[4] == "True")
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 15
    place = Path(tempfile.mkdtemp(prefix="localrun-benchmark-"))
    os.environ["LOCALRUN_HOME"] = str(place / "home")
    try:
        prepare(place, count)
        for program in PROGRAMS:
            measure(program, count, rounds)
    finally:
        shutil.rmtree(place)
    return None


def prepare(place: Path, count: int) -> None:
    """Make the files that the programs read, in what becomes the working folder."""
    os.chdir(place)
    text = json.dumps([{"id": number, "text": "word " * 8, "score": number / 2} for number in range(40)])
    sample = zlib.compress(random.Random(0).randbytes(16 << 10) * 4)
    Path("made").mkdir()
    for number in range(count):
        for path, data in ((_document(number), text.encode()), (f"samples/{number}.z", sample)):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            Path(path).write_bytes(data)


def _document(number: int) -> str:
    return f"data/{number % 100}/{number}.json"


def measure(program: str, count: int, rounds: int) -> None:
    """Print what it takes with and without, and the ratios."""
    times: dict[bool, list[Times]] = {False: [], True: []}
    for number in range(rounds):
        for trace_files in (number % 2 == 0, number % 2 == 1):
            command = [sys.executable, __file__, "--once", program, str(count), str(trace_files)]
            times[trace_files].append(Times(*json.loads(subprocess.check_output(command))))
    print(f"{program}: {count} files, {rounds} rounds")
    plain, traced = times[False], times[True]
    print(f"  {'without':<20} {statistics.median(each.block for each in plain) * 1000:9.1f} ms")
    for until, index in (("with", 0), ("until all is noted", 1)):
        median = statistics.median(each[index] for each in traced)
        ratio = statistics.median(its[index] / mine.block for its, mine in zip(traced, plain, strict=True))
        aim = f"   (aim: at most {AIM:g})" if index == 0 else ""
        print(f"  {until:<20} {median * 1000:9.1f} ms   {ratio:6.2f} x without{aim}")


def once(program: str, count: int, *, trace_files: bool) -> None:
    """Print the times of the program in this process."""
    with localrun.run(name="before", overwrite=True, trace_files=trace_files):
        pass  # what is imported for a first block
    begin = time.perf_counter()
    with localrun.run(name="run", overwrite=True, trace_files=trace_files) as run:
        PROGRAMS[program](count)
    block = time.perf_counter() - begin
    audit.settle()  # as the end of the program does
    noted = time.perf_counter() - begin
    assert len(run.upstream_artifacts + run.downstream_artifacts) == (count if trace_files else 0)
    print(json.dumps([block, noted]))


if __name__ == "__main__":
    main()
