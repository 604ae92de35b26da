"""What looking at a run costs: the CPU time of its supervisor beside the time the run takes, in percent of a core.

    python tests/benchmarks/telemetry.py [SECONDS]

The limit is 0.5%.
"""

from __future__ import annotations

import os
import sys

from rounds import fresh_home

import localrun
from localrun.engine.processes import usage


def main(seconds: float = 60.0) -> None:
    """Let a run with a small tree of processes sleep, and look at its supervisor before the end."""
    with fresh_home():
        command = f"for i in 1 2 3 4; do sleep {seconds} & done; wait"
        run = localrun.create_run(localrun.RunConfig(name="run", command=command))
        run = localrun.wait_for_run_status(run, "RUNNING")
        supervisor = run._record["supervisor"]["pid"]
        begun, _ = usage(supervisor)
        try:
            run.wait(seconds - 1)
        except TimeoutError:
            pass
        used, _ = usage(supervisor)
        rows = len(run.telemetry())
        print(f"supervisor: {100 * (used - begun) / seconds:.3f}% of a core over {seconds:g} s, {rows} rows, ", end="")
        print(f"{sum(name.isdigit() for name in os.listdir('/proc'))} processes on the machine")
        run.stop()


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
