"""Interactive runs hold GPUs: shells see exactly those, and they are free again at the end; clusters count them."""

from __future__ import annotations

import pytest
from fakenvml import UNKNOWN, FakeNvml
from support import Home, start_python, submit, wait_until

from localrun import RunStatus, SystemFailureError, create_interactive_run, get_cluster, wait_for_run_status
from localrun.engine.gpus import leases


def seen_inside(name: str, rank: int | None = None) -> list[str]:
    """The GPUs that a command inside a run sees."""
    code = "import sys, localrun; localrun.connect(sys.argv[1], 'echo $CUDA_VISIBLE_DEVICES', rank=eval(sys.argv[2]))"
    out, err = start_python(code, name, rank).communicate(timeout=60)
    assert err == ""
    return out.strip().split(",")


def uuids(home: Home, name: str) -> list[str]:
    return [gpu["uuid"] for gpu in home.record(name)["gpus"]]


def test_a_shell_sees_exactly_the_runs_gpus(home: Home, eight: list[str]) -> None:
    runs = [create_interactive_run({"name": name, "compute": {"gpus": count}}) for name, count in (("a", 3), ("b", 1))]
    for run in runs:
        wait_for_run_status(run, "RUNNING", 60)
        assert seen_inside(run.name) == uuids(home, run.name)
    assert set(uuids(home, "a")).isdisjoint(uuids(home, "b"))
    for run in runs:
        run.stop(timeout=60)


def test_a_rank_sees_its_slice(home: Home, eight: list[str]) -> None:
    run = submit("run", "sleep 1000", gpus=4, nproc_per_node=2, gpu_binding="rank")
    wait_for_run_status(run, "RUNNING", 60)
    assert seen_inside("run") == uuids(home, "run")[:2]
    assert seen_inside("run", 1) == uuids(home, "run")[2:]
    run.stop(timeout=60)


def test_the_gpus_are_free_when_the_time_is_over(home: Home, nvml: FakeNvml) -> None:
    gpu = nvml.add_gpu()
    run = create_interactive_run({"name": "desk", "compute": {"gpus": 1}}, seconds=4)
    wait_for_run_status(run, "RUNNING", 60)
    start_python("import localrun; localrun.connect('desk', 'sleep 1000')")
    next_one = submit("next", "echo $CUDA_VISIBLE_DEVICES", gpus=1)
    assert leases.holder(gpu).run == "desk"
    assert run.wait(60).status.value == "COMPLETED"
    assert next_one.wait(60).stdout() == f"{gpu}\n"
    ended, started = home.record("desk")["end_time"], home.record("next")["start_time"]
    assert ended < started
    wait_until(lambda: leases.holder(gpu) is None)


def test_a_cluster_counts_its_gpus(home: Home, nvml: FakeNvml) -> None:
    first, *_ = nvml.add_gpus(3)
    nvml.add_gpu(name="NVIDIA L4")
    nvml.set_process(first, 1)
    run = create_interactive_run({"name": "desk", "compute": {"gpus": 1, "gpu_type": "h100"}})
    wait_for_run_status(run, "RUNNING", 60)
    used = get_cluster().utilization
    assert used is not None
    assert [
        (each.instance.name, each.gpus_used, each.gpus_available, each.gpus_total)
        for each in used.cluster_instance_utils
    ] == [("3 x NVIDIA H100 80GB HBM3", 2, 1, 3), ("1 x NVIDIA L4", 0, 1, 1)]
    [active] = used.active_runs_by_user
    assert (active.name, active.gpus, active.status) == ("desk", 1, RunStatus.RUNNING)
    run.stop(timeout=60)


def test_runs_of_other_queues_are_known_by_their_leases(
    home: Home, eight: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = create_interactive_run({"name": "desk", "compute": {"gpus": 2}})
    wait_for_run_status(run, "RUNNING", 60)
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("LOCALRUN_HOME", str(home.place / "elsewhere"))
        used = get_cluster().utilization
    assert used is not None
    [theirs] = used.active_runs_by_user
    assert (theirs.id, theirs.name, theirs.user, theirs.gpus) == (run.run_uid, "desk", run.created_by, 2)
    assert (theirs.cpus, theirs.status, theirs.started_at is not None) == (None, None, True)
    run.stop(timeout=60)


def test_a_driver_that_can_not_be_asked(home: Home, nvml: FakeNvml) -> None:
    nvml.add_gpu()
    nvml.set_error(UNKNOWN, function="nvmlInit")
    with pytest.raises(SystemFailureError, match="nothing is known of the GPUs") as failed:
        get_cluster()
    assert failed.value.status == 503
