"""``localrun gpus``, and what ``localrun doctor`` finds of GPUs: the driver, the leases, and who else uses them."""

from __future__ import annotations

import json
import os
import pwd
import re
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import commandline
import pytest
from commandline import Terminal, ok, refused
from fakenvml import GIB, GPU_IS_LOST, H100, NO_PERMISSION, FakeNvml
from support import Home, wait_until

from localrun.api.machine.gpus import GpuState, gpus
from localrun.engine.gpus.leases import Lease
from localrun.engine.gpus.probe import may_have_gpus
from localrun.errors import SystemFailureError

FIELDS = [
    "index", "uuid", "name", "memory_total", "memory_used", "utilization", "temperature", "state", "reason", "run",
    "owner", "since", "processes",
]  # fmt: skip


@pytest.fixture
def nvml(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    """A machine with a driver and, yet, no GPU, and a lease folder of this test's own."""
    fake = FakeNvml(tmp_path)
    for name, value in fake.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LOCALRUN_LEASE_DIR", str(tmp_path / "leases"))
    return fake


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process of somebody who doesn't use localrun."""
    child = subprocess.Popen(["sleep", "600"])
    yield child
    child.kill()
    child.wait()


def listed(**environment: str) -> list[dict[str, Any]]:
    found = json.loads(ok("gpus", "-o", "json", COLUMNS="20", **environment).out)
    assert isinstance(found, list)
    return found


def lease(uuid: str, run: str = "lr-01") -> Lease:
    found = Lease.try_acquire(uuid, run=run, uid="uid")
    assert found is not None
    return found


def check() -> tuple[int, str, str]:
    """The exit code of ``doctor``, and the status and the message of what it finds of GPUs."""
    ended = commandline.run("doctor", "-o", "json")
    (found,) = [each for each in json.loads(ended.out) if each["check"] == "gpus"]
    return ended.code, found["status"], found["message"]


# -- a list for programs ----------------------------------------------------------------------------------------------


def test_each_gpu_as_it_is(nvml: FakeNvml, process: subprocess.Popen[bytes]) -> None:
    free, leased, busy, lost = nvml.add_gpus(4, used=3 * GIB, utilization=17, temperature=61)
    nvml.set_process(busy, process.pid, 2 * GIB)
    nvml.set_error(GPU_IS_LOST, lost, "nvmlDeviceGetMemoryInfo")
    before = datetime.now(UTC)
    held = lease(leased)
    found = listed()
    assert [list(gpu) for gpu in found] == [FIELDS] * 4
    assert [(gpu["index"], gpu["uuid"], gpu["state"]) for gpu in found] == [
        (0, free, "free"), (1, leased, "leased"), (2, busy, "busy"), (3, lost, "unavailable"),
    ]  # fmt: skip
    user = pwd.getpwuid(os.getuid()).pw_name
    assert found[0] == dict.fromkeys(FIELDS) | {
        "index": 0, "uuid": free, "name": H100, "memory_total": 80 * GIB, "memory_used": 3 * GIB, "utilization": 17,
        "temperature": 61, "state": "free", "processes": [],
    }  # fmt: skip
    assert (found[1]["run"], found[1]["owner"], found[1]["processes"]) == ("lr-01", user, [])
    assert before <= datetime.fromisoformat(found[1]["since"]) <= datetime.now(UTC)
    seen = {"pid": process.pid, "user": user, "command": "sleep 600", "memory": 2 * GIB}
    assert found[2]["processes"] == [seen]
    assert found[2]["reason"] == f"pid {process.pid} of user {user} (sleep 600) holds 2 GiB"
    assert found[3]["reason"] == "GPU is lost (NVML 15)"
    assert (found[3]["memory_total"], found[3]["processes"], found[3]["run"]) == (None, [], None)
    held.release()
    nvml.set_process(busy, process.pid, None)
    nvml.set_error(0, lost, "nvmlDeviceGetMemoryInfo")
    assert [gpu["state"] for gpu in listed()] == ["free"] * 4


def test_a_gpu_that_is_lost_while_it_is_leased(nvml: FakeNvml) -> None:
    uuid = nvml.add_gpu()
    held = lease(uuid)
    nvml.set_error(GPU_IS_LOST, uuid, "nvmlDeviceGetMemoryInfo")
    (gpu,) = listed()
    assert (gpu["state"], gpu["run"], gpu["reason"]) == ("unavailable", "lr-01", "GPU is lost (NVML 15)")
    held.release()


def test_a_process_of_unknown_memory_keeps_a_gpu_busy_and_one_without_memory_does_not(nvml: FakeNvml) -> None:
    one, other = nvml.add_gpus(2)
    nvml.set_process(one, os.getpid(), "unknown")
    nvml.set_process(other, os.getpid(), 0)
    found = listed()
    assert [gpu["state"] for gpu in found] == ["busy", "free"]
    assert found[0]["processes"][0]["memory"] is None
    assert found[0]["reason"].endswith("holds an unknown amount")


def test_instances(nvml: FakeNvml) -> None:
    nvml.add_gpu()
    divided = nvml.add_gpu(mig=True)
    instances = [nvml.add_mig(divided, number) for number in (0, 1)]
    held = lease(instances[1])
    found = listed()
    assert [(gpu["index"], gpu["state"]) for gpu in found] == [(0, "free"), ("1:0", "free"), ("1:1", "leased")]
    assert [gpu["uuid"] for gpu in found[1:]] == instances
    held.release()


def test_a_lease_file_that_can_not_be_trusted_takes_its_gpu_out(nvml: FakeNvml, tmp_path: Path) -> None:
    bad, good = nvml.add_gpus(2)
    lease(good).release()
    (tmp_path / "leases" / f"{bad}.lock").symlink_to("/etc/passwd")
    found = listed()
    assert [gpu["state"] for gpu in found] == ["unavailable", "free"]
    assert found[0]["reason"].endswith(f"{bad}.lock: it is a link")


def test_a_lease_folder_that_can_not_be_used_takes_all_out(nvml: FakeNvml, tmp_path: Path) -> None:
    nvml.add_gpus(2)
    (tmp_path / "leases").write_text("")
    found = listed()
    assert [gpu["state"] for gpu in found] == ["unavailable"] * 2
    assert "Not a directory" in found[0]["reason"]
    code, status, message = check()
    assert (code, status) == (1, "fail")
    assert "LOCALRUN_LEASE_DIR" in message


def test_only_those_that_are_managed(nvml: FakeNvml) -> None:
    uuids = nvml.add_gpus(3)
    assert [gpu["uuid"] for gpu in listed(LOCALRUN_GPUS=f"2,{uuids[0]}")] == [uuids[0], uuids[2]]
    assert listed(LOCALRUN_GPUS="") == []
    ended = ok("gpus", "-o", "json", LOCALRUN_GPUS="1,9")
    assert len(json.loads(ended.out)) == 1
    assert ended.said == "no such GPU here: 9 (LOCALRUN_GPUS)\n"
    assert "'all'" in refused("gpus", LOCALRUN_GPUS="all")


# -- a table for people -----------------------------------------------------------------------------------------------


def test_the_table(nvml: FakeNvml, process: subprocess.Popen[bytes]) -> None:
    _, leased, busy = nvml.add_gpus(3, used=3 * GIB, utilization=17, temperature=61)
    nvml.set_process(busy, process.pid, 2 * GIB)
    held = lease(leased)
    ended = ok("gpus")
    titles, *rows = ended.text.splitlines()
    assert titles.split()[:6] == ["GPU", "NAME", "MEMORY", "UTIL", "TEMP", "STATE"]
    assert rows[0] == "0    H100 80GB HBM3  3 / 80 GiB  17%   61°C  free"
    assert re.fullmatch(r"1    H100 .*  leased  lr-01 \(\w+, \d+s\)", rows[1])
    assert rows[2].endswith(f"({' '.join(process.args)}) holds 2 GiB")  # type: ignore[arg-type]
    assert ended.said == ""
    held.release()


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_the_table_fits_a_terminal(nvml: FakeNvml, process: subprocess.Popen[bytes], columns: int) -> None:
    nvml.set_process(nvml.add_gpus(8)[3], process.pid)
    with Terminal("gpus", columns=columns) as terminal:
        assert terminal.end() == 0
        lines = re.sub("\x1b[^m]*m|\r", "", terminal.seen).splitlines()
    assert len(lines) == 9
    assert max(map(len, lines)) <= columns
    assert [line[:4].strip() for line in lines[1:]] == list("01234567")
    assert f"pid {process.pid}"[: 5 if columns < 80 else None] in lines[4]


def test_a_command_can_not_act_on_the_terminal(nvml: FakeNvml, tmp_path: Path) -> None:
    child = subprocess.Popen(["sleep", "600"])
    nvml.set_process(nvml.add_gpu(), child.pid)
    evil = subprocess.Popen(["bash", "-c", "exec -a $'\\e[2J\\nevil' sleep 600"])
    nvml.set_process(nvml.add_gpu(), evil.pid)
    try:
        wait_until(lambda: "evil" in Path(f"/proc/{evil.pid}/cmdline").read_text())
        text = ok("gpus").text
    finally:
        for each in (child, evil):
            each.kill()
            each.wait()
    assert "\x1b" not in text
    assert len(text.splitlines()) == 3


# -- no GPUs ----------------------------------------------------------------------------------------------------------


def test_no_driver_is_said_once_and_is_no_error(nvml: FakeNvml, tmp_path: Path) -> None:
    nvml.set_driver(False)
    ended = ok("gpus")
    assert (ended.text, ended.said) == ("", "no NVIDIA driver: no GPUs\n")
    assert listed() == []
    assert check() == (0, "ok", "no NVIDIA driver: no GPUs")
    assert not (tmp_path / "leases").exists()


def test_no_library_is_no_error(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    if may_have_gpus():
        pytest.skip("this machine has an NVIDIA driver")
    assert ok("gpus").said == "no NVIDIA driver: no GPUs\n"
    assert gpus() == []


def test_a_driver_without_gpus(nvml: FakeNvml) -> None:
    assert ok("gpus").said == "no GPUs\n"
    assert check() == (0, "ok", "no GPUs")


# -- a driver that fails ----------------------------------------------------------------------------------------------


def test_a_driver_that_gives_no_permission(nvml: FakeNvml) -> None:
    nvml.add_gpu()
    nvml.set_error(NO_PERMISSION, function="nvmlInit")
    assert "NVML 4" in refused("gpus", code=1)
    code, status, message = check()
    assert (code, status) == (1, "fail")
    assert "the NVIDIA driver refuses to answer" in message
    with pytest.raises(SystemFailureError, match="NVML 4"):
        gpus()


def test_a_driver_that_hangs(nvml: FakeNvml) -> None:
    nvml.add_gpu()
    nvml.set_delay(60, function="nvmlInit")
    start = time.monotonic()
    assert "did not answer within 10 s" in refused("gpus", code=1)
    assert time.monotonic() - start < 20
    start = time.monotonic()
    with pytest.raises(SystemFailureError, match=r"did not answer within 0\.1 s"):
        gpus(timeout=0.1)
    assert time.monotonic() - start < 5


def test_a_driver_that_hangs_delays_no_run(nvml: FakeNvml) -> None:
    nvml.add_gpu()
    nvml.set_delay(60)
    asking = commandline.start("gpus")
    start = time.monotonic()
    ok("run", "--name", "it", "--follow", "--", "echo hello")
    assert time.monotonic() - start < 9
    assert asking.poll() is None
    assert commandline.finish(asking).code == 1


# -- asked for --------------------------------------------------------------------------------------------------------


def test_flags_ask_for_gpus_and_processes(nvml: FakeNvml, home: Home) -> None:
    nvml.add_gpus(2)
    flags = ["--gpus", 2, "--gpu-type", "h100", "--gpu-memory", "40GiB", "--nproc-per-node", "gpu"]
    ok("run", "--name", "it", *flags, "--", "true")
    ok("wait", "it")
    request = home.record("it")["request"]
    assert (request["gpus"], request["gpu_type"], request["gpu_memory"]) == (2, "h100", 40 * GIB)
    assert request["nproc_per_node"] == 2
    assert len(list((home.runs / "it" / "logs" / "0").glob("rank_*.out"))) == 2


def test_flags_say_how_gpus_are_given(nvml: FakeNvml, home: Home, process: subprocess.Popen[bytes]) -> None:
    nvml.set_process(nvml.add_gpu(), process.pid)
    flags = ["--gpus", 1, "--gpu-binding", "rank", "--gpu-visibility", "index", "--allow-shared-gpus"]
    assert ok("run", "--name", "it", "--follow", *flags, "--", "echo $CUDA_VISIBLE_DEVICES").text == "0\n"
    request = home.record("it")["request"]
    assert (request["gpu_binding"], request["gpu_visibility"], request["allow_shared_gpus"]) == ("rank", "index", True)
    assert "compute.gpu_binding" in refused("run", "--gpus", 1, "--gpu-binding", "none", "--", "true")


def test_util_counts_gpus(nvml: FakeNvml, home: Home, process: subprocess.Popen[bytes]) -> None:
    nvml.set_process(nvml.add_gpus(3)[2], process.pid)
    ok("run", "--name", "it", "--gpus", 1, "--", "sleep 1000")
    wait_until(lambda: home.status("it") == "RUNNING")
    assert ["GPUs", "3", "2", "1"] in [line.split() for line in ok("util").text.splitlines()]
    known = json.loads(ok("util", "-o", "json").text)
    assert known["gpus"] == {"total": 3, "used": 2, "free": 1}
    assert [run["gpus"] for run in known["active"]] == [1]
    ok("stop", "run", "it")


def test_describe_says_which_gpus_are_needed(nvml: FakeNvml, home: Home) -> None:
    nvml.add_gpu()
    ok("run", "--name", "it", "--gpus", 1, "--gpu-type", "h 100", "--gpu-memory", "40GiB", "--", "true")
    ok("wait", "it")
    assert "1 GPU of type h 100 with at least 40 GiB of memory, priority auto" in ok("describe", "it").text
    ok("run", "--name", "none", "--gpu-type", "none", "--cpus", 0, "--", "true")
    assert re.search(r"needs +priority auto", ok("describe", "none").text)


def test_gpus_of_more_memory_than_there_is_are_refused(nvml: FakeNvml, home: Home) -> None:
    nvml.add_gpu()
    assert "compute.gpus" in refused("run", "--gpus", 1, "--gpu-memory", "1000GiB", "--", "true")
    assert "compute.gpu_memory" in refused("run", "--gpus", 1, "--gpu-memory", "much", "--", "true")
    assert not home.path.exists()


# -- doctor -----------------------------------------------------------------------------------------------------------


def test_doctor_finds_all_well(nvml: FakeNvml, tmp_path: Path) -> None:
    nvml.add_gpus(2)
    message = f"2 x {H100} (driver 550.54.15, CUDA 12.4), leases in {tmp_path / 'leases'}"
    assert check() == (0, "ok", message)


def test_doctor_warns_of_one_gpu(nvml: FakeNvml) -> None:
    uuids = nvml.add_gpus(2)
    nvml.set_error(GPU_IS_LOST, uuids[1])
    assert check() == (0, "warn", "GPU 1: GPU is lost (NVML 15)")


def test_doctor_warns_of_gpus_that_are_not_there(nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml.add_gpu()
    monkeypatch.setenv("LOCALRUN_GPUS", "0,4")
    assert check() == (0, "warn", "no such GPU here: 4 (LOCALRUN_GPUS)")
    monkeypatch.setenv("LOCALRUN_GPUS", "zero")
    code, status, message = check()
    assert (code, status) == (1, "fail")
    assert "'zero'" in message


def test_states_are_words(nvml: FakeNvml) -> None:
    nvml.add_gpu()
    (view,) = gpus()
    assert view.state is GpuState.FREE and view.state == "free"
    assert (view.reason, view.holder) == (None, None)
