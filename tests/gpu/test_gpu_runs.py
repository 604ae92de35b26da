"""Runs get GPUs of their own, through the real dispatcher, supervisors and NVML bindings."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fakenvml import GIB, GPU_IS_LOST, FakeNvml
from support import CPUS, Home, is_alive, kill, look, submit, wait_until

import localrun
from localrun import RunStatus
from localrun.api.machine.utilization import why_waiting
from localrun.engine.gpus import leases
from localrun.engine.gpus.probe import Probe

SHOW = 'echo "$CUDA_VISIBLE_DEVICES $CUDA_DEVICE_ORDER"'


def asks_the_driver(parent: int) -> list[int]:
    """The pids of the processes below this one that ask the driver."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    found = [look(int(child)) for child in children]
    return [each.pid for each in found if each is not None and "nvml.py" in each.command]


def uuids(home: Home, name: str) -> list[str]:
    return [gpu["uuid"] for gpu in home.record(name)["gpus"]]


def sees(run: localrun.Run) -> list[str]:
    visible, _, order = run.wait(60).stdout().strip().rpartition(" ")
    assert order == "PCI_BUS_ID"
    return visible.split(",") if visible else []


class TestVisibility:
    def test_a_run_sees_exactly_its_own(self, home: Home, eight: list[str]) -> None:
        one, two = submit("one", SHOW, gpus=1), submit("two", SHOW, gpus=2)
        assert (sees(one), sees(two)) == (uuids(home, "one"), uuids(home, "two"))
        assert {len(sees(one)), len(sees(two))} == {1, 2}
        assert home.record("one")["gpus"][0]["name"] == "NVIDIA H100 80GB HBM3"
        assert one.refresh().provenance["driver"] == "550.54.15"
        assert one.refresh().cpus == 0

    def test_a_run_that_asks_for_none_sees_none(self, home: Home, eight: list[str]) -> None:
        run = submit("run", 'echo "[${CUDA_VISIBLE_DEVICES-unset}]"')
        assert run.result(30) == "[]\n"
        assert home.record("run")["gpus"] == []

    def test_indices_for_libraries_that_parse_numbers(self, home: Home, eight: list[str]) -> None:
        blocker = submit("blocker", "sleep 1000", gpus=2)
        wait_until(lambda: home.status("blocker") == "RUNNING")
        assert sees(submit("run", SHOW, gpus=2, gpu_visibility="index")) == ["2", "3"]
        blocker.stop()

    def test_each_rank_its_own_slice(self, home: Home, eight: list[str]) -> None:
        run = submit("run", SHOW, gpus=4, nproc_per_node=2, gpu_binding="rank")
        run.wait(60)
        there = uuids(home, "run")
        assert [run.stdout(rank).split()[0].split(",") for rank in (0, 1)] == [there[:2], there[2:]]

    def test_a_process_for_each_gpu(self, home: Home, eight: list[str]) -> None:
        run = submit("run", SHOW, gpus=3, nproc_per_node="gpu").wait(60)
        assert {run.stdout(rank) for rank in range(3)} == {f"{','.join(uuids(home, 'run'))} PCI_BUS_ID\n"}

    def test_world_size_without_ranks_is_the_number_of_gpus(self, home: Home, eight: list[str]) -> None:
        run = submit("run", "echo $NODE_RANK $NUM_NODES $WORLD_SIZE $LOCAL_WORLD_SIZE ${RANK-none}", gpus=2)
        assert run.result(60) == "0 1 2 2 none\n"


class TestAttempts:
    def test_another_attempt_gets_gpus_too(self, home: Home, nvml: FakeNvml) -> None:
        (gpu,) = nvml.add_gpus(1)
        assert sees(submit("run", f"[ $RESUMPTION_INDEX = 1 ] && {SHOW}", gpus=1, max_retries=1)) == [gpu]

    def test_a_port_leaves_no_file(self, home: Home, nvml: FakeNvml) -> None:
        nvml.add_gpu()
        submit("run", "true", gpus=1).wait(60)
        wait_until(lambda: not list(Path(os.environ["LOCALRUN_LEASE_DIR"]).glob("port-*")))


class TestChoice:
    def test_by_type_and_memory(self, home: Home, nvml: FakeNvml) -> None:
        nvml.add_gpus(2)
        small = nvml.add_gpu(name="NVIDIA RTX A1000", total=8 * GIB)
        submit("typed", "true", gpus=1, gpu_type="a1000").wait(60)
        assert uuids(home, "typed") == [small]
        submit("large", "true", gpus=1, gpu_memory="40GiB").wait(60)
        assert small not in uuids(home, "large")

    @pytest.mark.parametrize(
        ("compute", "said"),
        [
            ({"gpus": 9}, "9 GPUs were asked for"),
            ({"gpus": 1, "gpu_type": "a100"}, "8 x NVIDIA H100 80GB HBM3"),
            ({"gpus": 1, "gpu_memory": "100GiB"}, "compute.gpus"),
            ({"nproc_per_node": "gpu"}, "compute.nproc_per_node"),
            ({"gpus": 3, "nproc_per_node": 2, "gpu_binding": "rank"}, "can't be divided"),
            ({"gpus": 2, "gpu_type": "mig"}, "MIG"),
            ({"gpus": 1, "gpu_type": "none"}, "gpu_type"),
            ({"gpus": 1.5}, "compute.gpus"),
            ({"nproc_per_node": 0}, "compute.nproc_per_node"),
        ],
    )
    def test_what_can_never_be_had_is_refused(
        self, home: Home, eight: list[str], compute: dict[str, object], said: str
    ) -> None:
        with pytest.raises(localrun.RunConfigError, match=said):
            submit("run", "true", **compute)
        assert not (home.path / "runs").exists()

    def test_mig_instances(self, home: Home, nvml: FakeNvml) -> None:
        whole = nvml.add_gpu()
        parent = nvml.add_gpu(mig=True)
        instances = [nvml.add_mig(parent, number) for number in range(2)]
        assert sees(submit("any", SHOW, gpus=1, gpu_type="h100")) == [whole]
        assert sees(submit("mig", SHOW, gpus=1, gpu_type="mig")) == [instances[0]]
        both = submit("both", SHOW, gpus=2, gpu_type="mig", nproc_per_node=2, gpu_binding="rank").wait(60)
        assert [both.stdout(rank).split()[0] for rank in range(2)] == instances

    def test_a_limit_on_what_is_managed(self, home: Home, eight: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LOCALRUN_GPUS", f"2,{eight[5]}")
        with pytest.raises(localrun.RunConfigError, match="LOCALRUN_GPUS"):
            submit("three", "true", gpus=3)
        assert sees(submit("two", SHOW, gpus=2)) == [eight[2], eight[5]]


    def test_the_limit_is_the_submitters(
        self, home: Home, eight: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One dispatcher serves them all, whatever was set for whoever started it."""
        monkeypatch.setenv("LOCALRUN_GPUS", "5,6")
        blocker = submit("blocker", "sleep 1000", gpus=1)
        wait_until(lambda: home.status("blocker") == "RUNNING")
        dispatcher = home.dispatcher()
        monkeypatch.delenv("LOCALRUN_GPUS")
        assert sees(submit("four", SHOW, gpus=4)) == eight[:4]
        monkeypatch.setenv("LOCALRUN_GPUS", eight[7])
        assert sees(submit("last", SHOW, gpus=1)) == [eight[7]]
        assert home.dispatcher() == dispatcher
        blocker.stop()

    def test_a_process_is_never_given_two_instances(self, home: Home, nvml: FakeNvml) -> None:
        parent = nvml.add_gpu(mig=True)
        for number in range(4):
            nvml.add_mig(parent, number)
        for more in ({}, {"gpu_binding": "rank"}, {"gpu_binding": "rank", "nproc_per_node": 2}):
            with pytest.raises(localrun.RunConfigError, match="CUDA gives a process one"):
                submit("run", "true", gpus=4, **more)

    def test_those_who_share_take_what_is_free_first(self, home: Home, nvml: FakeNvml) -> None:
        busy, free = nvml.add_gpus(2)
        nvml.set_process(busy, os.getpid())
        assert sees(submit("run", SHOW, gpus=1, allow_shared_gpus=True)) == [free]

    def test_a_lease_file_that_can_not_be_written_takes_out_its_gpu_alone(
        self, home: Home, nvml: FakeNvml, tmp_path: Path
    ) -> None:
        locked, other = nvml.add_gpus(2)
        lease_folder = Path(os.environ["LOCALRUN_LEASE_DIR"])
        lease_folder.mkdir(mode=0o1777, exist_ok=True)
        lease_folder.chmod(0o1777)
        file = lease_folder / f"{locked}.lock"
        file.touch(mode=0o644)
        if subprocess.run(["chattr", "+i", file], capture_output=True).returncode:
            pytest.skip("a file that even root can't write can't be had here")
        try:
            assert sees(submit("run", SHOW, gpus=1)) == [other]
            view, _ = localrun.gpus()
            assert (view.state, "writable" in str(view.reason)) == ("unavailable", True)
        finally:
            subprocess.run(["chattr", "-i", file], check=True)


class TestForeignUse:
    @pytest.mark.parametrize("memory", [GIB, "unknown"])
    def test_a_gpu_in_foreign_use_waits_to_be_free(
        self, home: Home, nvml: FakeNvml, memory: int | str
    ) -> None:
        gpu = nvml.add_gpu()
        nvml.set_process(gpu, os.getpid(), memory)
        run = submit("run", SHOW, gpus=1)
        submit("cpu", "true").wait(30)
        wait_until(lambda: "1 used by processes that are no runs" in str(why_waiting(run)))
        assert run.refresh().status is RunStatus.QUEUED
        shared = submit("shared", SHOW, gpus=1, allow_shared_gpus=True)
        assert sees(shared) == [gpu]
        nvml.set_process(gpu, os.getpid(), None)
        assert sees(run) == [gpu]

    def test_one_that_holds_no_memory_is_none(self, home: Home, nvml: FakeNvml) -> None:
        gpu = nvml.add_gpu()
        nvml.set_process(gpu, os.getpid(), 0)
        assert sees(submit("run", SHOW, gpus=1)) == [gpu]

    def test_a_runs_own_processes_delay_nobody_once_it_has_ended(self, home: Home, nvml: FakeNvml) -> None:
        """The driver has shown them while the next run waited."""
        gpu = nvml.add_gpu()
        for number in range(3):
            first = submit(f"first-{number}", "sleep 1000", gpus=1, stop_grace=1)
            wait_until(lambda first=first: home.status(first.name) == "RUNNING")
            rank = home.rank(first.name)
            assert rank is not None
            nvml.set_process(gpu, rank)
            assert localrun.gpus()[0].others == ()
            after = submit(f"after-{number}", SHOW, gpus=1)
            wait_until(lambda after=after: "held by first" in str(why_waiting(after)))
            first.stop(timeout=30)
            nvml.set_process(gpu, rank, None)
            assert sees(after) == [gpu]

    def test_a_process_whose_run_lost_its_lease_keeps_its_gpu(
        self, home: Home, nvml: FakeNvml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It has closed the descriptor of the lease, and all who looked after it were killed."""
        gpu = nvml.add_gpu()
        code = "import os, time; os.closerange(3, 100); open('closed', 'x'); time.sleep(1000)"
        submit("run", f"exec {sys.executable} -c {shlex.quote(code)}", gpus=1, cwd=str(tmp_path))
        wait_until((tmp_path / "closed").exists)
        rank = home.rank("run")
        assert rank is not None
        nvml.set_process(gpu, rank)
        kill(home.dispatcher())
        kill(home.supervisor("run"))
        wait_until(lambda: leases.holder(gpu) is None)
        other = Home(tmp_path / "other", tmp_path)
        monkeypatch.setenv("LOCALRUN_HOME", str(other.path))
        try:
            waits = submit("waits", SHOW, gpus=1)
            wait_until(lambda: "1 used by processes that are no runs" in str(why_waiting(waits)))
            submit("cpu", "true").wait(30)
            assert waits.refresh().status is RunStatus.QUEUED
            assert is_alive(rank)
            kill(rank)
            nvml.set_process(gpu, rank, None)
            assert sees(waits) == [gpu]
        finally:
            other.end()
            monkeypatch.setenv("LOCALRUN_HOME", str(home.path))
        assert localrun.get_run("run").wait(30).status is RunStatus.FAILED

    def test_a_stranger_on_a_leased_gpu_is_shown(self, home: Home, nvml: FakeNvml) -> None:
        gpu = nvml.add_gpu()
        run = submit("run", "sleep 1000", gpus=1)
        wait_until(lambda: home.status("run") == "RUNNING")
        nvml.set_process(gpu, home.rank("run") or 0, 2 * GIB)
        nvml.set_process(gpu, os.getpid(), 3 * GIB)
        (view,) = localrun.gpus()
        assert view.state == "leased"
        assert [process.pid for process in view.others] == [os.getpid()]
        assert "run run of user" in str(view.reason) and f"pid {os.getpid()}" in str(view.reason)
        run.stop()

    def test_another_gpu_is_taken_meanwhile(self, home: Home, nvml: FakeNvml) -> None:
        first, second = nvml.add_gpus(2)
        nvml.set_process(first, os.getpid())
        assert sees(submit("run", SHOW, gpus=1)) == [second]


class TestFaults:
    def test_a_lost_gpu_is_not_given_out_and_stops_nobody(self, home: Home, nvml: FakeNvml) -> None:
        first, second = nvml.add_gpus(2)
        run = submit("run", "sleep 1000", gpus=1)
        wait_until(lambda: home.status("run") == "RUNNING")
        assert uuids(home, "run") == [first]
        nvml.set_error(GPU_IS_LOST, first)
        assert sees(submit("other", SHOW, gpus=1)) == [second]
        assert run.stop(timeout=30).status is RunStatus.STOPPED
        waits = submit("waits", SHOW, gpus=2)
        submit("behind", "true", gpus=1).wait(60)
        assert waits.refresh().status is RunStatus.QUEUED
        nvml.set_error(0, first)
        assert sees(waits) == [first, second]

    def test_a_slow_driver_is_believed(self, home: Home, nvml: FakeNvml) -> None:
        (gpu,) = nvml.add_gpus(1)
        nvml.set_delay(1.3, function="nvmlInit")
        assert sees(submit("run", SHOW, gpus=1)) == [gpu]

    def test_a_device_that_hangs_keeps_the_others_from_nobody(self, home: Home, nvml: FakeNvml) -> None:
        hanging, well = nvml.add_gpus(2)
        nvml.set_delay(1000, hanging, "nvmlDeviceGetMemoryInfo")
        assert sees(submit("run", SHOW, gpus=1)) == [well]
        both = submit("both", SHOW, gpus=2, gpu_type="h100", gpu_memory="80GiB")  # refused by nobody
        nvml.set_delay(0, hanging, "nvmlDeviceGetMemoryInfo")
        assert sees(both) == [hanging, well]

    def test_a_lost_gpu_is_waited_for_and_said_so(self, home: Home, nvml: FakeNvml) -> None:
        first, second = nvml.add_gpus(2)
        nvml.set_error(GPU_IS_LOST, first)
        run = submit("run", SHOW, gpus=2, gpu_type="h100", gpu_memory="40GiB")
        wait_until(lambda: "1 of 2 free, 1 unusable" in str(why_waiting(run)))
        nvml.set_error(0, first)
        assert sees(run) == [first, second]

    def test_a_run_without_gpus_asks_no_driver(
        self, home: Home, nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        nvml.add_gpu()
        gpu = submit("gpu", "sleep 1000", gpus=1)
        wait_until(lambda: home.status("gpu") == "RUNNING")
        ahead, run = submit("ahead", "true", gpus=1), submit("run", "true", cpus=CPUS)
        monkeypatch.setattr(Probe, "start", lambda timeout: pytest.fail("the driver was asked"))
        assert "GPU" not in str(why_waiting(run))
        gpu.stop()
        ahead.wait(30)

    def test_recovery_leaves_alone_who_asks_the_driver(self, home: Home, nvml: FakeNvml) -> None:
        """A supervisor that ends a lost run looks for strays below the dispatcher."""
        first, _ = nvml.add_gpus(2)
        run, other = submit("run", "sleep 1000", gpus=1), submit("other", "sleep 1000", gpus=1)
        for each in (run, other):
            wait_until(lambda each=each: home.status(each.name) == "RUNNING")
        nvml.set_delay(1000, function="nvmlInit")
        with pytest.warns(RuntimeWarning, match="did not answer"):
            after = submit("after", SHOW, gpus=1)
        dispatcher = home.dispatcher()
        assert dispatcher is not None
        (asking,) = wait_until(lambda: asks_the_driver(dispatcher))
        kill(home.supervisor("run"))
        wait_until(lambda: home.status("run") == "FAILED")
        assert is_alive(asking) or "did not answer" in (home.path / "dispatcher.log").read_text()
        nvml.set_delay(0, function="nvmlInit")
        assert sees(after) == [first]
        other.stop()

    def test_a_driver_that_hangs_delays_nobody_else(self, home: Home, nvml: FakeNvml) -> None:
        (gpu,) = nvml.add_gpus(1)
        first = submit("first", "sleep 1000", gpus=1)
        wait_until(lambda: home.status("first") == "RUNNING")
        waiting = submit("waiting", SHOW, gpus=1)
        nvml.set_delay(1000)
        for i in range(3):
            assert submit(f"cpu-{i}", f"echo {i}", cpus=CPUS).result(20) == f"{i}\n"
        assert first.stop(timeout=20).status is RunStatus.STOPPED
        assert waiting.refresh().status is RunStatus.QUEUED
        nvml.set_delay(0)
        assert sees(waiting) == [gpu]

    def test_no_driver_refuses_gpus_and_nothing_else(self, home: Home, nvml: FakeNvml) -> None:
        nvml.set_driver(False)
        with pytest.raises(localrun.RunConfigError, match="manages none here"):
            submit("gpu", "true", gpus=1)
        assert submit("cpu", "echo hi").result(30) == "hi\n"

    def test_a_lost_supervisors_ranks_are_ended_before_the_gpu_is_anothers(
        self, home: Home, nvml: FakeNvml, tmp_path: Path
    ) -> None:
        (gpu,) = nvml.add_gpus(1)
        stubborn = "trap '' TERM; echo $$; while :; do sleep 0.1; done"
        run = submit("run", stubborn, gpus=1, stop_grace=1)
        wait_until(lambda: home.status("run") == "RUNNING")
        rank = home.rank("run")
        assert rank is not None
        after = submit("after", f"kill -0 {rank} 2>/dev/null && echo alive || echo gone", gpus=1)
        kill(home.supervisor("run"), signal.SIGKILL)
        assert is_alive(rank)
        assert leases.holder(gpu) is not None
        assert after.result(60) == "gone\n"
        assert (run.wait(1).status, run.reason) == (RunStatus.FAILED, "SystemFailure")

    def test_the_lease_is_held_as_long_as_the_run_and_no_longer(self, home: Home, nvml: FakeNvml) -> None:
        (gpu,) = nvml.add_gpus(1)
        run = submit("run", "sleep 0.3", gpus=1)
        wait_until(lambda: home.status("run") == "RUNNING")
        holder = leases.holder(gpu)
        assert holder is not None
        assert (holder.run, holder.uid) == ("run", run.run_uid)
        run.wait(30)
        wait_until(lambda: leases.holder(gpu) is None, 2)
