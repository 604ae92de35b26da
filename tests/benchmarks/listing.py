"""What listing runs costs beside reading all their records: the newest 100, those of a status, and of ten times more.

    python tests/benchmarks/listing.py [RUNS] [ROUNDS]

The folders are made synthetically, of the record of a real run: one in a hundred FAILED, ten of them RUNNING, the
others COMPLETED. Most of the time goes into making them: ``TMPDIR=/dev/shm`` helps.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from rounds import fresh_home, interleaved

import localrun
from localrun.model import times

_DAY_S = 86_400.0


def make_runs(folder: Path, number: int, like: dict[str, Any]) -> None:
    """So many run folders with the record of a real run, one created a second after the other."""
    folder.mkdir(parents=True)
    text = json.dumps({**like, "name": "@name", "uid": "@uid", "created_at": "@created", "status": "@status"})
    start = times.seconds(like["created_at"]) - 30 * _DAY_S
    for index in range(number):
        status = "RUNNING" if index < 10 else "FAILED" if index % 100 == 50 else "COMPLETED"
        given = {"@name": f"run-{index:06d}", "@uid": f"{index:016x}", "@status": status}
        given["@created"] = times.iso(start + index)
        made = text
        for mark, value in given.items():
            made = made.replace(mark, value)
        run = f"{folder}/{given['@name']}"
        os.mkdir(run)
        Path(run, "config.json").write_text(made)


def read_all(folder: Path) -> int:
    """What there is to beat: every record read and understood."""
    return len([json.loads(Path(folder, name, "config.json").read_bytes()) for name in os.listdir(folder)
                if not name.startswith(".")])  # fmt: skip


def in_folder(folder: Path, **filters: Any) -> int:
    """`get_runs` of a runs folder; the number of runs found."""
    os.environ["LOCALRUN_RUNS_DIR"] = str(folder)
    return len(localrun.get_runs(**filters))


def main() -> None:
    """Measure all in the same rounds."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 9
    with fresh_home() as home:
        run = localrun.create_run(localrun.RunConfig(name="like", command="echo hello", parameters={"lr": 0.1})).wait()
        like = json.loads(Path(run.path, "config.json").read_bytes())
        few, many = home / "few", home / "many"
        make_runs(few, number, like)
        make_runs(many, 10 * number, like)
        for folder in (few, many):
            in_folder(folder)  # makes the index
        medians = interleaved(
            rounds,
            all_records=lambda: read_all(few),
            newest=lambda: in_folder(few),
            status=lambda: in_folder(few, statuses=["FAILED"], limit=100),
            none=lambda: in_folder(few, statuses=["STOPPED"]),
            many_newest=lambda: in_folder(many),
            many_status=lambda: in_folder(many, statuses=["FAILED"]),
            many_none=lambda: in_folder(many, statuses=["STOPPED"]),
        )
    print(f"get_runs of {number} runs and of {10 * number}, {rounds} rounds")
    for name, seconds in medians.items():
        print(f"  {name:<12} {seconds * 1000:9.2f} ms")
    aims = [
        ("newest 100 / all records", "newest", "all_records", 0.10),
        ("a status / all records", "status", "all_records", 0.06),
        ("newest of ten times more / newest", "many_newest", "newest", 2),
        ("a status of ten times more / a status", "many_status", "status", 2),
        ("no hit in ten times more / no hit", "many_none", "none", 2),
    ]
    for title, one, other, aim in aims:
        print(f"  {title:<40} {medians[one] / medians[other]:6.3f}   (aim: at most {aim:g})")


if __name__ == "__main__":
    main()
