"""The statuses: their order, their names in older words, and which may follow which."""

from __future__ import annotations

import itertools

import pytest

from localrun.errors import IllegalTransitionError, RunConfigError
from localrun.model import record as records
from localrun.model.status import TRANSITIONS, RunStatus

ORDER = ["UNKNOWN", "PENDING", "QUEUED", "STARTING", "RUNNING", "TERMINATING", "COMPLETED", "STOPPED", "FAILED"]
LEGAL = {
    "UNKNOWN": "",
    "PENDING": "QUEUED STOPPED FAILED",
    "QUEUED": "STARTING STOPPED FAILED",
    "STARTING": "RUNNING TERMINATING",
    "RUNNING": "TERMINATING",
    "TERMINATING": "QUEUED COMPLETED STOPPED FAILED",
    "COMPLETED": "PENDING",
    "STOPPED": "PENDING",
    "FAILED": "PENDING",
}


@pytest.mark.parametrize(("one", "other"), [*itertools.product(ORDER, ORDER)])
def test_order(one: str, other: str) -> None:
    first, second = RunStatus[one], RunStatus[other]
    here, there = ORDER.index(one), ORDER.index(other)
    assert first.before(second) == (first < second) == (here < there)
    assert first.after(second) == (first > second) == (here > there)
    assert first.before(second, inclusive=True) == (first <= second) == (here <= there)
    assert first.after(second, inclusive=True) == (first >= second) == (here >= there)


def test_order_by_name() -> None:
    assert RunStatus.RUNNING.before("COMPLETED") and RunStatus.RUNNING.after("scheduled")
    assert RunStatus.RUNNING.before("running", inclusive=True) and RunStatus.RUNNING.after("Unknown")
    for compare in (RunStatus.RUNNING.before, RunStatus.RUNNING.after):
        with pytest.raises(RunConfigError, match="status: 'done' is none of UNKNOWN, PENDING"):
            compare("done")


def test_which_are_over_and_which_are_at_work() -> None:
    assert [status.name for status in RunStatus if status.is_terminal()] == ["COMPLETED", "STOPPED", "FAILED"]
    assert [status.name for status in RunStatus if status.is_active()] == ["STARTING", "RUNNING", "TERMINATING"]


@pytest.mark.parametrize(
    ("text", "status"),
    [
        *((name, name) for name in ORDER),
        *((name.lower(), name) for name in ORDER),
        *((name.capitalize(), name) for name in ORDER),
        ("SCHEDULED", "QUEUED"), ("scheduled", "QUEUED"), ("STOPPING", "TERMINATING"), ("FAILED_PULL", "FAILED"),
        ("failedPull", "FAILED"), ("FailedPull", "FAILED"), ("NOT_STARTED", "PENDING"), ("notStarted", "PENDING"),
        ("ERROR", "FAILED"), ("CANCELLED", "STOPPED"), ("Canceled", "STOPPED"),
        ("", "UNKNOWN"), ("no such", "UNKNOWN"), ("RUN", "UNKNOWN"),
    ],
)  # fmt: skip
def test_from_string(text: str, status: str) -> None:
    assert RunStatus.from_string(text) is RunStatus[status]


def test_a_status_is_its_own_name() -> None:
    assert RunStatus.from_string(RunStatus.RUNNING) is RunStatus.RUNNING
    assert str(RunStatus.RUNNING) == RunStatus.RUNNING.value == "RUNNING"


@pytest.mark.parametrize(("current", "to"), [*itertools.product(ORDER, ORDER)])
def test_which_may_follow_which(current: str, to: str) -> None:
    is_legal = to in LEGAL[current].split()
    assert (RunStatus[to] in TRANSITIONS[RunStatus[current]]) == is_legal
    record = records.new(uid="0", name="run", run_type="COMMAND")
    record["status"] = current
    if RunStatus[current].after(RunStatus.QUEUED):
        record["resumptions"].append({"index": 0, "ended_at": None})
    before = records.encode(record)
    if is_legal:
        records.advance(record, RunStatus[to])
        assert record["status"] == record["lifecycle"][-1]["status"] == to
    else:
        with pytest.raises(IllegalTransitionError, match=f"run run: cannot go from {current} to {to}") as caught:
            records.advance(record, RunStatus[to])
        assert caught.value.status == 409
        assert records.encode(record) == before
