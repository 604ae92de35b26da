"""The inventory: what the driver says, through the real nvidia-ml-py, and what becomes of one that fails or hangs."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from fakenvml import (
    DRIVER_NOT_LOADED,
    GIB,
    GPU_IS_LOST,
    H100,
    MISMATCH,
    NO_PERMISSION,
    NOT_SUPPORTED,
    UNKNOWN,
    FakeNvml,
)
from support import look, wait_until

from localrun import settings
from localrun.engine import processes
from localrun.engine.gpus import probe
from localrun.engine.gpus.answer import Answer
from localrun.engine.gpus.inventory import Gpu, GpuProcess, Inventory, foreign, matches, types
from localrun.engine.gpus.probe import Probe, ask, inventory, is_stuck, may_have_gpus
from localrun.errors import RunConfigError


@pytest.fixture
def nvml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    """A machine with a driver and, yet, no GPU."""
    fake = FakeNvml(tmp_path)
    for name, value in fake.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("LOCALRUN_GPUS", raising=False)
    return fake


def helpers() -> list[int]:
    """The pids of the processes that this one has started to ask the driver, and that live."""
    found = []
    for name in os.listdir("/proc"):
        seen = look(int(name)) if name.isdigit() else None
        if seen is not None and "nvml.py" in seen.command and parent(seen.pid) == os.getpid():
            found.append(seen.pid)
    return found


def parent(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(stat[stat.rindex(")") + 2 :].split()[1])


# -- what the driver says ---------------------------------------------------------------------------------------------


def test_eight_gpus(nvml: FakeNvml) -> None:
    uuids = nvml.add_gpus(8, used=3 * GIB, utilization=17, temperature=61)
    found = inventory()
    assert (found.problem, found.driver, found.cuda, found.missing) == (None, "550.54.15", "12.4", ())
    assert [gpu.uuid for gpu in found.gpus] == uuids
    assert [(gpu.index, gpu.label) for gpu in found.gpus] == [(place, str(place)) for place in range(8)]
    assert found.gpus[3] == Gpu(
        index=3, uuid=uuids[3], name=H100, pci_bus_id="00000000:13:00.0", memory_total=80 * GIB, memory_used=3 * GIB,
        utilization=17, temperature=61, driver="550.54.15",
    )  # fmt: skip
    assert found.usable() == found.gpus
    assert found.get(uuids[5]) is found.gpus[5]
    assert found.get("GPU-other") is None
    assert types(found.gpus) == f"8 x {H100}"


def test_a_driver_without_gpus(nvml: FakeNvml) -> None:
    found = inventory()
    assert (found.gpus, found.problem, found.driver) == ((), None, "550.54.15")


def test_the_order_is_that_of_the_bus(nvml: FakeNvml) -> None:
    last, first, second = nvml.add_gpu(bus=0xC1), nvml.add_gpu(bus=0x0A), nvml.add_gpu(bus=0x81)
    assert [(gpu.index, gpu.uuid) for gpu in inventory().gpus] == [(0, first), (1, second), (2, last)]


def test_a_value_that_the_device_does_not_have_is_none(nvml: FakeNvml) -> None:
    nvml.add_gpu(total=-1, utilization=-1, temperature=-1)
    (gpu,) = inventory().gpus
    assert (gpu.memory_total, gpu.memory_used, gpu.utilization, gpu.temperature) == (None, None, None, None)
    assert gpu.problem is None


def test_instances_stand_for_the_gpu_they_lie_on(nvml: FakeNvml) -> None:
    whole, divided = nvml.add_gpu(bus=9), nvml.add_gpu(bus=1, mig=True, temperature=55)
    instances = [nvml.add_mig(divided, number, total=10 * GIB, used=GIB) for number in (5, 0)]
    found = inventory().gpus
    assert [(gpu.label, gpu.uuid, gpu.is_mig) for gpu in found] == [
        ("0:0", instances[1], True), ("0:5", instances[0], True), ("1", whole, False),
    ]  # fmt: skip
    instance = found[0]
    assert (instance.parent, instance.name) == (divided, f"{H100} MIG 1g.10gb")
    assert (instance.memory_total, instance.memory_used) == (10 * GIB, GIB)
    assert (instance.utilization, instance.temperature, instance.problem) == (None, 55, None)
    assert [gpu.label for gpu in sorted(found, key=lambda gpu: gpu.rank)] == ["1", "0:0", "0:5"]


def test_an_instance_whose_driver_names_it_like_the_whole_gpu(nvml: FakeNvml) -> None:
    nvml.add_mig(nvml.add_gpu(mig=True), 0, name=H100)
    assert inventory().gpus[0].name == f"{H100} MIG 1g.10gb"


def test_a_divided_gpu_without_instances_is_listed_and_can_not_be_used(nvml: FakeNvml) -> None:
    uuid = nvml.add_gpu(mig=True)
    (gpu,) = inventory().gpus
    assert (gpu.uuid, gpu.problem) == (uuid, "MIG is enabled on it, and it has no instances")


def test_processes_have_a_user_and_a_command(nvml: FakeNvml) -> None:
    one, other = nvml.add_gpu(), nvml.add_gpu()
    child = subprocess.Popen(["sleep", "60"])
    try:
        nvml.set_process(one, child.pid, 2 * GIB)
        nvml.set_process(one, 1, "unknown")
        nvml.set_process(other, 1 << 30, 0)  # no such process here
        found = inventory()
    finally:
        child.kill()
        child.wait()
    first, second = found.gpus[0].processes
    import pwd

    assert first == GpuProcess(
        pid=child.pid, user=pwd.getpwuid(os.getuid()).pw_name, command="sleep 60", memory=2 * GIB
    )
    assert (second.pid, second.memory) == (1, None)
    assert found.gpus[1].processes == (GpuProcess(pid=1 << 30, user=None, command=None, memory=0),)
    assert foreign(found.gpus[0]) == (first, second)
    assert foreign(found.gpus[0], {child.pid}) == (second,)
    assert foreign(found.gpus[1]) == ()
    nvml.set_process(one, child.pid, None)
    assert [process.pid for process in inventory().gpus[0].processes] == [1]


def test_many_processes(nvml: FakeNvml) -> None:
    uuid = nvml.add_gpu()
    for pid in range(1000, 1040):
        nvml.set_process(uuid, pid)
    assert [process.pid for process in inventory().gpus[0].processes] == list(range(1000, 1040))


def test_a_gpu_is_removed_and_comes_back(nvml: FakeNvml) -> None:
    uuids = nvml.add_gpus(3)
    nvml.remove_gpu(uuids[1])
    assert [gpu.uuid for gpu in inventory().gpus] == [uuids[0], uuids[2]]
    nvml.add_gpu(uuids[1], bus=17)
    assert [gpu.uuid for gpu in inventory().gpus] == uuids


# -- a driver that fails ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "function",
    ["GetHandleByIndex", "GetUUID", "GetPciInfo", "GetName", "GetMemoryInfo", "GetComputeRunningProcesses",
     "GetMigMode", "GetUtilizationRates", "GetTemperature"],
)  # fmt: skip
def test_an_error_of_one_device_takes_out_that_one(nvml: FakeNvml, function: str) -> None:
    uuids = nvml.add_gpus(4)
    nvml.set_error(GPU_IS_LOST, uuids[1], f"nvmlDevice{function}")
    found = inventory()
    assert found.problem is None
    assert [gpu.uuid for gpu in found.usable()] == [uuids[0], uuids[2], uuids[3]]
    assert [gpu.index for gpu in found.gpus] == [0, 1, 2, 3]
    lost = found.gpus[1]
    assert lost.problem == "GPU is lost (NVML 15)"
    assert lost.uuid == ("" if function in ("GetHandleByIndex", "GetUUID") else uuids[1])
    nvml.set_error(0, uuids[1], f"nvmlDevice{function}")
    assert [gpu.uuid for gpu in inventory().usable()] == uuids


def test_an_error_of_an_instance_takes_out_that_one(nvml: FakeNvml) -> None:
    divided, whole = nvml.add_gpu(mig=True), nvml.add_gpu()
    good, bad = nvml.add_mig(divided, 0), nvml.add_mig(divided, 1)
    nvml.set_error(UNKNOWN, bad, "nvmlDeviceGetMemoryInfo")
    found = inventory()
    assert [gpu.uuid for gpu in found.usable()] == [good, whole]
    assert [(gpu.uuid, gpu.label) for gpu in found.gpus if gpu.problem] == [(bad, "0:1")]


@pytest.mark.parametrize("code", [NOT_SUPPORTED, NO_PERMISSION, UNKNOWN])
def test_a_gpu_whose_processes_are_not_known_is_taken_out(nvml: FakeNvml, code: int) -> None:
    uuid = nvml.add_gpu()
    nvml.set_error(code, uuid, "nvmlDeviceGetComputeRunningProcesses")
    (gpu,) = inventory().gpus
    assert gpu.problem is not None and f"NVML {code}" in gpu.problem


@pytest.mark.parametrize("function", ["nvmlSystemGetDriverVersion", "nvmlSystemGetCudaDriverVersion"])
def test_an_error_of_what_is_only_shown_takes_out_nothing(nvml: FakeNvml, function: str) -> None:
    nvml.add_gpus(2)
    nvml.set_error(UNKNOWN, function=function)
    found = inventory()
    assert (len(found.usable()), found.problem) == (2, None)


def test_what_is_only_shown_may_be_forbidden(nvml: FakeNvml) -> None:
    uuid = nvml.add_gpu()
    nvml.set_error(NO_PERMISSION, uuid, "nvmlDeviceGetTemperature")
    nvml.set_error(NO_PERMISSION, uuid, "nvmlDeviceGetUtilizationRates")
    (gpu,) = inventory().gpus
    assert (gpu.problem, gpu.temperature, gpu.utilization) == (None, None, None)


def test_a_driver_that_does_not_start(nvml: FakeNvml) -> None:
    nvml.add_gpu()
    nvml.set_error(MISMATCH, function="nvmlInit")
    found = inventory()
    assert found.gpus == ()
    assert found.problem is not None and "NVML 18" in found.problem


def test_no_driver_behind_the_library_means_no_gpus(nvml: FakeNvml) -> None:
    nvml.add_gpu()
    nvml.set_error(DRIVER_NOT_LOADED, function="nvmlInit")
    assert inventory() == Inventory()
    nvml.set_driver(False)
    assert inventory() == Inventory()


def test_no_library_means_no_gpus_and_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    if may_have_gpus():
        pytest.skip("this machine has an NVIDIA driver")
    monkeypatch.setattr(Probe, "start", lambda timeout: pytest.fail("a process was started"))
    assert inventory() == Inventory()


def test_whether_there_may_be_gpus(nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert may_have_gpus()
    monkeypatch.setenv("LD_LIBRARY_PATH", f":{tmp_path}:")
    monkeypatch.setattr(probe, "_DRIVER_FILES", (str(tmp_path / "nvidiactl"),))
    before = may_have_gpus()
    (tmp_path / "nvidiactl").touch()
    assert may_have_gpus()
    (tmp_path / "nvidiactl").unlink()
    assert may_have_gpus() == before


def test_a_process_that_ends_without_an_answer(nvml: FakeNvml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("", "print('hello')", "import os; os.write(3, b'{}')", "import os; os.write(3, b'{\"gpus\": [{}]}')"):
        program = tmp_path / "program.py"
        program.write_text(text)
        monkeypatch.setattr(processes, "DRIVER_PROGRAM", str(program))
        found = inventory()
        assert found.gpus == ()
        assert found.problem is not None and "without an answer" in found.problem


@pytest.mark.parametrize(
    "line", [b"[]", b"{", b'{"gpus": 3}', b'{"device": 0, "gpus": [3]}', b'{"cost": "x"}', b"\xff"]
)
def test_what_is_no_answer_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError):
        Answer().add(line + b"\n")


# -- a driver that hangs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", ["nvmlInit", "nvmlDeviceGetName"])
def test_a_hanging_driver_is_given_up(nvml: FakeNvml, function: str) -> None:
    nvml.add_gpu()
    nvml.set_delay(60, function=function)
    start = time.monotonic()
    found = inventory(0.3)
    assert time.monotonic() - start < 5
    assert found == Inventory(problem="the NVIDIA driver did not answer within 0.3 s")
    assert not is_stuck(10)
    wait_until(lambda: not helpers())
    nvml.set_delay(0, function=function)
    assert len(inventory().gpus) == 1


@pytest.mark.parametrize("function", ["nvmlDeviceGetHandleByIndex", "nvmlDeviceGetMemoryInfo"])
def test_a_device_that_hangs_takes_out_that_one_alone(nvml: FakeNvml, function: str) -> None:
    uuids = nvml.add_gpus(4)
    nvml.set_delay(1000, uuids[1], function)
    start = time.monotonic()
    found = inventory(60)
    assert time.monotonic() - start < 30, "it was waited for although the others had answered"
    assert found.problem is None
    assert [gpu.uuid for gpu in found.usable()] == [uuids[0], uuids[2], uuids[3]]
    hanging = found.gpus[1]
    assert hanging.problem is not None and "did not answer" in hanging.problem
    assert (hanging.index, hanging.uuid) == (1, uuids[1] if function == "nvmlDeviceGetMemoryInfo" else "")
    assert not is_stuck(10)


def test_devices_that_are_slow_are_waited_for(nvml: FakeNvml) -> None:
    uuids = nvml.add_gpus(3)
    for uuid, seconds in zip(uuids, (0.1, 0.5, 1.0), strict=True):
        nvml.set_delay(seconds, uuid, "nvmlDeviceGetMemoryInfo")
    assert len(inventory(60).usable()) == 3


def test_a_slow_driver_is_waited_for(nvml: FakeNvml) -> None:
    nvml.add_gpu()
    nvml.set_delay(0.5, function="nvmlDeviceGetCount")
    assert len(inventory().gpus) == 1


def test_a_probe_leaves_a_loop_free(nvml: FakeNvml) -> None:
    uuid = nvml.add_gpu()
    nvml.set_delay(0.5, function="nvmlDeviceGetCount")
    start = time.monotonic()
    asked = Probe.start(timeout=20)
    with select.epoll() as poll:
        poll.register(asked.fd, select.EPOLLIN)
        assert poll.poll(0) == []
        assert asked.read() is None
        assert time.monotonic() - start < 0.5, "it has waited"
        assert 15 < asked.deadline - time.monotonic() <= 20
        found = None
        while found is None:
            assert poll.poll(20), "no answer"
            found = asked.read()
        poll.unregister(asked.fd)
    asked.close()
    assert [gpu.uuid for gpu in found.gpus] == [uuid]
    assert not is_stuck(10)


def test_a_probe_is_given_up_at_once(nvml: FakeNvml) -> None:
    nvml.set_delay(60, function="nvmlInit")
    asked = Probe.start(timeout=0.2)
    (pid,) = wait_until(helpers)
    start = time.monotonic()
    found = asked.give_up()
    asked.close()
    assert time.monotonic() - start < 0.1
    assert found.problem is not None
    wait_until(lambda: look(pid) is None)
    assert not is_stuck(10)


def test_a_process_that_can_not_be_killed_is_left_and_nobody_else_is_asked(
    nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uninterruptible sleep can't be had here, so the kill is made to miss."""
    nvml.set_delay(60, function="nvmlInit")
    with monkeypatch.context() as patch:
        patch.setattr(os, "killpg", lambda pid, number: None)
        start = time.monotonic()
        assert inventory(0.2).problem is not None
        assert time.monotonic() - start < 2
        (pid,) = wait_until(helpers)
        assert is_stuck()
        found = inventory()
        assert found.problem is not None and "can't even be killed" in found.problem
        assert helpers() == [pid]
    os.kill(pid, signal.SIGKILL)
    assert not is_stuck(10)
    nvml.set_delay(0, function="nvmlInit")
    assert inventory().problem is None


def test_a_process_whose_asker_was_killed_ends_by_itself(nvml: FakeNvml) -> None:
    nvml.set_delay(60, function="nvmlInit")
    asked = Probe.start(timeout=0.2)
    (pid,) = wait_until(helpers)
    wait_until(lambda: look(pid) is None, 10)
    assert asked.read() is not None
    asked.close()


def test_the_process_inherits_nothing(nvml: FakeNvml, tmp_path: Path) -> None:
    """A lock that it had would live on in it while the driver hangs."""
    nvml.set_delay(60, function="nvmlInit")
    fd = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    os.set_inheritable(fd, True)
    try:
        asked = Probe.start()
        (pid,) = wait_until(helpers)
        wait_until(lambda: set(os.listdir(f"/proc/{pid}/fd")) == {"0", "1", "2", "3"}, what="only its own are left")
        assert {os.readlink(f"/proc/{pid}/fd/{number}") for number in (0, 1, 2)} == {os.devnull}
        assert os.getsid(pid) == pid
        asked.give_up()
        asked.close()
    finally:
        os.close(fd)
    assert not is_stuck(10)


def test_it_is_no_part_of_the_run_whose_supervisor_asks(nvml: FakeNvml) -> None:
    nvml.set_delay(60, function="nvmlInit")
    asked = Probe.start()
    (pid,) = wait_until(helpers)
    wait_until(lambda: "nvml.py" in str(look(pid)))
    assert processes.is_service(pid)
    assert pid not in processes.descendants([os.getpid()], processes.snapshot(), without=processes.is_service)
    asked.give_up()
    asked.close()
    assert not is_stuck(10)


def test_threads_may_ask_at_the_same_time(nvml: FakeNvml) -> None:
    nvml.add_gpus(2)
    found: list[Inventory] = []
    threads = [threading.Thread(target=lambda: found.append(inventory(60))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(len(each.gpus), each.problem) for each in found] == [(2, None)] * 8
    assert not is_stuck(10)


def test_a_forked_child_leaves_its_parents_processes_alone(nvml: FakeNvml) -> None:
    nvml.set_delay(60, function="nvmlInit")
    asked = Probe.start(timeout=20)
    asked.close()  # not ended: it is remembered
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.closerange(3, 64)
            kept = [os.dup(1) for _ in range(40)]  # whatever number the handle had is something else now
            probe.is_stuck()
            for fd in kept:
                os.fstat(fd)
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    for helper in helpers():
        os.kill(helper, signal.SIGKILL)
    assert not is_stuck(10)
    wait_until(lambda: (probe._reap(0.1), not probe._unended)[1])


# -- LOCALRUN_GPUS ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "indices"),
    [("", []), (" ", []), ("0", [0]), ("2, 0", [0, 2]), ("1,1", [1]), ("{uuid3}", [3]), ("{UUID3},0", [0, 3])],
)
def test_the_gpus_that_are_managed(
    nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch, text: str, indices: list[int]
) -> None:
    uuids = nvml.add_gpus(4)
    monkeypatch.setenv("LOCALRUN_GPUS", text.format(uuid3=uuids[3], UUID3=uuids[3].upper()))
    found = inventory()
    assert [gpu.index for gpu in found.gpus] == indices
    assert found.missing == ()


def test_managed_instances(nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    divided, whole = nvml.add_gpu(mig=True), nvml.add_gpu()
    one, other = nvml.add_mig(divided, 0), nvml.add_mig(divided, 1)
    for text, uuids in {"0": [one, other], "0:1": [other], divided: [one, other], f"{one},1": [one, whole]}.items():
        monkeypatch.setenv("LOCALRUN_GPUS", text)
        assert [gpu.uuid for gpu in inventory().gpus] == uuids


def test_a_managed_gpu_that_is_not_there_is_told(nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    uuids = nvml.add_gpus(2)
    monkeypatch.setenv("LOCALRUN_GPUS", "1,7,GPU-gone")
    found = inventory()
    assert ([gpu.uuid for gpu in found.gpus], found.missing) == ([uuids[1]], ("7", "GPU-gone"))
    assert found.problem is None


@pytest.mark.parametrize("text", ["all", "0,x", "-1", "1;2", "0,,1", ",", "0:", ":1", "0:x", "1.5", "²"])
def test_what_names_no_gpu_is_refused(nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("LOCALRUN_GPUS", text)
    with pytest.raises(RunConfigError, match="LOCALRUN_GPUS"):
        settings.managed_gpus()
    with pytest.raises(RunConfigError, match="LOCALRUN_GPUS"):
        inventory()


def test_the_bad_entries_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALRUN_GPUS", "0,one,2,three")
    with pytest.raises(RunConfigError, match="not 'one', 'three'"):
        settings.managed_gpus()


def test_the_machine_is_asked_about_all_of_them(nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the dispatcher does, which serves submitters that manage others."""
    nvml.add_gpus(2)
    monkeypatch.setenv("LOCALRUN_GPUS", "1")
    assert [gpu.index for gpu in ask().gpus] == [0, 1]


# -- which GPU does ---------------------------------------------------------------------------------------------------


def gpu(name: str, memory: int | None = 80 * GIB, *, mig: bool = False) -> Gpu:
    return Gpu(
        index=0, mig_index=0 if mig else None, uuid="GPU-0", name=name, pci_bus_id="00000000:01:00.0",
        memory_total=memory,
    )  # fmt: skip


A100, MIG = "NVIDIA A100-SXM4-40GB", "NVIDIA A100-SXM4-40GB MIG 1g.5gb"


@pytest.mark.parametrize(
    ("gpu_type", "name", "wanted"),
    [
        ("h100", H100, True), ("H100", H100, True), ("nvidia h100", H100, True), ("NVIDIA-H100-80GB-HBM3", H100, True),
        (H100, H100, True), ("h100_80gb", H100, True), ("h100 hbm3", H100, True), ("h10080gb", H100, True),
        ("", H100, True),
        ("h 100", H100, True), ("H 100 80 GB", H100, True), ("h 1", H100, False),
        ("h10", H100, False), ("100", H100, False), ("hbm3 h100", H100, False),
        ("h100-94gb", H100, False),
        ("a100", A100, True), ("a100_40gb", A100, True), ("a100-sxm4", A100, True), ("a100 80gb", A100, False),
        ("a100", "NVIDIA A1000", False), ("a100", "NVIDIA RTX A1000 Laptop GPU", False), ("a10", A100, False),
        ("a10", "NVIDIA A10G", False), ("l4", "NVIDIA L40S", False), ("l40", "NVIDIA L40S", False),
        ("h200", "NVIDIA GH200 480GB", False), ("gh200", "NVIDIA GH200 480GB", True),
        ("rtx4090", "NVIDIA GeForce RTX 4090", True), ("RTX 4090", "NVIDIA GeForce RTX 4090", True),
        ("4090", "NVIDIA GeForce RTX 4090", True), ("geforce-rtx-4090", "NVIDIA GeForce RTX 4090", True),
        ("rtx409", "NVIDIA GeForce RTX 4090", False), ("v100", "Tesla V100-PCIE-16GB", True), ("mi300", H100, False),
        ("mig", H100, False), ("h100-mig", H100, False), ("h100mig", H100, False),
    ],
)  # fmt: skip
def test_types(gpu_type: str, name: str, wanted: bool) -> None:
    assert matches(gpu(name), gpu_type) is wanted


@pytest.mark.parametrize(
    ("gpu_type", "wanted"),
    [("mig", True), ("MIG", True), ("a100-mig", True), ("mig-1g.5gb", True), ("mig 1g5gb", True), ("1g.5gb", True),
     ("a100", True), ("mig 2g.10gb", False), ("h100 mig", False)],
)  # fmt: skip
def test_types_of_instances(gpu_type: str, wanted: bool) -> None:
    assert matches(gpu(MIG, mig=True), gpu_type) is wanted


def test_memory_is_at_least_what_was_asked_for() -> None:
    assert matches(gpu(H100), None, 80 * GIB)
    assert not matches(gpu(H100), None, 80 * GIB + 1)
    assert not matches(gpu(H100, None), None, 1)
    assert matches(gpu(H100, None), "h100")
    assert not matches(gpu(A100), "h100", 1)
