"""Large arrays behind their pickle: every kind comes back as it was, in memory of its own or mapped, or not at all."""

from __future__ import annotations

import dataclasses
import gc
import importlib.util
import os
import pickle
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import REPOSITORY, run_python

from localrun.errors import PayloadError, ResultUnavailableError
from localrun.model.pickles import payload
from localrun.model.pickles.apart import SET_APART
from localrun.model.pickles.payload import Stored

MiB = 1 << 20
MODES = pytest.mark.parametrize("mapped", [False, True], ids=["read", "mapped"])


@dataclasses.dataclass
class Fitted:
    weights: Any
    loss: list[float]


class Labelled(np.ndarray):  # type: ignore[type-arg]
    """A subclass that keeps an attribute when it is pickled."""

    label: str

    def __reduce__(self) -> Any:
        made, arguments, state = super().__reduce__()  # type: ignore[misc]
        return made, arguments, (state, self.label)

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state[0])
        self.label = state[1]


class OwnBuffer:
    """Pickles as a buffer that isn't an array's."""

    def __init__(self, data: Any) -> None:
        self.data = bytes(data)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return OwnBuffer, (pickle.PickleBuffer(self.data),)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OwnBuffer) and self.data == other.data

    __hash__ = None  # type: ignore[assignment]


def numbers(size: int = MiB) -> Any:
    return np.random.default_rng(0).integers(0, 255, size, np.uint8)


def labelled() -> Any:
    array = numbers().view(Labelled)
    array.label = "a"
    return array


def memory_map() -> Any:
    import tempfile

    with tempfile.TemporaryFile() as file:
        array = np.memmap(file, np.uint8, "w+", shape=(MiB,))
        array[:] = numbers()
        return array


def objects() -> Any:
    array = np.empty(SET_APART // 4, object)
    array[0], array[-1] = {"a": 1}, [None]
    return array


def read_only() -> Any:
    array = numbers()
    array.flags.writeable = False
    return array


KINDS: dict[str, Callable[[], Any]] = {
    "bytes": numbers,
    "floats": lambda: np.arange(MiB / 8),
    "three dimensions": lambda: numbers().reshape(16, 64, 1024),
    "Fortran": lambda: np.asfortranarray(numbers().reshape(1024, 1024)),
    "axes exchanged": lambda: numbers().reshape(16, 64, 1024).transpose(1, 2, 0),
    "strided": lambda: numbers(2 * MiB)[::2],
    "reversed": lambda: numbers()[::-1],
    "broadcast": lambda: np.broadcast_to(np.arange(1024.0), (1024, 1024)),
    "view": lambda: numbers(2 * MiB)[100:-100],
    "unaligned": lambda: numbers(MiB + 1)[1:].view(np.float64),
    "structures": lambda: np.zeros(MiB // 9, [("a", "i1"), ("b", "f8")]),
    "big-endian": lambda: np.arange(MiB // 4, dtype=">i4"),
    "times": lambda: np.arange(MiB // 8).astype("M8[s]"),
    "spans of time, Fortran": lambda: np.asfortranarray(np.arange(MiB // 8).reshape(8, -1).astype("m8[us]")),
    "times that were read-only": lambda: np.broadcast_to(np.arange(MiB // 8).astype("M8[s]"), MiB // 8),
    "times in pieces": lambda: np.arange(MiB // 4).astype("M8[D]").reshape(-1, 2)[:, 1],
    "structures in pieces": lambda: np.ones(MiB // 5, [("a", "i1"), ("t", "M8[s]")])[::2],
    "a column": lambda: np.asfortranarray(numbers(4 * MiB).reshape(-1, 4)[:, ::2])[::-1],
    "texts": lambda: np.full(MiB // 40, "ten chars."),
    "complex halves": lambda: np.ones(MiB // 2, np.float16),
    "objects": objects,
    "without elements": lambda: np.empty((0, MiB)),
    "without dimensions": lambda: np.array(1.5),
    "elements without size": lambda: np.zeros(3, "V0"),
    "read-only": read_only,
    "masked": lambda: np.ma.masked_less(np.arange(MiB // 8), 7),
    "matrix": lambda: np.matrix(np.ones((512, 512))),
    "records": lambda: np.rec.array(np.ones(MiB // 12, [("a", "i4"), ("b", "f8")])),
    "subclass": labelled,
    "memory map": memory_map,
    "just below": lambda: numbers(SET_APART - 1),
    "just enough": lambda: numbers(SET_APART),
    "huge pages": lambda: numbers(5 * MiB + 3),
    "not hashed at load": lambda: numbers(17 * MiB),
}

# What pickles by a method of its own, and what is no memory but objects.
IN_THE_PICKLE = {"objects", "masked", "subclass", "matrix", "records", "memory map"}

WRAPPED: dict[str, Callable[[Any], Any]] = {
    "alone": lambda array: array,
    "deep": lambda array: {"a": [1, (array, "x")], "b": None},
    "dataclass": lambda array: Fitted(array, [0.5]),
}


def inside(value: Any) -> Any:
    return value.weights if isinstance(value, Fitted) else value["a"][1][0] if isinstance(value, dict) else value


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # np.matrix
@MODES
@pytest.mark.parametrize("wrap", WRAPPED)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_comes_back_as_it_was(tmp_path: Path, kind: str, wrap: str, mapped: bool) -> None:
    array = KINDS[kind]()
    stored = payload.store(WRAPPED[wrap](array), tmp_path / "result.pkl")
    payload.verify(tmp_path / "result.pkl", stored)
    assert os.listdir(tmp_path) == ["result.pkl"]
    loaded = inside(payload.load(tmp_path / "result.pkl", stored, mapped=mapped))
    assert (type(loaded), loaded.dtype, loaded.shape) == (type(array), array.dtype, array.shape)
    np.testing.assert_array_equal(loaded, array)
    assert (loaded.flags.c_contiguous, loaded.flags.f_contiguous) == expected_order(array)
    assert vars(loaded).get("label") == vars(array).get("label") if isinstance(array, Labelled) else True
    assert bool(stored.apart) is (array.nbytes >= SET_APART and kind not in IN_THE_PICKLE)
    if mapped and stored.apart:
        assert not loaded.flags.writeable
    else:
        assert loaded.flags.writeable is (kind != "read-only")


def expected_order(array: Any) -> tuple[bool, bool]:
    """That of a copy through a plain pickle."""
    copied = pickle.loads(pickle.dumps(array, protocol=5))
    return copied.flags.c_contiguous, copied.flags.f_contiguous


def test_what_lies_apart_begins_with_a_page_and_is_all_there_is(tmp_path: Path) -> None:
    arrays = [numbers(SET_APART + i) for i in range(3)]
    stored = payload.store(arrays, tmp_path / "x")
    data = (tmp_path / "x").read_bytes()
    assert [length for _, length in stored.apart] == [array.nbytes for array in arrays]
    assert [offset % 4096 for offset, _ in stored.apart] == [0, 0, 0]
    assert [data[offset : offset + length] for offset, length in stored.apart] == [each.tobytes() for each in arrays]
    assert sum(stored.apart[-1]) == stored.size == len(data)
    assert Stored(**stored.to_record()).apart == [[*place] for place in stored.apart]


def test_small_arrays_stay_in_a_pickle_that_anyone_can_load(tmp_path: Path) -> None:
    arrays = [np.arange(i) for i in range(500)]
    stored = payload.store(arrays, tmp_path / "x")
    assert stored.apart == () and stored.to_record().keys() == {"size", "sha256"}
    with open(tmp_path / "x", "rb") as file:
        assert all(map(np.array_equal, pickle.load(file), arrays))


@MODES
def test_one_array_stays_one_and_two_stay_two(tmp_path: Path, mapped: bool) -> None:
    array = numbers()
    stored = payload.store({"a": array, "again": array, "part": array[100:], "copy": array.copy()}, tmp_path / "x")
    loaded = payload.load(tmp_path / "x", stored, mapped=mapped)
    assert loaded["a"] is loaded["again"]
    assert np.array_equal(loaded["part"], array[100:]) and np.array_equal(loaded["copy"], array)
    if not mapped:
        loaded["a"][:] = 0
        assert np.array_equal(loaded["part"], array[100:]) and np.array_equal(loaded["copy"], array)


@MODES
def test_what_is_no_array_is_loaded_as_ever(tmp_path: Path, mapped: bool) -> None:
    value = [b"x" * MiB, bytearray(MiB), "y" * MiB, list(range(100_000)), OwnBuffer(numbers()), Fitted(None, [1.0])]
    loaded = payload.load(tmp_path / "x", payload.store(value, tmp_path / "x"), mapped=mapped)
    assert loaded == value
    assert list(map(type, loaded)) == list(map(type, value))


@MODES
def test_code_of_the_users_own_may_lie_beside(tmp_path: Path, mapped: bool) -> None:
    factor = numbers()

    class Local:
        def __init__(self) -> None:
            self.array = factor

        def total(self) -> int:
            return int(self.array.sum() + factor.sum())

    loaded = payload.load(tmp_path / "x", payload.store(Local(), tmp_path / "x"), mapped=mapped)
    assert loaded.total() == Local().total()


if importlib.util.find_spec("pandas") is not None:

    @MODES
    def test_tables(tmp_path: Path, mapped: bool) -> None:
        import pandas as pd

        days = pd.date_range("2000", periods=50_000, tz="UTC")
        table = pd.DataFrame({"a": np.arange(50_000), "b": np.ones(50_000), "word": ["x", None] * 25_000}, index=days)
        table["kind"] = pd.Categorical(["p", "q"] * 25_000)
        stored = payload.store({"table": table, "b": table["b"]}, tmp_path / "x")
        loaded = payload.load(tmp_path / "x", stored, mapped=mapped)
        pd.testing.assert_frame_equal(loaded["table"], table)
        pd.testing.assert_series_equal(loaded["b"], table["b"])
        assert stored.apart
        changed = loaded["table"].assign(a=1)
        assert int(changed["a"].sum()) == 50_000


if importlib.util.find_spec("torch") is not None:

    @MODES
    def test_tensors(tmp_path: Path, mapped: bool) -> None:
        import torch

        weights = torch.arange(float(MiB)).reshape(1024, 1024)
        value = {"w": weights, "t": weights.T, "row": weights[1], "p": torch.nn.Parameter(weights.clone())}
        loaded = payload.load(tmp_path / "x", payload.store(value, tmp_path / "x"), mapped=mapped)
        assert all(torch.equal(loaded[name], value[name]) for name in value)
        assert loaded["p"].requires_grad and loaded["t"].stride() == value["t"].stride()


def test_each_array_has_memory_of_its_own(tmp_path: Path) -> None:
    stored = payload.store([numbers(30 * MiB), numbers(30 * MiB)], tmp_path / "x")
    one, other = payload.load(tmp_path / "x", stored)

    def resident() -> int:
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = resident()
    del other
    assert before - resident() > 25 * MiB
    assert one[-1] == numbers(30 * MiB)[-1]


def test_a_mapped_array_reads_nothing_and_outlives_its_file(tmp_path: Path) -> None:
    value = numbers(40 * MiB)
    stored = payload.store(value, tmp_path / "x")
    before = int(Path("/proc/self/statm").read_text().split()[1])
    array = payload.load(tmp_path / "x", stored, mapped=True)
    assert int(Path("/proc/self/statm").read_text().split()[1]) - before < 10 * MiB // 4096
    payload.store(np.zeros(40 * MiB, np.uint8), tmp_path / "x")  # replaced by a rename
    assert np.array_equal(array, value)
    (tmp_path / "x").unlink()
    assert np.array_equal(array, value)
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


@MODES
@pytest.mark.parametrize("size", [2 * MiB, 20 * MiB])
def test_a_cut_file_is_not_loaded(tmp_path: Path, size: int, mapped: bool) -> None:
    stored = payload.store(numbers(size), tmp_path / "x")
    for cut in (stored.size - 1, size // 2, 4096, 10, 0):
        os.truncate(tmp_path / "x", cut)
        with pytest.raises(ResultUnavailableError, match="is cut short"):
            payload.load(tmp_path / "x", stored, mapped=mapped)


@MODES
@pytest.mark.parametrize("where", [0.0, 0.5, 1.0])
def test_a_changed_byte_of_an_array_is_noticed(tmp_path: Path, where: float, mapped: bool) -> None:
    stored = payload.store(numbers(2 * MiB), tmp_path / "x")
    offset, length = stored.apart[0]
    with open(tmp_path / "x", "r+b") as file:
        file.seek(offset + int(where * (length - 1)))
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    for check in (
        lambda: payload.load(tmp_path / "x", stored, mapped=mapped),
        lambda: payload.verify(tmp_path / "x", stored),
    ):
        with pytest.raises(ResultUnavailableError, match="has been altered"):
            check()


def test_a_file_that_ends_while_it_is_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = payload.store(numbers(20 * MiB), tmp_path / "x")
    preadv = os.preadv

    def cut(fd: int, buffers: Any, offset: int) -> int:
        os.truncate(tmp_path / "x", 5 * MiB)
        return preadv(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", cut)
    with pytest.raises(ResultUnavailableError, match="is cut short"):
        payload.load(tmp_path / "x", stored)


def test_without_its_places_it_is_refused(tmp_path: Path) -> None:
    stored = payload.store(numbers(), tmp_path / "x")
    for known in (stored._replace(apart=()), None):
        with pytest.raises((PayloadError, ResultUnavailableError)):
            payload.load(tmp_path / "x", known)


@pytest.mark.parametrize("limit", [100, 2 * MiB, 3 * MiB + 5, 5 * MiB])
def test_a_writer_killed_within_an_array_leaves_the_file_that_was_there(tmp_path: Path, limit: int) -> None:
    stored = payload.store(numbers(), tmp_path / "x")
    code = """
        import resource, signal, sys, numpy
        from localrun.model.pickles import payload
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
        payload.store([numpy.ones(3 << 20, numpy.uint8)] * 2 + [numpy.ones(3 << 20, numpy.uint8)], sys.argv[1])
    """
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = run_python(code, tmp_path / "x", limit, ok=False, env=environment)
    assert done.returncode == -signal.SIGXFSZ
    assert np.array_equal(payload.load(tmp_path / "x", stored), numbers())
    payload.verify(tmp_path / "x", stored)


def test_many_arrays_are_as_many_places(tmp_path: Path) -> None:
    arrays = [np.full(SET_APART, i, np.uint8) for i in range(100)]
    stored = payload.store(arrays, tmp_path / "x")
    assert len(stored.apart) == 100
    for mapped in (False, True):
        loaded = payload.load(tmp_path / "x", stored, mapped=mapped)
        assert [int(array[-1]) for array in loaded] == list(range(100))
