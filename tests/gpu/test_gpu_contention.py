"""Many runs and several queues on one machine: no GPU is ever in two runs, none idles, nobody starves."""

from __future__ import annotations

import itertools
import random
import textwrap
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fakenvml import FakeNvml
from support import Home, kill, start_python, wait_until

from localrun.errors import LocalrunError
from localrun.model import record as records
from localrun.model.folder import RunFolder

SUBMITTER = textwrap.dedent("""
    import random, sys
    from localrun import RunConfig, create_run
    number, count, seed, place = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    # Whatever the records say: no two processes that live have the same GPU.
    alone = f"for gpu in ${{CUDA_VISIBLE_DEVICES//,/ }}; do exec {{fd}}>{place}/$gpu; flock -n $fd || exit 9; done; "
    choice = random.Random(seed)
    for i in range(count):
        gpus = choice.choice([1, 1, 2, 4])
        command = f"{alone} sleep {choice.random() * 0.2:.3f}"
        create_run(RunConfig(name=f"run-{number}-{i}", command=command, compute={"gpus": gpus}))
""")


class Held(NamedTuple):
    """A time in which a run had a GPU: from entering STARTING to leaving TERMINATING."""

    begin: float
    end: float
    run: str


def held(record: dict[str, Any]) -> Iterator[Held]:
    begin = None
    for phase in record["lifecycle"]:
        at = datetime.fromisoformat(phase["started_at"]).timestamp()
        if phase["status"] == "STARTING":
            begin = at
        elif begin is not None and phase["status"] in ("QUEUED", "COMPLETED", "STOPPED", "FAILED"):
            yield Held(begin, at, record["uid"])
            begin = None


def check_no_overlap(all_records: Iterable[dict[str, Any]]) -> None:
    by_gpu: dict[str, list[Held]] = {}
    for record in all_records:
        assert len(record["gpus"]) == record["request"]["gpus"]
        for gpu in record["gpus"]:
            by_gpu.setdefault(gpu["uuid"], []).extend(held(record))
    for uuid, times in by_gpu.items():
        times.sort()
        for one, other in itertools.pairwise(times):
            assert one.end <= other.begin, (uuid, one, other)


def readable(runs: Path) -> list[dict[str, Any]]:
    found = []
    for path in runs.iterdir() if runs.exists() else []:
        try:
            found.append(records.read(RunFolder(path)))
        except LocalrunError:
            continue
    return found


def all_over(runs: Path, count: int) -> bool:
    there = readable(runs)
    return len(there) == count and all(records.status(record).is_terminal() for record in there)


def test_many_short_runs_from_four_processes(home: Home, eight: list[str], thorough: bool) -> None:
    count = 50 if thorough else 20
    submitters = [start_python(SUBMITTER, str(i), str(count), str(i), str(home.place)) for i in range(4)]
    for submitter in submitters:
        _, err = submitter.communicate(timeout=120)
        assert submitter.returncode == 0, err
    wait_until(lambda: all_over(home.runs, 4 * count), 240)
    there = sorted(readable(home.runs), key=lambda record: str(record["created_at"]))
    assert {record["status"] for record in there} == {"COMPLETED"}
    check_no_overlap(there)
    check_nobody_overtakes(there)
    check_no_gpu_idles(there)


def check_nobody_overtakes(there: list[dict[str, Any]]) -> None:
    """All GPUs are equal, so those behind can only start with what those ahead don't need: not before them."""
    for place, record in enumerate(there):
        created = datetime.fromisoformat(record["created_at"]).timestamp()
        for behind in there[place + 1 :]:
            if datetime.fromisoformat(behind["created_at"]).timestamp() - created > 1:
                assert record["start_time"] <= behind["start_time"], (record["name"], behind["name"])


def check_no_gpu_idles(there: list[dict[str, Any]]) -> None:
    """While a run is first in the queue, what it needs is not free for longer than it takes to see that."""
    times = [time for record in there for time in held(record)]
    sizes = {record["uid"]: len(record["gpus"]) for record in there}
    previous = 0.0
    for record in sorted(there, key=lambda record: str(record["start_time"])):
        created = datetime.fromisoformat(record["created_at"]).timestamp()
        start = datetime.fromisoformat(record["start_time"]).timestamp()
        first_since = max(created, previous)  # all ahead of it have started by then
        previous = max(previous, start)
        others = [time for time in times if time.run != record["uid"]]
        changes = sorted({first_since, start, *(t.end for t in others), *(t.begin for t in others)})
        idle = 0.0
        for begin, end in itertools.pairwise(changes):
            if first_since <= begin and end <= start:
                used = sum(sizes[time.run] for time in others if time.begin <= begin < time.end)
                idle += (end - begin) if 8 - used >= len(record["gpus"]) else 0.0
        assert idle < 5, (record["name"], idle)


@pytest.mark.parametrize("kills", [False, True], ids=["undisturbed", "with kill -9"])
def test_two_queues_share_a_machine(
    home: Home, eight: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kills: bool
) -> None:
    """As two users have them."""
    other = Home(tmp_path / "other", tmp_path)
    count, choice = 15, random.Random(1)
    submitters = []
    for which in (home, other):
        monkeypatch.setenv("LOCALRUN_HOME", str(which.path))
        submitters += [start_python(SUBMITTER, str(i), str(count), str(i + 7), str(home.place)) for i in range(2)]
    for submitter in submitters:
        _, err = submitter.communicate(timeout=120)
        assert submitter.returncode == 0, err
        if kills:
            victim = choice.choice([home, other])
            kill(victim.dispatcher())
            active = [record for record in readable(victim.runs) if record["supervisor"]]
            if active:
                kill(choice.choice(active)["supervisor"]["pid"])
    try:
        for which in (home, other):
            monkeypatch.setenv("LOCALRUN_HOME", str(which.path))
            start_python("import localrun; localrun.get_runs(limit=1)").communicate(timeout=60)
            wait_until(lambda which=which: all_over(which.runs, 2 * count), 240)
        there = [*readable(home.runs), *readable(other.runs)]
        assert 9 not in {record["exit_code"] for record in there}
        if not kills:  # nobody was there to note when the processes of a lost supervisor were gone
            check_no_overlap(there)
            assert {record["status"] for record in there} == {"COMPLETED"}
    finally:
        other.end()


def test_random_runs_that_are_stopped_and_killed(home: Home, nvml: FakeNvml) -> None:
    """A hundred random runs in all sizes, many of them ended from outside: their GPU sets never overlap in time."""
    from support import submit

    from localrun import stop_run

    nvml.add_gpus(8)
    choice = random.Random(5)
    for i in range(100):
        submit(f"run-{i}", f"sleep {choice.random() * 0.3:.3f}", gpus=choice.randint(1, 4), stop_grace=0.2)
        if choice.random() < 0.1:
            stop_run(f"run-{choice.randint(0, i)}", timeout=0)
        elif choice.random() < 0.05:
            active = [record for record in readable(home.runs) if record["supervisor"]]
            if active:
                kill(choice.choice(active)["supervisor"]["pid"])
    wait_until(lambda: all_over(home.runs, 100), 240)
    check_no_overlap(record for record in readable(home.runs) if record["gpus"])
