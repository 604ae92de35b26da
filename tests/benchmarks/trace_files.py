"""What ``trace_files=True`` costs a program that opens many files, from its first line to the end of the block.

The files are looked at by another process, which may go on for a moment: that is told apart.

    python tests/benchmarks/trace_files.py [FILES] [ROUNDS]

Three programs: one that reads JSON documents and works with them, one that writes them, and one that does nothing but
read, which is the worst there can be.
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
from pathlib import Path

from rounds import interleaved, report

from localrun.engine.tracing.files import audit
from localrun.model import artifacts
from localrun.model.folder import RunFolder


def main() -> None:
    """Measure each program alone and watched, a fresh process's worth of state being alike in both."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 9
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

    folder = RunFolder(place / "run", "uid")
    waited: list[float] = []

    def watched(program: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            os.mkdir(folder.path)
            watch = audit.start(folder, True)
            program()
            watch.stop()

        return run

    def check() -> None:
        """All is noted, once who looks at the files has come to the end."""
        if os.path.exists(folder.path):
            start = time.perf_counter()
            artifacts.settle(folder)
            waited.append(time.perf_counter() - start)
            assert Path(folder.artifacts).read_bytes().count(b"sha256:") == count
            shutil.rmtree(folder.path)

    for program in (work, write, read):
        waited.clear()
        title = f"{count} files, {rounds} rounds: {program.__name__}"
        medians = interleaved(rounds, between=check, alone=program, watched=watched(program))
        report(title, medians, "alone", 1.05)
        print(f"  (all is noted {statistics.median(waited) * 1000:.0f} ms after the block)")


if __name__ == "__main__":
    main()
