"""What 1 GB of output costs beside writing it to a file directly.

    python tests/benchmarks/log_capture.py [MEGABYTES] [ROUNDS]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from rounds import fresh_home, interleaved, report

import localrun


def main() -> None:
    """Measure a command's output to a file, and the same command as a run."""
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    command = f"head -c {megabytes}000000 /dev/zero"

    def direct() -> None:
        with tempfile.TemporaryDirectory() as folder, open(Path(folder) / "out", "wb") as out:
            subprocess.run(["bash", "-c", command], stdout=out, check=True)

    def as_run() -> None:
        run = localrun.create_run(localrun.RunConfig(name="output", command=command)).wait()
        size = (Path(run.path) / "logs/0/rank_0.out").stat().st_size
        assert run.status is localrun.RunStatus.COMPLETED
        assert size == megabytes * 1_000_000
        (Path(run.path) / "logs/0/rank_0.out").unlink()  # the floor's file is removed too
        run.delete()

    with fresh_home():
        medians = interleaved(rounds, direct=direct, localrun=as_run)
    report(f"{megabytes} MB of output, {rounds} rounds", medians, "direct", 1.1)


if __name__ == "__main__":
    main()
