"""When a supervisor's steps come into the record: none is lost for a disk that refuses."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from support import wait_until

from localrun import files
from localrun.engine.supervision.writing import Writing
from localrun.model import record as records
from localrun.model.folder import RunFolder
from localrun.model.record import Record
from localrun.model.status import RunStatus


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run's folder in which it is STARTING."""
    record = records.new(uid="0" * 16, name="run", run_type="COMMAND")
    for status in (RunStatus.QUEUED, RunStatus.STARTING):
        records.advance(record, status)
    found = RunFolder(str(tmp_path))
    files.replace(found.record, records.encode(record))
    return found


@pytest.fixture
def told() -> list[str]:
    """What the log was told."""
    return []


@pytest.fixture
def writing(folder: RunFolder, told: list[str]) -> Writing:
    """Its supervisor's."""
    return Writing(folder, "run", told.append)


def _start(record: Record) -> None:
    records.advance(record, RunStatus.RUNNING)


def _stop(record: Record) -> None:
    records.advance(record, RunStatus.TERMINATING)


def _end(record: Record) -> None:
    _stop(record)
    records.advance(record, RunStatus.COMPLETED)


def _phases(folder: RunFolder) -> list[str]:
    return [phase["status"] for phase in records.read(folder)["lifecycle"]][2:]


def _refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "replace", full)


def _fail() -> None:
    raise AssertionError("the disk did not refuse")


def test_a_step_is_written_at_once(folder: RunFolder, writing: Writing) -> None:
    writing.note_sometime(_start)
    assert _phases(folder) == ["STARTING", "RUNNING"]
    assert writing.due(time.monotonic()) == float("inf")
    before = Path(folder.record).stat().st_ino
    writing.catch_up()
    assert Path(folder.record).stat().st_ino == before


def test_one_that_the_disk_refuses_is_tried_again(
    folder: RunFolder, writing: Writing, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full:
        _refuse(full)
        writing.note_sometime(_start)
    assert len(told) == 1
    assert "No space left on device" in told[0]
    assert 0 < writing.due(time.monotonic()) <= 1

    def catch_up() -> bool:
        writing.catch_up()
        return writing.due(time.monotonic()) == float("inf")

    wait_until(catch_up)
    assert _phases(folder) == ["STARTING", "RUNNING"]


@pytest.mark.parametrize("end", [False, True])
def test_the_next_step_takes_it_along(
    folder: RunFolder, writing: Writing, monkeypatch: pytest.MonkeyPatch, end: bool
) -> None:
    with monkeypatch.context() as full:
        _refuse(full)
        writing.note_sometime(_start)
        assert not writing.note(_stop)  # nobody waits for that one
    if end:
        writing.end(_end, _fail)
        assert _phases(folder) == ["STARTING", "RUNNING", "TERMINATING", "COMPLETED"]
    else:
        assert writing.note(_stop)
        assert _phases(folder) == ["STARTING", "RUNNING", "TERMINATING"]
    assert writing.due(time.monotonic()) == float("inf")
