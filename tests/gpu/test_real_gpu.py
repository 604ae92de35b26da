"""On a machine with a real NVIDIA GPU: CUDA itself is asked what it sees inside runs."""

from __future__ import annotations

import pytest
from support import Home

import localrun
from localrun.engine.gpus.probe import inventory

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def real() -> list[str]:
    """The uuids of the GPUs that nobody uses."""
    free = [view.gpu.uuid for view in localrun.gpus() if view.state == "free"]
    if not free:
        pytest.skip("there is no free NVIDIA GPU")
    return free


@localrun.function
def cuda_sees() -> list[str]:
    """The uuids of the devices that the CUDA driver gives this process."""
    import ctypes
    import uuid

    cuda = ctypes.CDLL("libcuda.so.1")
    if cuda.cuInit(0) == 100:  # no device
        return []
    count = ctypes.c_int()
    assert cuda.cuDeviceGetCount(ctypes.byref(count)) == 0
    found = []
    for number in range(count.value):
        device, raw = ctypes.c_int(), (ctypes.c_ubyte * 16)()
        assert cuda.cuDeviceGet(ctypes.byref(device), number) == 0
        assert cuda.cuDeviceGetUuid(raw, device) == 0
        found.append(f"GPU-{uuid.UUID(bytes=bytes(raw))}")
    return found


def test_a_run_sees_exactly_its_own(home: Home) -> None:
    assert cuda_sees.options(gpus=1)(run_name="run") == [gpu["uuid"] for gpu in home.record("run")["gpus"]]


def test_a_run_that_asked_for_none_sees_none(home: Home) -> None:
    assert cuda_sees(run_name="run") == []


def test_the_driver_says_what_it_is(home: Home) -> None:
    found = inventory()
    assert found.problem is None
    assert found.driver is not None
    assert all(gpu.memory_total and gpu.name for gpu in found.usable())


def test_what_computes_outside_keeps_runs_away(home: Home, real: list[str]) -> None:
    """A process that is no run's takes memory of every free GPU; a run waits until it is gone."""
    import subprocess
    import sys

    from support import submit, wait_until

    code = """
import ctypes, sys
cuda = ctypes.CDLL("libcuda.so.1")
cuda.cuInit(0)
count = ctypes.c_int(); cuda.cuDeviceGetCount(ctypes.byref(count))
for number in range(count.value):
    device, context, memory = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
    cuda.cuDeviceGet(ctypes.byref(device), number)
    cuda.cuCtxCreate_v2(ctypes.byref(context), 0, device)
    cuda.cuMemAlloc_v2(ctypes.byref(memory), ctypes.c_size_t(64 << 20))
print("up", flush=True)
sys.stdin.readline()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True) as stranger:
        assert stranger.stdout is not None
        assert stranger.stdout.readline() == "up\n"
        run = submit("run", "true", gpus=1)
        submit("cpu", "true").wait(30)
        wait_until(lambda: {view.state for view in localrun.gpus()} == {"busy"})
        assert run.refresh().status is localrun.RunStatus.QUEUED
        stranger.communicate("end\n", timeout=30)
    assert run.wait(30).status is localrun.RunStatus.COMPLETED
