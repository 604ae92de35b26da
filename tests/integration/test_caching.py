"""A value that was made once: found again by name or by what made it, made anew when it has to be."""

from __future__ import annotations

import dataclasses
import os
import time
import warnings
from pathlib import Path

import pytest
from support import CPUS, Home, run_python, submit, wait_until

import localrun
from localrun import CacheMismatchError, CacheMismatchWarning, RunStatus


@pytest.fixture
def counter(home: Home, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = home.place / "counter"
    path.touch()
    monkeypatch.setenv("COUNTER", str(path))
    return path


def count(path: Path) -> int:
    return len(path.read_text())


@localrun.function
def square(x: int, scale: float = 1) -> float:
    with open(os.environ["COUNTER"], "a") as file:
        file.write("x")
    return scale * x * x


@pytest.fixture(autouse=True)
def _home(home: Home, counter: Path) -> None:
    pass


class TestNamed:
    def test_made_once(self, counter: Path) -> None:
        assert [square.get_or_call(3, run_name="run") for _ in range(3)] == [9, 9, 9]
        assert count(counter) == 1

    def test_as_a_run(self, counter: Path) -> None:
        run = square.get_or_run(3, run_name="run")
        assert run.result(30) == 9
        assert square.get_or_run(3, run_name="run") == run
        assert count(counter) == 1

    def test_an_active_one_is_joined(self, home: Home, counter: Path) -> None:
        blocker = submit("blocker", "sleep 1000", cpus=CPUS)
        first = square.get_or_run(3, run_name="run")
        assert square.get_or_run(3, run_name="run") == first
        blocker.stop()
        assert square.get_or_call(3, run_name="run") == 9
        assert count(counter) == 1

    def test_one_that_failed_is_made_again(self, counter: Path) -> None:
        @localrun.function
        def second_time() -> int:
            with open(os.environ["COUNTER"], "a+") as file:
                file.write("x")
                file.seek(0)
                if len(file.read()) == 1:
                    raise ValueError("first")
            return 7

        with pytest.raises(ValueError, match="first"):
            second_time.get_or_call(run_name="run")
        assert second_time.get_or_call(run_name="run") == 7
        assert second_time.get_or_call(run_name="run") == 7
        assert count(counter) == 2

    def test_one_that_was_stopped_is_made_again(self, home: Home, counter: Path) -> None:
        blocker = submit("blocker", "sleep 1000", cpus=CPUS)
        square.get_or_run(3, run_name="run").stop()
        blocker.stop()
        assert square.get_or_call(3, run_name="run") == 9

    def test_whoever_joined_gets_the_error_too(self, home: Home, counter: Path) -> None:
        @localrun.function
        def fails() -> None:
            raise KeyError("shared")

        blocker = submit("blocker", "sleep 1000", cpus=CPUS)
        fails.get_or_run(run_name="run")
        joined = fails.get_or_run(run_name="run")
        blocker.stop()
        with pytest.raises(KeyError, match="shared"):
            joined.result(30)

    def test_a_cached_value_needs_no_dispatcher(self, home: Home, counter: Path) -> None:
        square.get_or_call(3, run_name="run")
        wait_until(lambda: home.dispatcher() is None)
        assert square.get_or_call(3, run_name="run") == 9
        assert home.dispatcher() is None

    def test_a_cached_value_of_another_process(self, home: Home, counter: Path) -> None:
        (home.place / "project.py").write_text(
            "import os\nimport localrun\n@localrun.function\ndef f(x):\n"
            "    with open(os.environ['COUNTER'], 'a') as file:\n        file.write('x')\n    return {'x': x}\n"
        )
        code = "import sys; sys.path.insert(0, sys.argv[1]); import project; print(project.f.get_or_call({1, 2, 'a'}))"
        first, second = (run_python(code, home.place).stdout for _ in range(2))
        assert eval(first) == eval(second) == {"x": {1, 2, "a"}}
        assert count(counter) == 1


class TestUnnamed:
    def test_the_key_is_what_it_is_made_of(self, counter: Path) -> None:
        assert square.get_or_call(3) == square.get_or_call(x=3) == square.get_or_call(3, 1) == 9
        assert count(counter) == 1
        assert square.get_or_call(4) == 16
        assert count(counter) == 2
        (newest, oldest) = localrun.get_runs()
        assert newest.name.startswith("square-")
        assert newest.name != oldest.name

    def test_types_count(self, counter: Path) -> None:
        for x in (1, 1.0, True):
            square.get_or_call(x)
        assert count(counter) == 3

    def test_functions_that_look_alike_are_told_apart(self, counter: Path) -> None:
        def make(factor: int) -> localrun.Function[[int], int]:
            @localrun.function
            def multiply(x: int) -> int:
                return x * factor

            return multiply

        assert [make(i).get_or_call(5) for i in (2, 3, 2)] == [10, 15, 10]
        assert len(localrun.get_runs()) == 2

    def test_dataclasses_and_arrays(self, counter: Path) -> None:
        import numpy

        @localrun.function
        def total(config: Config, data: object) -> float:
            with open(os.environ["COUNTER"], "a") as file:
                file.write("x")
            return config.scale * float(data.sum())  # type: ignore[attr-defined]

        for _ in range(2):
            assert total.get_or_call(Config(2.0, {"a": [1]}), numpy.arange(10.0)) == 90
        assert count(counter) == 1
        assert total.get_or_call(Config(2.0, {"a": [1]}), numpy.arange(10.0, dtype="f4")) == 90
        assert total.get_or_call(Config(2.0, {"a": [2]}), numpy.arange(10.0)) == 90
        assert count(counter) == 3

    def test_inputs_without_content_are_refused(self, counter: Path) -> None:
        import threading

        with pytest.raises(localrun.PayloadError, match="x"):
            square.get_or_call(threading.Lock())


@dataclasses.dataclass
class Config:
    scale: float
    extra: dict[str, list[int]]


class TestMismatch:
    def test_warn_returns_it_with_a_warning(self, counter: Path) -> None:
        square.get_or_call(3, run_name="run")
        with pytest.warns(CacheMismatchWarning, match="inputs") as caught:
            assert square.get_or_call(4, run_name="run") == 9
        assert [each.filename for each in caught] == [__file__]
        with pytest.warns(CacheMismatchWarning) as caught:
            square.get_or_run(4, run_name="run")
        assert [each.filename for each in caught] == [__file__]

    def test_ignore_returns_it(self, counter: Path) -> None:
        square.get_or_call(3, run_name="run")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert square.options(on_mismatch="ignore").get_or_call(4, run_name="run") == 9

    def test_error_raises(self, counter: Path) -> None:
        square.get_or_call(3, run_name="run")
        with pytest.raises(CacheMismatchError, match="inputs") as caught:
            square.options(on_mismatch="error").get_or_call(4, run_name="run")
        assert caught.value.status == 409
        assert count(counter) == 1

    def test_rerun_makes_it_anew(self, counter: Path) -> None:
        square.get_or_call(3, run_name="run")
        rerun = square.options(on_mismatch="rerun")
        assert rerun.get_or_call(4, run_name="run") == 16
        assert rerun.get_or_call(4, run_name="run") == 16
        assert count(counter) == 2
        assert len(localrun.get_runs(include_deleted=True)) == 2

    def test_rerun_waits_for_one_that_is_at_work(self, home: Home, counter: Path) -> None:
        blocker = submit("blocker", "sleep 1000", cpus=CPUS)
        first = square.get_or_run(3, run_name="run")
        promise = localrun.wait_for_run_status(first, "RUNNING", future=True)
        blocker.stop()
        assert square.options(on_mismatch="rerun").get_or_call(4, run_name="run") == 16
        promise.result(30)
        assert first.run_uid in [run.run_uid for run in localrun.get_runs(include_deleted=True)]

    def test_other_code(self, counter: Path) -> None:
        def version(text: str) -> localrun.Function[[], str]:
            names: dict[str, object] = {"__name__": "__main__"}
            exec(f"def f():\n    return {text!r}", names)
            return localrun.function(names["f"])  # type: ignore[call-overload, no-any-return]

        assert version("one").get_or_call(run_name="run") == "one"
        with pytest.warns(CacheMismatchWarning, match="code"):
            assert version("two").get_or_call(run_name="run") == "one"
        with pytest.raises(CacheMismatchError, match="code"):
            version("two").options(on_mismatch="error").get_or_call(run_name="run")
        assert version("two").options(on_mismatch="rerun").get_or_call(run_name="run") == "two"

    def test_a_command_of_that_name(self, home: Home, counter: Path) -> None:
        submit("run", "true").wait(30)
        with pytest.raises(CacheMismatchError):
            square.options(on_mismatch="error").get_or_call(3, run_name="run")
        assert square.options(on_mismatch="rerun").get_or_call(3, run_name="run") == 9

    def test_an_unknown_policy(self) -> None:
        with pytest.raises(localrun.RunConfigError, match="on_mismatch"):
            square.options(on_mismatch="sometimes")


class TestDamage:
    @pytest.mark.parametrize("damage", ["missing", "empty", "cut short", "altered", "longer"])
    def test_a_damaged_result_is_never_returned(self, counter: Path, damage: str) -> None:
        square.get_or_call(3, run_name="run")
        path = Path(localrun.get_run("run").path, "result.pkl")
        data = bytearray(path.read_bytes())
        if damage == "missing":
            path.unlink()
        elif damage == "empty":
            path.write_bytes(b"")
        elif damage == "cut short":
            path.write_bytes(data[:-1])
        elif damage == "altered":
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
        else:
            path.write_bytes(data + b"x")
        with pytest.raises(localrun.ResultUnavailableError, match="result"):
            localrun.get_run("run").result()
        try:
            assert square.get_or_call(3, run_name="run") == 9
        except localrun.ResultUnavailableError as error:
            assert "result.pkl" in str(error)
            assert count(counter) == 1
        else:
            assert count(counter) == 2
        assert square(3, run_name="run") == 9

    def test_a_broken_record(self, counter: Path) -> None:
        square.get_or_call(3, run_name="run")
        path = Path(localrun.get_run("run").path, "config.json")
        path.write_text("{")
        with pytest.raises(localrun.LocalrunError, match="config"):
            square.get_or_call(3, run_name="run")
        assert path.read_text() == "{"

    def test_leftovers_of_a_killed_worker_are_no_result(self, home: Home, counter: Path) -> None:
        @localrun.function
        def writes() -> None:
            with open(os.path.join(os.environ["LOCALRUN_RUN_DIR"], "result.pkl"), "wb") as file:
                file.write(b"half a res")
            os.kill(os.getpid(), 9)

        run = writes.run(run_name="run")
        with pytest.raises(localrun.RunFailedError):
            run.result(30)
        assert run.status is RunStatus.FAILED


def test_a_hit_is_quick(home: Home, counter: Path) -> None:
    square.get_or_call(3, run_name="run")
    start = time.monotonic()
    for _ in range(20):
        square.get_or_call(3, run_name="run")
    assert time.monotonic() - start < 2
