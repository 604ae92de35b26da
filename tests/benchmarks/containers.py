"""What a container's run costs beside a bare ``docker run`` of its image: until its command is at work, and in all.

    python tests/benchmarks/containers.py [ROUNDS]

It starts a docker engine of its own and takes root, as the containers' tests do.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path += [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent.parent / "containers")]

from docker import SHELL, Engine, missing, now, shell_files, soon
from rounds import fresh_home, report

import localrun

# The machine's clock in hundredths of seconds, as the command's first word.
COMMAND = "cat /proc/uptime"


def bare() -> str:
    """What the engine's command line prints, without anything of ours."""
    argv = ["docker", "run", "--rm", "--network=host", SHELL, "sh", "-c", COMMAND]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def as_run() -> str:
    """The same as a run."""
    run = localrun.create_run(localrun.RunConfig(name="run", command=COMMAND, image=SHELL)).wait()
    assert run.status is localrun.RunStatus.COMPLETED, run.message
    return run.stdout()


def measured(
    rounds: int, between: Callable[[], None], **candidates: Callable[[], str]
) -> tuple[dict[str, float], dict[str, float]]:
    """The median seconds until each candidate's command is at work, and until it is over; in interleaved rounds.

    ``between`` isn't measured.
    """
    started: dict[str, list[float]] = {name: [] for name in candidates}
    ended: dict[str, list[float]] = {name: [] for name in candidates}
    for round_ in range(-1, rounds):  # the first only warms up
        for name, work in candidates.items():
            begin = now()
            printed = work()
            over = now()
            if round_ >= 0:
                started[name].append(float(printed.split()[0]) - begin)
                ended[name].append(over - begin)
            between()
    return _medians(started), _medians(ended)


def _medians(taken: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(times) for name, times in taken.items()}


def main() -> None:
    """Measure both in an engine of our own."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    why = missing()
    if why is not None:
        sys.exit(why)
    folder = Path(tempfile.mkdtemp(prefix="localrun-docker-"))
    engine = Engine(folder)
    try:
        engine.start()
        engine.make(SHELL, shell_files())
        os.environ["DOCKER_HOST"] = engine.host
        os.chdir(folder)
        with fresh_home():
            started, ended = measured(rounds, lambda: soon(engine), docker=bare, localrun=as_run)
        report(f"until a container's command is at work, {rounds} rounds", started, "docker", 1.2)
        report("until it is over and known to be", ended, "docker")
    finally:
        engine.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
