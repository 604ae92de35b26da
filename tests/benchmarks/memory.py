"""Memory: supervisor and worker of a no-op function beside a plain interpreter with cloudpickle; the idle dispatcher.

    python tests/benchmarks/memory.py [ROUNDS]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from rounds import fresh_home

import localrun
from localrun.engine.queue import Queue


def pss(pid: int) -> float:
    """A process's proportional share of memory, in MiB."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss:")) / 1024


def switches(pid: int) -> int:
    """How often a process has been woken so far."""
    with open(f"/proc/{pid}/status") as file:
        return sum(int(line.split()[1]) for line in file if "ctxt_switches" in line)


@localrun.function
def linger(seconds: float) -> None:
    """A no-op that stays to be measured."""
    import time

    time.sleep(seconds)


def plain() -> float:
    """The floor: an interpreter that has imported cloudpickle."""
    code = "import cloudpickle, sys; print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        return pss(process.pid)


def supervised() -> float:
    """A run's supervisor and worker, while the function is at work."""
    run = localrun.wait_for_run_status(linger.run(1.0), "RUNNING")
    time.sleep(0.5)
    record = run.refresh()._record
    used = pss(record["supervisor"]["pid"]) + pss(record["ranks"][0]["pid"])
    run.stop()
    return used


def main() -> None:
    """Measure in alternation."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with fresh_home() as home:
        pairs = [(plain(), supervised()) for _ in range(rounds)]
        floor, run = (statistics.median(values) for values in zip(*pairs, strict=True))
        dispatcher = Queue(home).dispatcher_pid()
        assert dispatcher is not None
        time.sleep(1)
        before = switches(dispatcher)
        time.sleep(10)
        woken = switches(dispatcher) - before
        print(f"memory (PSS), {rounds} rounds")
        print(f"  plain interpreter + cloudpickle {floor:8.2f} MiB")
        print(f"  supervisor + worker             {run:8.2f} MiB   {run / floor:.2f} x plain   (aim: at most 1.5)")
        print(f"  idle dispatcher                 {pss(dispatcher):8.2f} MiB   (aim: at most 15)")
        print(f"  wake-ups of the idle dispatcher in 10 s: {woken}")


if __name__ == "__main__":
    main()
