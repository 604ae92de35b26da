"""The files of a run's pickles: whole or not there, checked against what was stored, and cheap for large arrays."""

from __future__ import annotations

import datetime
import errno
import gc
import hashlib
import os
import pickle
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localrun.errors import PayloadError, ResultUnavailableError
from localrun.model.pickles import payload
from localrun.model.pickles.payload import Stored

LARGE = 17 << 20
PLAIN = {"a": [1, 2.5, None, True], "b": ("x", b"y", {3}), "c": np.arange(3), "d": datetime.date(2030, 1, 2)}


@pytest.fixture(params=["plain", "résult 'with\nquotes\".pkl"])
def path(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return tmp_path / request.param


@pytest.fixture
def stored(path: Path) -> Stored:
    return payload.store({"n": list(range(1000))}, path)


@pytest.mark.parametrize(
    "value", [None, 1, "text", [1, 2, {"a": (3, 4)}], {"x"}, ValueError("no"), datetime.datetime.now]
)
def test_a_stored_value_is_loaded(path: Path, value: object) -> None:
    stored = payload.store(value, path)
    data = path.read_bytes()
    assert stored == Stored(len(data), hashlib.sha256(data).hexdigest())
    assert (
        repr(payload.load(path, stored)) == repr(payload.load(path, None)) == repr(payload.loads(data)) == repr(value)
    )
    payload.verify(path, stored)


def test_plain_data_is_what_pickle_makes_and_code_is_what_cloudpickle_reads(path: Path) -> None:
    payload.store(PLAIN, path)
    assert repr(pickle.loads(path.read_bytes())) == repr(PLAIN)
    factor = 3
    payload.store(lambda x: x * factor, path)
    assert pickle.loads(path.read_bytes())(2) == 6


def test_inputs_are_args_and_kwargs() -> None:
    assert pickle.loads(payload.dumps_inputs((1, 2), {"a": 3})) == {"args": [1, 2], "kwargs": {"a": 3}}


def test_only_the_owner_may_read_and_nothing_else_is_left(path: Path, stored: Stored) -> None:
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(path.parent) == [path.name]
    payload.store("another", path)
    assert payload.load(path, None) == "another"
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("size", [100, 1 << 20, LARGE])
def test_a_cut_file_is_not_loaded(path: Path, size: int) -> None:
    stored = payload.store(b"x" * size, path)
    os.truncate(path, stored.size - 1)
    for check in (payload.load, payload.verify):
        with pytest.raises(ResultUnavailableError, match=f"is cut short: {stored.size - 1} of {stored.size} bytes"):
            check(path, stored)
    os.truncate(path, 0)
    with pytest.raises(ResultUnavailableError, match="is cut short"):
        payload.load(path, stored)


def test_a_file_that_grew_is_not_loaded(path: Path, stored: Stored) -> None:
    with path.open("ab") as file:
        file.write(b"more")
    with pytest.raises(ResultUnavailableError, match="has been altered"):
        payload.load(path, stored)


@pytest.mark.parametrize("where", [0, 10, 500, -1])
def test_a_file_with_a_changed_byte_is_not_loaded(path: Path, stored: Stored, where: int) -> None:
    data = bytearray(path.read_bytes())
    data[where] ^= 1
    path.write_bytes(data)
    for check in (payload.load, payload.verify):
        with pytest.raises(ResultUnavailableError, match="has been altered") as caught:
            check(path, stored)
        assert str(path) in str(caught.value)


def test_a_missing_file_is_said_to_be_missing(path: Path, stored: Stored) -> None:
    path.unlink()
    for check in (payload.load, payload.verify):
        with pytest.raises(ResultUnavailableError, match="is missing"):
            check(path, stored)
    with pytest.raises(ResultUnavailableError, match="is missing"):
        payload.load(path / "below", None)


def test_without_what_was_stored_a_cut_file_is_still_noticed(path: Path, stored: Stored) -> None:
    for size in (stored.size - 1, 20, 0):
        os.truncate(path, size)
        with pytest.raises(ResultUnavailableError, match="is cut short or altered"):
            payload.load(path, None)


def test_a_large_file_is_verified_when_asked_and_when_it_does_not_load(path: Path) -> None:
    stored = payload.store(np.zeros(LARGE, np.uint8), path)
    with path.open("r+b") as file:
        file.seek(LARGE // 2)
        file.write(b"x")
    assert payload.load(path, stored).sum() == ord("x")
    with pytest.raises(ResultUnavailableError, match="has been altered"):
        payload.verify(path, stored)
    with path.open("r+b") as file:
        file.seek(2)
        file.write(b"\xff" * 200)
    with pytest.raises(ResultUnavailableError, match="has been altered"):
        payload.load(path, stored)


def test_a_missing_module_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(b"\x80\x04\x8c\x0bno_such_mod\x8c\x01f\x93.")
    stored = Stored(path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(PayloadError, match="needs the module 'no_such_mod', which is not installed here") as caught:
        payload.load(path, stored)
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)
    with pytest.raises(PayloadError, match="no_such_mod"):
        payload.loads(path.read_bytes())


class Refuses:
    def __getstate__(self) -> dict[str, Any]:
        raise RuntimeError("two\nlines")


class FailsToLoad:
    def __setstate__(self, state: object) -> None:
        raise KeyError("no")

    def __getstate__(self) -> int:
        return 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (threading.Lock(), "a value of type lock can't be pickled: cannot pickle '_thread.lock' object"),
        ([1, (i for i in ())], "a value of type list can't be pickled: cannot pickle 'generator' object"),
        (Refuses(), "a value of type Refuses can't be pickled: two lines"),
    ],
)
def test_what_cannot_be_pickled_is_named_and_leaves_nothing(path: Path, value: object, expected: str) -> None:
    for attempt in (lambda: payload.store(value, path), lambda: payload.dumps(value)):
        with pytest.raises(PayloadError) as caught:
            attempt()
        assert expected in str(caught.value)
        assert "\n" not in str(caught.value)
        assert caught.value.__cause__ is not None
    assert os.listdir(path.parent) == []


def test_a_failed_store_leaves_the_file_that_was_there(path: Path, stored: Stored) -> None:
    with pytest.raises(PayloadError):
        payload.store([b"x" * LARGE, threading.Lock()], path)
    assert os.listdir(path.parent) == [path.name]
    payload.verify(path, stored)


def test_a_value_that_fails_to_load_is_told_from_a_broken_file(path: Path) -> None:
    with pytest.raises(PayloadError, match="can't be unpickled here: KeyError: 'no'"):
        payload.load(path, payload.store(FailsToLoad(), path))


def test_a_full_disk_is_an_oserror_and_leaves_nothing(path: Path) -> None:
    script = (
        "import resource, signal, sys\nfrom pathlib import Path\nfrom localrun.model.pickles import payload\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nresource.setrlimit(resource.RLIMIT_FSIZE, (5 << 20,) * 2)\n"
        "try: payload.store(b'x' * (9 << 20), Path(sys.argv[1]))\nexcept OSError as error: print(error.errno)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True, timeout=60)
    assert int(done.stdout) == errno.EFBIG
    assert os.listdir(path.parent) == []


def test_a_folder_that_is_gone_is_an_oserror(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        payload.store(1, path / "gone" / "result.pkl")


def test_a_reader_never_sees_a_part(path: Path) -> None:
    values = [bytes([n]) * (3 << 20) for n in range(8)]
    known = {payload.store(value, path) for value in values}
    writer = threading.Thread(target=lambda: [payload.store(value, path) for value in values * 4])
    writer.start()
    while writer.is_alive():
        data = path.read_bytes()
        assert Stored(len(data), hashlib.sha256(data).hexdigest()) in known
    writer.join()


def test_a_killed_writer_leaves_the_file_that_was_there(path: Path, stored: Stored) -> None:
    script = (
        "import os, signal, sys\nfrom localrun.model.pickles import payload\n"
        "class Kill:\n    def __reduce__(self): os.kill(os.getpid(), signal.SIGKILL)\n"
        "payload.store([b'x' * (3 << 20), Kill()], sys.argv[1])\n"
    )
    assert subprocess.run([sys.executable, "-c", script, path], timeout=60).returncode == -9
    payload.verify(path, stored)


ARRAYS = {
    "contiguous": lambda: np.arange(LARGE // 8, dtype=np.int64),
    "fortran": lambda: np.asfortranarray(np.arange(LARGE // 8, dtype=np.int64).reshape(-1, 64)),
    "strided": lambda: np.arange(LARGE // 4, dtype=np.int64)[::2],
    "empty": lambda: np.empty((0, 3)),
    "structured": lambda: np.zeros(LARGE // 16, dtype=[("a", "i8"), ("b", "f8")]),
    "objects": lambda: np.array([{"a": 1}, None], dtype=object),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_of_every_layout_come_back_writable(path: Path, kind: str) -> None:
    array = ARRAYS[kind]()
    stored = payload.store({"array": array, "again": array}, path)
    payload.verify(path, stored)
    loaded = payload.load(path, stored)
    np.testing.assert_array_equal(loaded["array"], array)
    assert loaded["array"] is loaded["again"]
    assert loaded["array"].flags.writeable


@pytest.fixture
def little_memory() -> Iterator[int]:
    """80 MB of address space beyond what is used now."""
    gc.collect()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + (80 << 20), before[1]))
    yield 80 << 20
    resource.setrlimit(resource.RLIMIT_AS, before)


def test_a_large_array_is_not_copied_when_stored(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    array = np.ones(100 << 20, np.uint8)
    room = request.getfixturevalue("little_memory")
    assert array.nbytes > room
    stored = payload.store(array, tmp_path / "result.pkl")
    payload.verify(tmp_path / "result.pkl", stored)


def test_a_large_array_is_not_copied_when_loaded(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    stored = payload.store(np.ones(60 << 20, np.uint8), tmp_path / "result.pkl")
    room = request.getfixturevalue("little_memory")
    array = payload.load(tmp_path / "result.pkl", stored)
    assert 2 * array.nbytes > room
    assert array[-1] == 1


def test_without_threads_it_is_stored_all_the_same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_more)
    payload.verify(path, payload.store(b"x" * LARGE, path))


def test_storing_plain_data_imports_little(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom localrun.model.pickles import payload\n"
        "heavy = {'cloudpickle', 'hashlib', 'threading', 'localrun.model.pickles.travel', 'pathlib'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "stored = payload.store({'loss': [0.5]}, sys.argv[1])\npayload.load(sys.argv[1], stored)\n"
        "assert not {'cloudpickle', 'localrun.model.pickles.travel'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path / "x"], check=True, timeout=60)
