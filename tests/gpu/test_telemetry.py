"""What a run used: sampled from its real processes, and from the driver for its GPUs."""

from __future__ import annotations

import json
import select
import sys
import time
from pathlib import Path

import pytest
from fakenvml import GIB, FakeNvml
from support import Home, run_python, submit, wait_until

import localrun
from localrun.api.telemetry import summary
from localrun.engine.supervision.telemetry import Telemetry

BUSY = f"{sys.executable} -c 'x = bytearray(100_000_000)\nwhile True: pass' & wait"


def described(name: str) -> str:
    code = "import sys; from localrun.cli.main import main; sys.argv[1:] = ['describe', 'run', sys.argv[1]]; main()"
    return str(run_python(code, name, ok=False).stdout)


def test_cpu_and_memory_of_the_whole_tree(home: Home) -> None:
    run = submit("run", BUSY)
    wait_until(lambda: len(run.telemetry()) >= 2)
    run.stop(timeout=30)
    rows = run.telemetry()
    assert {frozenset(row) for row in rows} == {frozenset({"time", "cpu_percent", "rss", "gpus"})}
    assert [row["time"] for row in rows] == sorted(row["time"] for row in rows)
    assert max(row["cpu_percent"] for row in rows) > 5
    assert max(row["cpu_percent"] for row in rows) < 150
    assert 100e6 < max(row["rss"] for row in rows) < 500e6
    assert all(row["gpus"] == [] for row in rows)
    text = described("run")
    assert "used CPU" in text
    assert "used memory" in text
    assert "hint" not in text


def test_an_attempt_has_rows_of_its_own(home: Home) -> None:
    run = submit("run", "sleep 1.5; [ $RESUMPTION_INDEX = 1 ]", max_retries=1).wait(60)
    assert run.resumption_count == 1
    assert run.telemetry(0)
    assert run.telemetry(1)
    assert Path(run.path, "telemetry", "0.jsonl").exists()
    assert run.telemetry(0)[-1]["time"] <= run.telemetry(1)[0]["time"]


def test_a_short_run_has_none(home: Home) -> None:
    run = submit("run", "true").wait(30)
    assert run.telemetry() == []
    assert summary(run.telemetry()) is None
    assert not Path(run.path, "telemetry").exists()
    assert "used" not in described("run")


def test_gpus_of_the_run_alone(home: Home, nvml: FakeNvml) -> None:
    gpus = [nvml.add_gpu(utilization=10 * i, used=i * GIB) for i in range(4)]
    run = submit("run", "sleep 1000", gpus=2)
    wait_until(lambda: any(row["gpus"] for row in run.telemetry()))
    row = next(row for row in run.telemetry() if row["gpus"])
    assert [gpu["uuid"] for gpu in row["gpus"]] == gpus[:2]
    assert [gpu["utilization"] for gpu in row["gpus"]] == [0, 10]
    assert [gpu["memory_used"] for gpu in row["gpus"]] == [0, GIB]
    text = described("run")
    assert "it asked for 2 GPUs and was never seen to use more than 1" in text
    assert "10% and 1 GiB at most" in text
    assert gpus[0] in text
    run.stop(timeout=30)


def test_a_row_gets_the_answer_that_comes_late(home: Home, nvml: FakeNvml, tmp_path: Path) -> None:
    """It takes longer than until the next row is due: no row is lost, and they stay in order."""
    gpu = nvml.add_gpu()
    nvml.set_delay(2.5, function="nvmlInit")
    path = tmp_path / "telemetry" / "0.jsonl"
    telemetry = Telemetry(str(path), [gpu], list)

    def rows() -> list[dict[str, object]]:
        poll = select.poll()
        if telemetry.fd >= 0:
            poll.register(telemetry.fd, select.POLLIN)
        poll.poll(telemetry.due(time.monotonic()) * 1000)
        telemetry.sample()
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    found = wait_until(lambda: [row for row in [rows()] if row and row[-1]["gpus"]])[0]
    telemetry.close()
    assert [row["gpus"] for row in found] == [[]] * (len(found) - 1) + [
        [{"uuid": gpu, "utilization": 0, "memory_used": 0}]
    ]
    assert len(found) >= 2
    assert [row["time"] for row in found] == sorted(str(row["time"]) for row in found)


def test_who_asks_the_driver_is_no_part_of_the_run(home: Home, nvml: FakeNvml) -> None:
    nvml.add_gpu()
    run = submit("run", "until [ -e over ]; do sleep 0.1; done", gpus=1, cwd=str(home.place))
    wait_until(lambda: home.status("run") == "RUNNING")
    nvml.set_delay(1000)
    wait_until(lambda: len(run.telemetry()) >= 2)
    (home.place / "over").touch()
    run.wait(30)
    assert max(row["rss"] for row in run.telemetry()) < 15e6, "that is Python's"
    assert run.reason == "Completed"
    nvml.set_delay(0)


def row(*gpus: tuple[int | None, int]) -> dict[str, object]:
    seen = [{"uuid": f"GPU-{i}", "utilization": busy, "memory_used": used} for i, (busy, used) in enumerate(gpus)]
    return {"time": None, "cpu_percent": 1.0, "rss": 1, "gpus": seen}


@pytest.mark.parametrize(
    ("rows", "used"),
    [
        ([row()], None),
        ([row((0, 0), (10, 0))], 1),
        ([row((0, 600 << 20), (0, 2 << 30))], 1),  # what the driver keeps itself, and a process that does nothing
        ([row((None, 1 << 20), (None, 0))], 1),  # instances
        ([row((0, 0), (0, 0)), row(), row(), row()], None),  # one look, early
        ([row((0, 0)), row((0, 0)), row((0, 0)), *[row()] * 10], 0),
        ([row(), row(), row((0, 0)), row()], 0),
        ([row((0, 0), (0, 0)), row((5, 0), (0, 0)), row((0, 0), (7, 0))], 2),
    ],
)
def test_how_many_gpus_were_used(rows: list[dict[str, object]], used: int | None) -> None:
    found = summary(rows)
    assert found is not None and found.gpus_used == used


def test_a_driver_that_hangs_costs_rows_their_gpus_and_nothing_else(home: Home, nvml: FakeNvml) -> None:
    nvml.add_gpu()
    run = submit("run", "sleep 1.5; nap; exit 7".replace("nap", "sleep 0.5"), gpus=1)
    wait_until(lambda: home.status("run") == "RUNNING")
    nvml.set_delay(1000)
    run.wait(20)
    assert run.exit_code == 7
    assert [row["gpus"] for row in run.telemetry()] == [[]] * len(run.telemetry())
    nvml.set_delay(0)


def test_rows_that_a_full_disk_cut_short_are_passed_over(home: Home) -> None:
    run = submit("run", "sleep 1.5").wait(30)
    path = Path(run.path, "telemetry", "0.jsonl")
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"time": "2026-')
    assert len(localrun.get_run("run").telemetry()) == whole.count(b"\n")
