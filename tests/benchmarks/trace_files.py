"""What ``trace_files=True`` costs a program that opens many files.

Another process looks at the files. The end of the block doesn't wait for it; the end of the program does, which is told
apart.

    python tests/benchmarks/trace_files.py [FILES] [ROUNDS]

Four programs: one that reads compressed samples and unpacks them, as what feeds a training does; one that reads JSON
documents and works with them; one that writes them; and one that does nothing but read files that are in memory, which
is the worst there can be. Each is measured in a process of its own, alone and then watched or the other way round: an
audit hook stays for as long as its process.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from localrun.engine.tracing.files import audit
from localrun.model.folder import RunFolder

AIM = 1.05

Program: TypeAlias = Callable[[], None]
Times: TypeAlias = tuple[float, float]  # seconds until the end of the block, and until all is noted


def main() -> None:
    """Measure each program alone and watched."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 15
    place = Path(tempfile.mkdtemp(prefix="localrun-benchmark-"))
    os.environ["LOCALRUN_HOME"] = str(place / "home")
    try:
        for program in programs(place, count):
            program()  # once, to warm up caches
            measure(program, place, count, rounds)
    finally:
        shutil.rmtree(place)


def programs(place: Path, count: int) -> list[Program]:
    """The programs, whose working folder this becomes, and the files that they read."""
    text = json.dumps([{"id": number, "text": "word " * 8, "score": number / 2} for number in range(40)])
    paths = [str(place / "data" / str(number % 100) / f"{number}.json") for number in range(count)]
    for path in paths:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Path(path).write_text(text)
    made, samples = place / "made", place / "samples"
    made.mkdir()
    samples.mkdir()
    sample = zlib.compress(random.Random(0).randbytes(16 << 10) * 4)
    for number in range(count):
        Path(samples / f"{number}.z").write_bytes(sample)
    os.chdir(place)

    def load() -> None:
        for number in range(count):
            with open(f"samples/{number}.z", "rb") as file:
                zlib.crc32(zlib.decompress(file.read()))

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

    return [load, work, write, read]


def measure(program: Program, place: Path, count: int, rounds: int) -> None:
    """Print what it takes alone and watched, and the ratio: the median of the rounds'."""
    alone, watched = [], []
    for number in range(rounds):
        for is_watched in (number % 2 == 0, number % 2 == 1):
            times = in_a_process(program, RunFolder(place / "run", "uid"), count if is_watched else None)
            (watched if is_watched else alone).append(times)
    print(f"{program.__name__}: {count} files, {rounds} rounds")
    print(f"  {'alone':<20} {statistics.median(block for block, _ in alone) * 1000:9.1f} ms")
    for index, until in enumerate(("watched", "until all is noted")):
        taken = statistics.median(each[index] for each in watched)
        ratio = statistics.median(its[index] / mine[0] for its, mine in zip(watched, alone, strict=True))
        aim = f"   (aim: at most {AIM:g})" if index == 0 else ""
        print(f"  {until:<20} {taken * 1000:9.1f} ms   {ratio:6.2f} x alone{aim}")


def in_a_process(program: Program, folder: RunFolder, count: int | None) -> Times:
    """The times of the program in a fork of this process, watched if ``count`` files are to be seen."""
    mine, its = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(its, json.dumps(in_this_process(program, folder, count)).encode())
        except BaseException:
            traceback.print_exc()
        os._exit(0)
    os.close(its)
    with open(mine, "rb") as line:
        said = line.read()
    os.waitpid(pid, 0)
    block, all_noted = json.loads(said)
    return block, all_noted


def in_this_process(program: Program, folder: RunFolder, count: int | None) -> Times:
    """The times of the program here."""
    os.mkdir(folder.path)
    start = time.perf_counter()
    watch = None if count is None else audit.start(folder, True)
    program()
    if watch is not None:
        watch.stop()
    block = time.perf_counter() - start
    audit.settle()  # as the end of the program does
    all_noted = time.perf_counter() - start
    if watch is not None:
        assert Path(folder.artifacts).read_bytes().count(b"sha256:") == count
    shutil.rmtree(folder.path)
    return block, all_noted


if __name__ == "__main__":
    main()
