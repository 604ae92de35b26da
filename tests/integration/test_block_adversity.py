"""Traced blocks in programs that make it hard: signals at any time, forks, no descriptors left, odd streams."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import Home, is_alive, kill, run_python, start_python, wait_until

import localrun
from localrun import RunStatus

STREAMS = """
    import os, sys
    def streams():
        return [os.fstat(fd)[:2] for fd in (1, 2)] + [vars(each).get("write") for each in (sys.stdout, sys.stderr)]
"""


def test_ctrl_c_at_any_moment(home: Home) -> None:
    """The streams are the process's own again, and the records say how it was, wherever the signal comes."""
    script = (
        STREAMS
        + """
    import gc, localrun
    with localrun.run(name="warm"): pass  # a Ctrl-C that comes while Python imports may be lost by Python
    before, count = streams(), 0
    while count < 40:
        try:
            os.write(int(sys.argv[1]), b".")
            while True:
                with localrun.run(name="outer", load=False), localrun.run(name="inner", load=False):
                    print("inside")
        except KeyboardInterrupt:
            assert streams() == before, streams()
            count += 1
    assert gc.isenabled()
    """
    )
    told, tell = os.pipe()
    child = start_python(script, tell, pass_fds=[tell])
    os.close(tell)
    with open(told, "rb", buffering=0) as ready:
        while ready.read(1):
            time.sleep(random.uniform(0, 0.06))
            child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=60)
    assert (child.returncode, errors) == (0, "")
    assert all(run.status.is_terminal() for run in localrun.get_runs(include_deleted=True))


def test_a_handler_that_raises_as_a_block_is_entered(home: Home) -> None:
    script = (
        STREAMS
        + """
    import signal, time, localrun
    class TooLate(Exception): pass
    def late(*_): raise TooLate
    signal.signal(signal.SIGALRM, late)
    with localrun.run(name="x"): pass
    before = streams()
    for delay in range(1, 40):
        signal.setitimer(signal.ITIMER_REAL, delay / 2000)
        try:
            with localrun.run(name="x", load=False):
                while True: time.sleep(0.01)
        except TooLate:
            assert streams() == before
            assert localrun.get_run("x").status.is_terminal()
    """
    )
    run_python(script)


def test_a_generator_that_the_collector_ends_as_a_block_begins(home: Home) -> None:
    script = """
        import gc, localrun
        def rows():
            with localrun.run(name="rows"): yield
        class Holder: pass
        holder = Holder()
        holder.itself, holder.rows = holder, rows()
        next(holder.rows)
        del holder
        gc.set_threshold(1)
        for _ in range(3):
            with localrun.run(name="x"): pass
    """
    run_python(script)
    assert {run.status for run in localrun.get_runs()} == {RunStatus.COMPLETED}


def test_waiting_for_all_children(home: Home) -> None:
    script = """
        import os, localrun
        with localrun.run(name="x"):
            for _ in range(3):
                if os.fork() == 0: os._exit(0)
            count = 0
            try:
                while True:
                    os.wait()
                    count += 1
            except ChildProcessError:
                print(count)
    """
    assert run_python(script).stdout == "3\n"


def test_a_daemon_does_not_hold_up_who_reads_the_output(home: Home) -> None:
    script = """
        import os, time, localrun
        with localrun.run(name="x"):
            pid = os.fork()
            if pid == 0:
                os.setsid()
                null = os.open(os.devnull, os.O_RDWR)
                for fd in (0, 1, 2): os.dup2(null, fd)
                time.sleep(120)
            print(pid)
    """
    daemon = int(run_python(script).stdout)
    try:
        assert is_alive(daemon)
    finally:
        kill(daemon)


def test_no_descriptors_left(home: Home) -> None:
    script = (
        STREAMS
        + """
    import resource, localrun
    with localrun.run(name="warm"): pass
    def descriptors(): return len(os.listdir("/proc/self/fd"))
    before, entered = (streams(), descriptors()), 0
    for limit in range(6, 40):
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, 4096))
        try:
            with localrun.run(name=f"n{limit}", load=False): entered += 1
        except (OSError, localrun.SystemFailureError):
            pass
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 4096))
        assert (streams(), descriptors()) == before, limit
    assert 5 < entered < 34
    with localrun.run(name="last"): print("hello")
    """
    )
    run_python(script, cwd=home.path.parent)  # git is not asked there
    assert localrun.get_run("last").stdout() == "hello\n"
    assert all(run.status.is_terminal() for run in localrun.get_runs())


def test_who_writes_to_dev_stdout_as_to_a_file(home: Home) -> None:
    script = """
        import os, sys, localrun
        with localrun.run(name="x"):
            print("a line that was long")
            sys.stdin.readline()
            os.system("echo short > /dev/stdout")
            sys.stdin.readline()
    """
    child = start_python(script, stdin=subprocess.PIPE)
    assert child.stdout is not None and child.stdin is not None
    assert child.stdout.readline() == "a line that was long\n"
    child.stdin.write("\n")
    child.stdin.flush()
    assert child.stdout.readline() == "short\n"
    child.communicate("\n", timeout=30)


def test_a_pipe_that_does_not_block(home: Home) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    script = """
        import os, localrun
        with localrun.run(name="x"):
            os.write(1, b"x" * 1_000_000)
    """
    child = start_python(script, stdout=writer)
    os.close(writer)
    wait_until(lambda: (home.path / "runs/x/logs/0/rank_0.out").exists())
    with open(reader, "rb") as shown:
        assert len(shown.read()) == 1_000_000
    assert child.wait(60) == 0


def test_streams_that_are_the_users_objects(home: Home) -> None:
    class Bare:
        """What print takes, and no more."""

        def __init__(self) -> None:
            self.text = ""

        def write(self, text: str) -> None:
            self.text += text

    class Broken(Bare):
        def flush(self) -> None:
            raise RuntimeError("not now")

    for place in (Bare(), Broken()):
        with contextlib.redirect_stdout(place), localrun.run(name="x") as run:  # type: ignore[type-var]
            print("hello")
            os.system("echo there")
        assert place.text == "hello\n" and "write" not in vars(place)
        assert run.stdout() == "hello\nthere\n"
        assert os.fstat(1).st_ino != os.stat(f"{run.path}/logs/0/rank_0.out").st_ino


def test_a_descriptor_that_leads_elsewhere_for_a_while(home: Home, tmp_path: Path) -> None:
    script = """
        import os, sys, localrun
        with localrun.run(name="x"):
            for number in range(3):
                print("out", number)
                kept = os.dup(1)
                os.close(1)
                print("err", number, file=sys.stderr)
                os.dup2(kept, 1)
                os.close(kept)
    """
    run_python(script)
    assert localrun.get_run("x").logs() == "".join(f"out {number}\nerr {number}\n" for number in range(3))


def test_an_exception_that_cannot_be_told(home: Home) -> None:
    class SilentError(Exception):
        def __getattribute__(self, name: str) -> object:
            raise ValueError(name)

    error = SilentError()
    try:
        with localrun.run(name="x") as run:
            raise error
    except SilentError:
        pass
    assert (run.status, run.reason, run.exit_code) == (RunStatus.FAILED, "Error", 1)
    assert "SilentError" in run.error


def test_an_outer_block_whose_folder_was_deleted(home: Home) -> None:
    """The program's own exception arrives, with the notes that something could not be written."""
    outer, inner = localrun.run(name="outer"), localrun.run(name="inner")
    with pytest.raises(ValueError, match="mine") as caught, outer, inner:
        shutil.rmtree(outer.path)
        raise ValueError("mine")
    assert [note.split(":")[0] for note in caught.value.__notes__] == ["run inner", "run outer"]
    assert inner.status is RunStatus.FAILED and inner.error == "ValueError: mine"
    first, second = localrun.run(name="first"), localrun.run(name="second")
    first.__enter__()
    second.__enter__()
    shutil.rmtree(second.path)
    with pytest.raises(localrun.SystemFailureError, match="run first: its output"):
        first.__exit__(None, None, None)
    with pytest.raises(localrun.SystemFailureError, match="run second"):
        second.__exit__(None, None, None)
    with localrun.run(name="again") as again:
        print("hello")
    assert again.stdout() == "hello\n"


def test_what_is_half_made_or_empty_is_taken_over(home: Home) -> None:
    for name in ("killed", "killed-sooner"):
        (home.path / "runs" / name).mkdir(parents=True)
    (home.path / "runs" / "killed" / ".lock").touch()
    for name in ("killed", "killed-sooner"):
        with localrun.run(name=name) as run:
            pass
        assert run.refresh().status is RunStatus.COMPLETED
    place = home.path.parent / "empty"
    place.mkdir()
    with localrun.run(name="x", path=place):
        pass
    assert localrun.run(path=place).status is RunStatus.COMPLETED


def test_many_that_enter_one_name_at_once(home: Home) -> None:
    script = """
        import sys, localrun
        try:
            with localrun.run(name="x"):
                print("entered", flush=True)
                sys.stdin.readline()
        except localrun.RunExistsError:
            print("taken", flush=True)
    """
    children = [start_python(script, stdin=subprocess.PIPE) for _ in range(4)]
    said = sorted(child.stdout.readline() for child in children if child.stdout is not None)
    assert said == ["entered\n", "taken\n", "taken\n", "taken\n"]
    for child in children:
        child.communicate("\n", timeout=30)


# -- stopping ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("then", "code"),
    [("raise ValueError(1)", 1), ("sys.exit(7)", 7), ("print('saved')", 0)],
    ids=["raises", "exits", "goes on"],
)
def test_a_stop_decides_whatever_the_block_then_does(home: Home, then: str, code: int) -> None:
    script = f"""
        import sys, time, localrun
        with localrun.run(name="x"):
            try:
                print("ready", flush=True)
                time.sleep(60)
            except KeyboardInterrupt:
                {then}
    """
    child = start_python(script)
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    run = localrun.stop_run("x")
    assert (run.status, run.reason, run.exit_code) == (RunStatus.STOPPED, "StoppedByUser", code)
    child.communicate(timeout=30)


def test_a_block_that_is_stopped_and_then_killed(home: Home) -> None:
    script = """
        import signal, time, localrun
        signal.signal(signal.SIGINT, lambda *_: print("no", flush=True))
        with localrun.run(name="x"):
            print("ready", flush=True)
            time.sleep(60)
    """
    child = start_python(script)
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    run = localrun.get_run("x").stop(timeout=0)
    assert run.status is RunStatus.RUNNING
    assert child.stdout.readline() == "no\n"
    kill(child.pid)
    assert (run.wait(30).status, run.reason) == (RunStatus.STOPPED, "StoppedByUser")


def test_a_background_job_of_a_script_is_stopped(home: Home) -> None:
    """Its shell has it ignore Ctrl-C."""
    (home.path.parent / "block.py").write_text(
        "import time, localrun\nwith localrun.run(name='x'):\n  print('ready', flush=True)\n  time.sleep(60)\n"
    )
    script = f"{sys.executable} {home.path.parent}/block.py & wait"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout is not None and shell.stdout.readline() == "ready\n"
        assert localrun.stop_run("x").status is RunStatus.STOPPED
