"""What a run used: sampled from its real processes, and from the driver for its GPUs."""

from __future__ import annotations

import sys
from pathlib import Path

from fakenvml import GIB, FakeNvml
from support import Home, run_python, submit, wait_until

import localrun
from localrun.api.telemetry import summary

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
