"""What ``trace_files=True`` costs a program that opens many files, from its first line to the end of the block.

    python tests/benchmarks/trace_files.py [FILES] [ROUNDS]

Three programs: one that reads JSON documents and works with them, one that writes them, and one that does nothing but
read, which is the worst there can be.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from rounds import interleaved, report

from localrun.engine.tracing.files import audit
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

    def watched(program: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            folder = RunFolder(place / "run", "uid")
            os.mkdir(folder.path)
            watch = audit.start(folder, True)
            program()
            watch.stop()
            assert Path(folder.artifacts).read_bytes().count(b"sha256:") == count
            shutil.rmtree(folder.path)

        return run

    for program in (work, write, read):
        title = f"{count} files, {rounds} rounds: {program.__name__}"
        report(title, interleaved(rounds, alone=program, watched=watched(program)), "alone", 1.05)


if __name__ == "__main__":
    main()
