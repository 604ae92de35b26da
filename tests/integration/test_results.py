"""What a run leaves: large results read or mapped, and everything that was stored compared with the record."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import Home, record_of

import localrun
from localrun import ResultUnavailableError, RunFailedError

MiB = 1 << 20


@pytest.fixture(autouse=True)
def _home(home: Home) -> None:
    pass


@localrun.function
def grid(size: int, fill: int = 1) -> dict[str, Any]:
    rank = int(os.environ.get("RANK", "0"))
    return {"grid": np.full(size, fill + rank, np.uint8), "rank": rank}


@localrun.function
def fail(data: Any) -> None:
    raise ValueError("no", np.zeros(MiB, np.uint8))


def flip(path: str | Path, where: int = -1) -> None:
    """Change one byte of a file."""
    data = bytearray(Path(path).read_bytes())
    data[where] ^= 1
    Path(path).write_bytes(data)


@pytest.mark.parametrize("size", [MiB, 20 * MiB])
def test_arrays_are_writable_or_mapped(size: int) -> None:
    run = grid.run(size)
    array = run.result()["grid"]
    array[0] = 7
    mapped = run.result(mmap=True)["grid"]
    assert not mapped.flags.writeable
    assert (mapped[0], mapped[-1], len(mapped)) == (1, 1, size)
    run.delete()
    assert int(mapped.sum()) == size
    assert run.result(mmap=True)["grid"][0] == 1


def test_a_cached_one_too() -> None:
    first = grid.get_or_call(20 * MiB, 5, run_name="run")["grid"]
    again = grid.get_or_call(20 * MiB, 5, run_name="run")["grid"]
    assert np.array_equal(first, again)
    assert first.flags.writeable and again.flags.writeable
    assert grid.get_or_run(20 * MiB, 5, run_name="run").result(mmap=True)["grid"][-1] == 5


def test_every_rank_has_its_own() -> None:
    run = grid.options(nproc_per_node=2).run(MiB)
    for mmap in (False, True):
        found = run.result(mmap=mmap)
        assert [(each["grid"][0], each["rank"], each["grid"].flags.writeable) for each in found] == [
            (1, 0, not mmap),
            (2, 1, not mmap),
        ]
        assert run.result(rank=1, mmap=mmap)["grid"][-1] == 2
    run.verify()
    flip(Path(run.path, "result.rank_1.pkl"))
    assert run.result(rank=0)["rank"] == 0
    with pytest.raises(ResultUnavailableError, match=r"result\.rank_1\.pkl has been altered"):
        run.verify()


def test_a_copy_of_the_folder_has_all_of_it(tmp_path: Path) -> None:
    run = grid.run(20 * MiB)
    expected = run.result()["grid"]
    shutil.copytree(run.path, tmp_path / "copy")
    run.delete()
    copy = localrun.Run.load(tmp_path / "copy").verify()
    assert np.array_equal(copy.result()["grid"], expected)
    assert np.array_equal(copy.result(mmap=True)["grid"], expected)
    assert copy.inputs()["args"] == [20 * MiB]


def test_whoever_holds_a_run_that_was_replaced_gets_its_own_result() -> None:
    grid.get_or_call(MiB, run_name="run")
    before = localrun.get_run("run")
    assert grid(MiB, 9, run_name="run")["grid"][0] == 9
    assert before._outcome()["grid"][0] == 1  # as if it were replaced between looking and loading
    assert before.is_deleted


@pytest.mark.parametrize("name", ["function.pkl", "inputs.pkl", "parameters.yaml", "result.pkl"])
@pytest.mark.parametrize("damage", ["altered", "cut short", "longer", "missing"])
def test_verify_names_what_is_not_as_it_was(name: str, damage: str) -> None:
    run = grid.options(parameters={"a": 1}).run(20 * MiB).wait()
    path = Path(run.path, name)
    assert run.verify() is run
    if damage == "altered":
        flip(path, path.stat().st_size // 2)
    elif damage == "cut short":
        os.truncate(path, path.stat().st_size - 1)
    elif damage == "longer":
        with path.open("ab") as file:
            file.write(b"x")
    else:
        path.unlink()
    with pytest.raises(ResultUnavailableError, match=name):
        run.verify()


def test_altered_inputs_are_not_loaded() -> None:
    run = grid.run(MiB).wait()
    assert run.inputs() == {"args": [MiB], "kwargs": {}}
    flip(Path(run.path, "inputs.pkl"), -3)
    with pytest.raises(ResultUnavailableError, match=r"inputs\.pkl has been altered"):
        run.inputs()


def test_an_exception_is_checked_like_a_result() -> None:
    run = fail.run(np.ones(MiB, np.uint8)).wait()
    run.verify()
    error = run.exception()
    assert isinstance(error, ValueError) and error.args[1].shape == (MiB,)
    flip(Path(run.path, "exception.pkl"))
    with pytest.raises(ResultUnavailableError, match=r"exception\.pkl"):
        run.verify()
    assert isinstance(run.exception(), RunFailedError)


def test_a_run_started_again_is_verified_as_it_is_now(tmp_path: Path) -> None:
    @localrun.function
    def second_time() -> Any:
        if os.environ["RESUMPTION_INDEX"] == "0":
            raise ValueError("first")
        return np.ones(MiB, np.uint8)

    run = second_time.run().wait()
    assert record_of(run.path)["exception"] is not None
    run.verify().start()
    assert len(run.result()) == MiB
    record = record_of(run.path)
    assert record["exception"] is None and record["result"]["apart"]
    run.verify()


def test_commands_have_nothing_but_what_they_were_given() -> None:
    run = localrun.create_run(localrun.RunConfig(command="echo hi", parameters={"a": 1})).wait().verify()
    flip(Path(run.path, "parameters.yaml"))
    with pytest.raises(ResultUnavailableError, match=r"parameters\.yaml"):
        run.verify()


def test_a_run_of_an_older_record_is_loaded() -> None:
    import json

    run = grid.run(1000).wait()
    record = record_of(run.path)
    del record["given"], record["exception"]
    Path(run.path, "config.json").write_text(json.dumps(record))
    run = localrun.Run.load(run.path).verify()
    assert run.result()["grid"].sum() == 1000
    assert run.inputs()["args"] == [1000]
