"""Runs that make way for others that need their GPUs."""

from __future__ import annotations

import pytest
from fakenvml import FakeNvml
from support import TERMINAL, Home, submit

import localrun
from localrun import RunStatus

_GPUS = 4
_UNTIL_RESUMED = "test $RESUMPTION_INDEX = 1 || exec sleep 1000"
_LOW = {"priority": "low", "preemptible": True}


@pytest.fixture
def gpus(nvml: FakeNvml) -> FakeNvml:
    nvml.add_gpus(_GPUS)
    return nvml


def test_the_fewest_and_youngest_make_way_and_come_back(gpus: FakeNvml, home: Home) -> None:
    ahead = [submit(f"low{i}", _UNTIL_RESUMED, gpus=1, **_LOW) for i in range(_GPUS)]
    for run in ahead:
        localrun.wait_for_run_status(run, "RUNNING", timeout=60)
    late = submit("late", "true", gpus=1, **_LOW)
    needy = submit("needy", "sleep 1", gpus=2)
    assert needy.wait(60).status is RunStatus.COMPLETED
    for run in ahead[2:]:
        assert run.wait(60).status is RunStatus.COMPLETED
        attempts = [(str(each.status), each.reason) for each in run.resumptions]
        assert attempts == [("STOPPED", "Preempted"), ("COMPLETED", "Completed")]
        assert run.resumption_count == 1
        phases = [phase.status.value for phase in run.lifecycle]
        assert not TERMINAL.intersection(phases[:-1])
        assert phases.count("QUEUED") == 2
        assert any("needy" in event.message for event in run.events)
        assert run.started_at < needy.started_at < run.resumptions[1].started_at
    # They kept their place: before the one that came after them.
    assert max(run.resumptions[1].started_at for run in ahead[2:]) <= late.wait(60).started_at
    assert [run.refresh().status for run in ahead[:2]] == [RunStatus.RUNNING] * 2
    assert [run.resumption_count for run in ahead[:2]] == [0, 0]
    localrun.stop_runs(ahead[:2])
