"""Functions as runs: calls that block and calls that don't, what comes back, and what goes wrong."""

from __future__ import annotations

import asyncio
import functools
import io
import os
import pickle
import re
import signal
import sys
import time
from pathlib import Path

import pytest
from support import CPUS, Home, is_alive, kill, run_python, start_python, stderr_bytes, stdout_bytes, submit, wait_until

import localrun
from localrun import RunExistsError, RunFailedError, RunStatus, RunStoppedError


@localrun.function
def add(x: int, y: int = 1) -> int:
    return x + y


class TestCalls:
    def test_a_plain_call_is_a_plain_call(self, home: Home) -> None:
        assert add(1) == 2
        assert add(x=1, y=5) == 6
        assert not home.path.exists()
        assert (add.__name__, add.__wrapped__) == ("add", add.fn)

    def test_a_call_with_a_name_is_a_run(self, home: Home) -> None:
        assert add(1, y=5, run_name="run") == 6
        run = localrun.get_run("run")
        assert (run.status, run.run_type, run.fn_name) == (RunStatus.COMPLETED, "FUNCTION", "add")
        assert run.inputs() == {"args": [1], "kwargs": {"y": 5}}
        assert run.result() == 6
        assert run.exit_code == 0
        assert {path.name for path in Path(run.path).iterdir()} == {
            "config.json", "provenance.json", "function.pkl", "inputs.pkl", "result.pkl", "checkpoints", "logs",
            ".lock",
        }  # fmt: skip

    @pytest.mark.parametrize(
        "home",
        ["with spaces 'and' \"quotes\" $HOME `id` \\", "new\nline\t", "ünï-日本語-🏃", "raw\udcff"],
        indirect=True,
    )
    def test_any_home_will_do(self, home: Home) -> None:
        assert [add(i, run_name="run") for i in range(2)] == [1, 2]
        assert add.get_or_call(5) == add.get_or_call(5) == 6
        run = localrun.function(print).run("hello", run_name="talks")
        assert list(run.follow_logs()) == ["hello\n"]
        with pytest.raises(ZeroDivisionError):
            localrun.function(divmod)(1, 0, run_name="fails")
        assert len(localrun.get_runs(include_deleted=True)) == 5
        assert localrun.delete_run("talks").stdout() == "hello\n"

    def test_a_run_without_a_name_gets_one(self, home: Home) -> None:
        run = add.run(1)
        assert re.fullmatch(r"add-[0-9a-f]{6}", run.name)
        assert run.result(30) == 2

    def test_a_name_that_is_active_is_taken(self, home: Home) -> None:
        @localrun.function
        def waits() -> None:
            time.sleep(1000)

        first = waits.run(run_name="run")
        for call in (waits, waits.run):
            with pytest.raises(RunExistsError, match="run"):
                call(run_name="run")
        first.stop()

    def test_a_name_that_has_ended_is_archived_and_replaced(self, home: Home) -> None:
        values = [add(i, run_name="run") for i in range(3)]
        assert values == [1, 2, 3]
        assert localrun.get_run("run").result() == 3
        old = [run for run in localrun.get_runs(include_deleted=True) if run.is_deleted]
        assert sorted(run.result() for run in old) == [1, 2]
        assert [path.name for path in home.runs.iterdir() if not path.name.startswith(".")] == ["run"]

    @pytest.mark.parametrize("name", ["a/b", "", "../x", "ünï", 3, "x" * 129])
    def test_a_bad_name_is_refused(self, home: Home, name: object) -> None:
        with pytest.raises(localrun.RunConfigError, match="name"):
            add(1, run_name=name)
        assert not home.path.exists()

    def test_a_call_that_does_not_fit_is_refused_before_anything_is_made(self, home: Home) -> None:
        with pytest.raises(TypeError):
            add(run_name="run")
        with pytest.raises(TypeError):
            add(1, 2, 3, run_name="run")
        assert not home.path.exists()

    def test_options(self, home: Home) -> None:
        configured = add.options(cpus=0.5, env_variables={"A": "1"}, max_retries=2, compute={"memory": "1MB"})
        run = configured.run(1, run_name="run")
        assert run.result(30) == 2
        assert (run.cpus, run.memory, run.max_retries) == (0.5, 1_000_000, 2)
        assert add.run(1).wait(30).cpus == 1
        with pytest.raises(localrun.RunConfigError, match="did you mean"):
            add.options(cpu=1)
        with pytest.raises(localrun.RunConfigError, match="run_name"):
            localrun.function(lambda run_name: None)

    def test_map(self, home: Home) -> None:
        runs = add.map(range(4), [10, 20, 30, 40])
        assert [run.result(60) for run in runs] == [10, 21, 32, 43]
        assert len({run.name for run in runs}) == 4

    def test_map_into_one_folder_is_refused(self, home: Home, tmp_path: Path) -> None:
        with pytest.raises(localrun.RunConfigError, match="path"):
            add.options(path=str(tmp_path / "there")).map(range(2))
        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize("what", [3, "text", None, [len]], ids=repr)
    def test_what_is_no_function_is_refused(self, what: object) -> None:
        with pytest.raises(localrun.RunConfigError, match="function") as caught:
            localrun.function(cpus=1)(what)  # type: ignore[type-var]
        assert repr(what) in str(caught.value)
        if what is not None:  # which asks for a decorator
            with pytest.raises(localrun.RunConfigError, match="function"):
                localrun.function(what)

    def test_methods(self, home: Home) -> None:
        class Model:
            def __init__(self, factor: int) -> None:
                self.factor = factor

            @localrun.function
            def scale(self, x: int) -> int:
                return self.factor * x

            @localrun.function
            @classmethod
            def named(cls) -> str:
                return cls.__name__

            @staticmethod
            @localrun.function
            def plain(x: int) -> int:
                return -x

        model = Model(3)
        assert model.scale(2) == 6
        assert model.scale(2, run_name="scale") == 6
        assert Model.plain(2, run_name="plain") == -2
        assert localrun.get_run("scale").fn_name.endswith("Model.scale")

    def test_an_async_function(self, home: Home) -> None:
        @localrun.function
        async def later(x: int) -> int:
            await asyncio.sleep(0.01)
            return x + 1

        assert later(1, run_name="run") == 2
        assert asyncio.run(later(1)) == 2

    def test_closures_partials_and_lambdas(self, home: Home) -> None:
        base = 10
        assert localrun.function(lambda x: x + base)(1, run_name="lambda") == 11
        assert localrun.function(functools.partial(pow, 2))(5, run_name="partial") == 32
        assert localrun.function(len)([1, 2], run_name="builtin") == 2

    def test_run_handles_travel(self, home: Home) -> None:
        first = add.run(1)

        @localrun.function(cpus=0)
        def take(run: localrun.Run) -> tuple[int, localrun.Run]:
            return run.result(60) + 1, run

        value, again = take(first, run_name="take")
        assert value == 3
        assert again == first
        assert again.result() == 2

    def test_where_and_as_what_it_runs(self, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        @localrun.function
        def where() -> dict[str, object]:
            return {
                "cwd": os.getcwd(),
                "python": sys.executable,
                "argv": sys.argv,
                "unbuffered": os.environ.get("PYTHONUNBUFFERED"),
                "name": os.environ["RUN_NAME"],
                "cuda": os.environ["CUDA_VISIBLE_DEVICES"],
                "leaked": [key for key in os.environ if key == "LOCALRUN_SYS_PATH"],
                "pid": os.getpid(),
            }

        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
        seen = where(run_name="run")
        assert seen["pid"] != os.getpid()
        assert {key: seen[key] for key in ("cwd", "python", "unbuffered", "name", "cuda", "leaked")} == {
            "cwd": str(tmp_path), "python": sys.executable, "unbuffered": None, "name": "run", "cuda": "", "leaked": [],
        }  # fmt: skip

    def test_a_large_result(self, home: Home) -> None:
        import numpy

        @localrun.function
        def large(n: int) -> object:
            import numpy

            return numpy.arange(n)

        value = large(5_000_000, run_name="run")
        assert (value == numpy.arange(5_000_000)).all()
        value[0] = 7  # writable


class TestOutput:
    def test_it_is_seen_while_it_comes(self, home: Home) -> None:
        """The caller prints each line before the function goes on to the next."""
        os.mkfifo(home.place / "go")
        code = """
            import sys, time
            import localrun
            @localrun.function
            def talks(gate):
                print("first")
                with open(gate) as file:
                    file.readline()
                print("second", file=sys.stderr)
                return "value"
            print("returned", talks(sys.argv[1], run_name="run"))
        """
        child = start_python(code, home.place / "go")
        assert child.stdout is not None
        assert child.stdout.readline() == "first\n"
        assert home.status("run") == "RUNNING"
        (home.place / "go").write_text("go\n")
        out, err = child.communicate(timeout=60)
        assert (out, err) == ("returned value\n", "second\n")

    def test_each_stream_goes_to_its_own(self, home: Home, capsys: pytest.CaptureFixture[str]) -> None:
        @localrun.function
        def talks() -> None:
            print("out")
            print("err", file=sys.stderr)
            print("no end", end="")

        talks(run_name="run")
        captured = capsys.readouterr()
        assert captured.out == "out\nno end"
        assert captured.err == "err\n"

    def test_that_of_subprocesses_and_c_code_is_in_the_logs(self, home: Home) -> None:
        @localrun.function
        def everything() -> None:
            import ctypes
            import subprocess

            print("print", flush=True)
            os.write(1, b"write\n")
            libc = ctypes.CDLL(None)
            libc.puts(b"puts")
            libc.fflush(None)
            subprocess.run(["echo", "subprocess"], check=True)
            os.system("echo system >&2")
            os.write(2, b"\xff\x00\r")

        run = everything.run(run_name="run")
        run.wait(30)
        assert stdout_bytes(run) == b"print\nwrite\nputs\nsubprocess\n"
        assert stderr_bytes(run) == b"system\n\xff\x00\r"

    def test_c_output_that_was_not_flushed_is_there_at_the_end(self, home: Home) -> None:
        @localrun.function
        def puts() -> None:
            import ctypes

            ctypes.CDLL(None).puts(b"buffered by C")

        run = puts.run(run_name="run")
        run.wait(30)
        assert stdout_bytes(run) == b"buffered by C\n"

    def test_prints_without_flush_are_seen_while_the_function_works(self, home: Home) -> None:
        @localrun.function
        def slow() -> None:
            print("hello")
            time.sleep(1000)

        run = slow.run(run_name="run")
        wait_until(lambda: run.refresh().status is RunStatus.RUNNING and run.stdout() == "hello\n")
        run.stop()

    def test_both_streams_are_merged_in_time_order(self, home: Home) -> None:
        @localrun.function
        def alternates() -> None:
            for i in range(6):
                print(i, file=[sys.stdout, sys.stderr][i % 2], flush=True)
                time.sleep(0.12)

        run = alternates.run(run_name="run")
        followed = list(run.follow_logs())
        assert followed == [f"{i}\n" for i in range(6)]
        assert run.logs() == "".join(followed)
        assert list(run.logs()) == followed
        stamped = localrun.get_run_logs(run, timestamps=True)
        times = [line.split(" ")[0] for line in stamped]
        assert times == sorted(times)
        assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", each) for each in times)
        assert [line.split(" ", 1)[1] for line in stamped] == followed

    def test_a_tail(self, home: Home) -> None:
        run = submit("run", "seq 5").wait(30)
        assert localrun.get_run_logs(run, tail=4) == "4\n5\n"
        assert localrun.get_run_logs(run, tail=0) == ""
        assert localrun.get_run_logs(run, tail=1000) == "1\n2\n3\n4\n5\n"
        assert list(localrun.follow_run_logs(run, tail=4)) == ["4\n", "5\n"]

    def test_lines_end_at_newlines_and_nowhere_else(self, home: Home) -> None:
        run = submit("run", r"printf 'a\rb\fc\n\xe2\x80\xa8d\n'").wait(30)
        assert list(localrun.follow_run_logs(run)) == ["a\rb\fc\n", "\u2028d\n"]
        assert list(localrun.get_run_logs(run)) == ["a\rb\fc\n", "\u2028d\n"]

    def test_following_a_run_from_its_queue_to_its_end(self, home: Home) -> None:
        blocker = submit("blocker", "sleep 0.3", cpus=CPUS)
        run = submit("run", "for i in 1 2 3; do echo $i; sleep 0.1; done; printf end", cpus=CPUS)
        assert list(localrun.follow_run_logs("run")) == ["1\n", "2\n", "3\n", "end"]
        assert run.refresh().status is RunStatus.COMPLETED
        assert blocker.wait(1).status is RunStatus.COMPLETED

    def test_a_run_that_was_started_again_and_waits_has_a_new_log(self, home: Home) -> None:
        run = submit("run", "echo $RESUMPTION_INDEX; echo e$RESUMPTION_INDEX >&2", cpus=CPUS).wait(30)
        blocker = submit("blocker", "sleep 1000", cpus=CPUS)
        wait_until(lambda: home.status("blocker") == "RUNNING")
        run.start()
        assert localrun.get_run_logs("run") == run.logs() == ""
        assert localrun.get_run_logs("run", timestamps=True) == run.logs(stream="stdout") == ""
        assert localrun.get_run_logs("run", resumption=1) == ""
        assert localrun.get_run_logs("run", resumption=0, stream="stdout") == "0\n"
        with pytest.raises(localrun.RunConfigError, match="0 to 1"):
            localrun.get_run_logs("run", resumption=2)
        with pytest.raises(TimeoutError):
            next(localrun.follow_run_logs("run", timeout=0.1))
        following, former = localrun.follow_run_logs("run"), run.follow_logs(resumption=0)
        assert sorted(former) == ["0\n", "e0\n"]
        blocker.stop()
        assert sorted(following) == ["1\n", "e1\n"]
        assert run.wait(30).logs(stream="stderr") == "e1\n"

    def test_a_followed_run_that_is_stopped(self, home: Home) -> None:
        run = submit("run", "echo up; sleep 1000")
        lines = localrun.follow_run_logs("run")
        assert next(lines) == "up\n"
        run.stop()
        assert list(lines) == []

    def test_following_times_out_on_a_silent_run(self, home: Home) -> None:
        run = submit("run", "sleep 1000")
        with pytest.raises(TimeoutError):
            list(localrun.follow_run_logs("run", timeout=0.3))
        run.stop()

    def test_resumptions_and_streams_are_chosen(self, home: Home) -> None:
        run = submit("run", "echo $RESUMPTION_INDEX; echo e >&2; [ $RESUMPTION_INDEX = 1 ]", max_retries=1).wait(30)
        assert localrun.get_run_logs(run, resumption=0, stream="stdout") == "0\n"
        assert localrun.get_run_logs(run, stream="stdout") == "1\n"
        assert localrun.get_run_logs(run, stream="stderr") == "e\n"
        for bad in ({"resumption": 2}, {"resumption": -1}, {"stream": "out"}, {"rank": 1}, {"rank": 0, "node_rank": 1}):
            with pytest.raises(localrun.RunConfigError):
                localrun.get_run_logs(run, **bad)


class CustomError(Exception):
    """An exception of the user's own, with state."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail

    def __reduce__(self):  # type: ignore[no-untyped-def]
        return CustomError, (self.code, self.detail)


class TestErrors:
    def test_its_own_exception_is_raised_with_its_traceback(self, home: Home) -> None:
        @localrun.function
        def fails(x: int) -> float:
            return 1 / x

        with pytest.raises(ZeroDivisionError) as caught:
            fails(0, run_name="run")
        cause = str(caught.value.__cause__)
        assert "return 1 / x" in cause
        assert "test_functions.py" in cause
        run = localrun.get_run("run")
        assert (run.status, run.reason, run.exit_code, run.failed_rank) == (RunStatus.FAILED, "Error", 1, 0)
        assert run.error == "ZeroDivisionError: division by zero"
        assert "return 1 / x" in run.error_traceback
        assert "ZeroDivisionError" in run.stderr()
        assert isinstance(run.exception(), ZeroDivisionError)

    def test_a_class_of_the_users_own_is_that_class(self, home: Home) -> None:
        @localrun.function
        def fails() -> None:
            raise CustomError(7, "seven")

        with pytest.raises(CustomError) as caught:
            fails(run_name="run")
        assert (caught.value.code, caught.value.detail) == (7, "seven")

    def test_an_exception_group_and_a_chain(self, home: Home) -> None:
        @localrun.function
        def fails() -> None:
            try:
                raise KeyError("inner")
            except KeyError as error:
                raise ExceptionGroup("several", [ValueError("one"), TypeError("two")]) from error

        with pytest.raises(ExceptionGroup) as caught:
            fails(run_name="run")
        assert len(caught.value.exceptions) == 2
        assert "KeyError: 'inner'" in str(caught.value.__cause__)

    def test_an_exception_that_cannot_be_pickled(self, home: Home) -> None:
        @localrun.function
        def fails() -> None:
            error = ValueError("has a lock")
            error.lock = __import__("threading").Lock()  # type: ignore[attr-defined]
            raise error

        with pytest.raises(RunFailedError) as caught:
            fails(run_name="run")
        assert "ValueError: has a lock" in str(caught.value)
        assert "logs/0" in str(caught.value)

    def test_a_result_that_cannot_be_pickled(self, home: Home) -> None:
        @localrun.function
        def returns_lock() -> object:
            import threading

            return threading.Lock()

        run = returns_lock.run(run_name="run")
        run.wait(30)
        assert (run.status, run.reason) == (RunStatus.FAILED, "Error")
        assert "result" in run.message
        assert "pickle" in run.message
        with pytest.raises(localrun.LocalrunError, match="pickle"):
            run.result()
        assert not Path(run.path, "result.pkl").exists()

    def test_inputs_that_cannot_be_pickled_are_refused_at_once(self, home: Home) -> None:
        import threading

        with pytest.raises(localrun.PayloadError):
            add(threading.Lock(), run_name="run")
        assert not (home.runs / "run").exists()

    @pytest.mark.parametrize(
        ("code", "exit_code"), [("0", 0), ("1", 1), ("3", 3), ("256 + 7", 7), ("-1", 255), ("None", 0), ("'text'", 1)]
    )
    def test_sys_exit_returned_nothing(self, home: Home, code: str, exit_code: int) -> None:
        @localrun.function
        def leaves(code: str) -> None:
            sys.exit(eval(code))

        run = leaves.run(code, run_name="run")
        run.wait(30)
        assert (run.status, run.reason, run.exit_code) == (RunStatus.FAILED, "Error", exit_code)
        assert "returned nothing" in run.message
        with pytest.raises(RunFailedError, match="sys"):
            run.result()

    @pytest.mark.parametrize("code", [0, 3])
    def test_os_exit_returned_nothing(self, home: Home, code: int) -> None:
        @localrun.function
        def leaves(code: int) -> None:
            print("leaving")
            sys.stdout.flush()
            os._exit(code)

        run = leaves.run(code, run_name="run")
        run.wait(30)
        assert (run.status, run.reason, run.exit_code) == (RunStatus.FAILED, "Error", code)
        with pytest.raises(RunFailedError, match="returned nothing"):
            run.result()
        assert run.stdout() == "leaving\n"

    @pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
    def test_a_crash_names_its_signal(self, home: Home, number: signal.Signals) -> None:
        @localrun.function
        def crashes(number: int) -> None:
            os.kill(os.getpid(), number)
            time.sleep(10)

        with pytest.raises(RunFailedError, match=number.name):
            crashes(int(number), run_name="run")
        run = localrun.get_run("run")
        assert (run.reason, run.exit_code, run.signal) == ("Killed", 128 + number, number.name)

    def test_a_keyboard_interrupt_inside_is_a_failure(self, home: Home) -> None:
        @localrun.function
        def interrupted() -> None:
            raise KeyboardInterrupt

        with pytest.raises(RunFailedError, match="KeyboardInterrupt"):
            interrupted(run_name="run")

    def test_recursion_and_memory(self, home: Home) -> None:
        @localrun.function
        def deep(n: int) -> int:
            return deep.fn(n + 1)

        with pytest.raises(RecursionError):
            deep(0, run_name="run")

    def test_a_stopped_one(self, home: Home) -> None:
        @localrun.function
        def waits() -> None:
            time.sleep(1000)

        run = waits.run(run_name="run")
        wait_until(lambda: home.status("run") == "RUNNING")
        run.stop()
        with pytest.raises(RunStoppedError):
            run.result()

    def test_the_interpreter_is_gone(self, home: Home) -> None:
        """It is that of the submission, by its path."""
        import venv

        venv.create(home.place / "venv", symlinks=True)
        (site,) = (home.place / "venv").glob("lib/python*/site-packages")
        (site / "all.pth").write_text("\n".join(path for path in sys.path if "site-packages" in path))
        code = """
            import localrun
            from localrun import RunConfig
            blocker = localrun.create_run(RunConfig(name="blocker", command="sleep 1000", compute={"cpus": 1}))
            localrun.function(len, cpus=len(__import__("os").sched_getaffinity(0))).run([], run_name="run")
        """.replace("localrun.function(len, cpus=", "localrun.function(len).options(cpus=")
        import subprocess
        import textwrap

        subprocess.run([home.place / "venv/bin/python", "-c", textwrap.dedent(code)], check=True)
        for path in (home.place / "venv/bin").iterdir():
            path.unlink()
        localrun.stop_run("blocker")
        run = localrun.get_run("run").wait(30)
        assert (run.status, run.reason) == (RunStatus.FAILED, "FailedToStart")
        assert str(home.place / "venv/bin/python") in run.message

    def test_a_killed_worker(self, home: Home) -> None:
        @localrun.function
        def forks() -> None:
            import subprocess

            child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
            print(child.pid, flush=True)
            child.wait()

        run = forks.run(run_name="run")
        pid = int(wait_until(lambda: run.refresh().status is RunStatus.RUNNING and run.stdout()))
        kill(home.rank("run"))
        run.wait(30)
        assert (run.status, run.reason, run.signal) == (RunStatus.FAILED, "Killed", "SIGKILL")
        assert not is_alive(pid)


class TestInterrupt:
    def test_ctrl_c_in_a_blocking_call_stops_the_run(self, home: Home) -> None:
        code = """
            import signal, sys, time
            import localrun
            signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background
            @localrun.function
            def waits():
                print("up", flush=True)
                time.sleep(1000)
            try:
                waits(run_name="run")
            except KeyboardInterrupt:
                print("interrupted")
        """
        child = start_python(code, start_new_session=True)
        assert child.stdout is not None
        assert child.stdout.readline() == "up\n"
        os.killpg(child.pid, signal.SIGINT)
        assert child.communicate(timeout=60)[0] == "interrupted\n"
        record = home.record("run")
        assert (record["status"], record["reason"]) == ("STOPPED", "StoppedByUser")
        assert "Ctrl-C" in record["message"]


PROJECT = """
import localrun
import helper

VERSION = "old"

@localrun.function
def version():
    import lazy
    return VERSION, helper.version(), lazy.VERSION
"""


class TestCodeOfNow:
    def test_a_queued_function_runs_the_code_as_it_was_when_submitted(self, home: Home, tmp_path: Path) -> None:
        project = tmp_path / "project"
        project.mkdir()
        files = {
            "main.py": PROJECT,
            "helper.py": "def version():\n    return 'old'\n",
            "lazy.py": "VERSION = 'old'\n",
        }
        for name, text in files.items():
            (project / name).write_text(text)
        blocker = submit("blocker", "sleep 1000", cpus=CPUS)
        run_python("import main; main.version.run(run_name='run')", cwd=str(project))
        for name, text in files.items():
            (project / name).write_text(text.replace("old", "newer"))  # of the same size, its old .pyc may be taken
        blocker.stop()
        run = localrun.get_run("run")
        assert run.result(30) == ("old", "old", "old")
        run_python("import main; main.version(run_name='run')", cwd=str(project))
        assert localrun.get_run("run").result(30) == ("newer", "newer", "newer")

    def test_nor_does_it_need_the_project_any_more(self, home: Home, tmp_path: Path) -> None:
        import shutil

        project = tmp_path / "project"
        project.mkdir()
        (project / "main.py").write_text(PROJECT)
        (project / "helper.py").write_text("def version():\n    return 'old'\n")
        (project / "lazy.py").write_text("VERSION = 'old'\n")
        blocker = submit("blocker", "sleep 1000", cpus=CPUS)
        run_python(
            "import sys; sys.path.insert(0, sys.argv[1]); import main; main.version.run(run_name='run')", project
        )
        shutil.rmtree(project)
        blocker.stop()
        assert localrun.get_run("run").result(30) == ("old", "old", "old")

    @pytest.mark.parametrize("name", ["plain", "with space", "quo'te\"", "ünï", "new\nline"])
    def test_a_project_may_lie_anywhere(self, home: Home, tmp_path: Path, name: str) -> None:
        project = tmp_path / name
        project.mkdir()
        (project / "main.py").write_text(PROJECT + "\nif __name__ == '__main__':\n    print(version(run_name='run'))\n")
        (project / "helper.py").write_text("def version():\n    return 'old'\n")
        (project / "lazy.py").write_text("VERSION = 'old'\n")
        import subprocess

        done = subprocess.run([sys.executable, "main.py"], cwd=project, capture_output=True, text=True, check=False)
        assert done.stdout == "('old', 'old', 'old')\n", done.stderr

    def test_a_script_that_changes_its_folder_first(
        self, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """localrun itself was imported from a relative entry of the path, which then means another folder."""
        from support import REPOSITORY

        monkeypatch.delenv("PYTHONPATH")
        code = """
            import os, sys
            sys.path[:] = ["", *[path for path in sys.path if path not in ("", os.getcwd())]]
            import localrun
            os.chdir(sys.argv[1])
            print(localrun.function(len)([1, 2], run_name="run"))
        """
        assert run_python(code, tmp_path, cwd=str(REPOSITORY)).stdout == "2\n"


def test_everything_works_with_warnings_as_errors(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    code = """
        import localrun
        @localrun.function
        def add(x):
            return x + 1
        print(add(1, run_name="run"), add.get_or_call(1, run_name="run"))
    """
    done = run_python(code)
    assert (done.stdout, done.stderr) == ("2 2\n", "")
    assert "rror" not in (home.path / "dispatcher.log").read_text() if (home.path / "dispatcher.log").exists() else True


def test_a_caller_with_streams_of_its_own(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a notebook."""
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert talk(1, run_name="run") == 2
    assert (sys.stdout.getvalue(), sys.stderr.getvalue()) == ("out\n", "err\n")


@localrun.function
def talk(x: int) -> int:
    print("out")
    print("err", file=sys.stderr)
    return x + 1


@pytest.mark.parametrize("names", [["stdout"], ["stderr"], ["stdout", "stderr"]], ids="+".join)
@pytest.mark.parametrize("lost", ["closed", "None"])
def test_a_caller_that_lost_its_streams(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], names: list[str], lost: str
) -> None:
    """As under pythonw, or a daemon that closed them. What is left of them shows its part."""
    for name in names:
        stream = io.StringIO()
        stream.close()
        monkeypatch.setattr(sys, name, stream if lost == "closed" else None)
    assert talk(1, run_name="run") == 2
    monkeypatch.undo()  # the run's own are whole in any case
    run = localrun.run(path=home.runs / "run")
    assert (run.stdout(), run.stderr()) == ("out\n", "err\n")
    captured = capsys.readouterr()
    assert captured.out == ("" if "stdout" in names else "out\n")
    assert captured.err == ("" if "stderr" in names else "err\n")


@pytest.mark.parametrize("lost", [">&- 2>&-", "<&- >&- 2>&-", ">/dev/full 2>/dev/full", "2>/dev/full | true"])
def test_a_caller_whose_descriptors_lead_nowhere(home: Home, tmp_path: Path, lost: str) -> None:
    """It goes on to the run's end, and gets its value."""
    import subprocess

    (tmp_path / "caller.py").write_text("""
import os, sys
import localrun

@localrun.function
def talks(x):
    for i in range(3):
        print("out", i, flush=True)
        print("err", i, file=sys.stderr)
    return x + 1

with open(sys.argv[1], "w") as file:
    print(talks(1, run_name="run"), file=file)
os._exit(0)  # without the interpreter's own complaint of what it can't flush
""")
    value = tmp_path / "value"
    command = f"'{sys.executable}' '{tmp_path}/caller.py' '{value}' {lost}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("", "")
    assert value.read_text() == "2\n"
    assert localrun.get_run("run").stdout() == "out 0\nout 1\nout 2\n"


def test_functions_pickle(home: Home) -> None:
    assert pickle.loads(pickle.dumps(add)).options(cpus=1)(1) == 2
