"""What a queued command costs beside `xargs -P2 sh -c true`, submission included, two at a time.

    python tests/benchmarks/queue_throughput.py [COMMANDS] [ROUNDS]
"""

from __future__ import annotations

import subprocess
import sys

from rounds import fresh_home, interleaved, report

import localrun
from localrun.engine.dispatch.capacity import capacity


def xargs(commands: int) -> None:
    """The floor: two at a time, no queue and no record."""
    lines = "\n".join(map(str, range(commands))) + "\n"
    subprocess.run(["xargs", "-P2", "-n1", "sh", "-c", "true"], input=lines.encode(), check=True)


def queued(commands: int) -> None:
    """As many commands through the queue, each with its folder and record; all completed when it returns."""
    cpus = capacity().cpus / 2
    runs = [localrun.create_run(localrun.RunConfig(command="true", compute={"cpus": cpus})) for _ in range(commands)]
    for run in runs:
        run.wait()
    assert all(run.status is localrun.RunStatus.COMPLETED for run in runs)


def main() -> None:
    """Measure both in the same rounds."""
    commands = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    with fresh_home():
        medians = interleaved(rounds, xargs=lambda: xargs(commands), localrun=lambda: queued(commands))
    each = {name: seconds / commands for name, seconds in medians.items()}
    report(f"{commands} no-op commands, two at a time, per command, {rounds} rounds", each, "xargs", 8)


if __name__ == "__main__":
    main()
