"""Processes told apart by more than their number, and signalled by more than it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import Home, kill, run_python, start_python, wait_until

from localrun.engine import processes
from localrun.engine.processes import Process


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "1000"]) as child:
        yield child
        child.kill()


def test_a_process_as_it_is(sleeper: subprocess.Popen[bytes]) -> None:
    process = processes.look(sleeper.pid)
    assert process is not None
    assert (process.pid, process.parent, process.zombie) == (sleeper.pid, os.getpid(), False)
    assert process.session == os.getsid(0)
    assert process.start == processes.start_time(sleeper.pid)
    assert processes.snapshot()[sleeper.pid] == process


def test_a_zombie_has_no_start_and_is_in_no_snapshot(sleeper: subprocess.Popen[bytes]) -> None:
    kill(sleeper.pid)
    wait_until(lambda: processes.start_time(sleeper.pid) is None)
    assert sleeper.pid not in processes.snapshot()
    process = processes.look(sleeper.pid)
    assert process is not None
    assert process.zombie


def test_a_pid_of_nobody() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    assert processes.look(child) is None
    assert processes.start_time(child) is None
    assert not processes.is_service(child)
    assert processes.mark_of(child) is None
    assert not processes.signal_pid(child, 1, signal.SIGTERM)


@pytest.mark.parametrize("name", ["plain", "a) R 1 (b", "spaces and (", "new\nline", ") Z 0 0"])
def test_a_command_name_does_not_confuse(name: str) -> None:
    code = "import ctypes, sys; ctypes.CDLL(None).prctl(15, sys.argv[1].encode()); print(flush=True); sys.stdin.read()"
    with start_python(code, name, stdin=-1) as child:
        assert child.stdout is not None
        child.stdout.readline()
        process = processes.look(child.pid)
        assert process is not None
        assert (process.parent, process.zombie) == (os.getpid(), False)
        child.kill()


def test_a_signal_reaches_the_process_that_is_meant_and_no_other(sleeper: subprocess.Popen[bytes]) -> None:
    start = processes.start_time(sleeper.pid)
    assert start is not None
    assert not processes.signal_pid(sleeper.pid, start - 1, signal.SIGKILL)
    assert sleeper.poll() is None
    assert processes.signal_pid(sleeper.pid, start, signal.SIGKILL)
    assert sleeper.wait() == -signal.SIGKILL


def test_descendants() -> None:
    tree = {pid: Process(pid, 0, parent, 0, False) for pid, parent in [(2, 1), (3, 2), (4, 2), (5, 4), (6, 1), (7, 6)]}
    assert processes.descendants([2], tree) == {3, 4, 5}
    assert processes.descendants([1], tree) == {2, 3, 4, 5, 6, 7}
    assert processes.descendants([1], tree, without=lambda pid: pid == 4) == {2, 3, 6, 7}
    assert processes.descendants([5, 6], tree) == {7}
    assert processes.descendants([], tree) == set()


def test_marked_processes_are_found_by_their_whole_mark() -> None:
    with subprocess.Popen(["sleep", "1000"], env={"LOCALRUN_RUN_UID": "abc"}) as marked:
        with subprocess.Popen(["sleep", "1000"], env={"LOCALRUN_RUN_UID": "abcd"}) as other:
            wait_until(lambda: processes.mark_of(other.pid) == "abcd")
            everything = processes.snapshot()
            assert processes.marked("abc", everything) == {marked.pid}
            assert processes.mark_of(marked.pid) == "abc"
            assert processes.mark_of(os.getpid()) is None
            other.kill()
        marked.kill()


def test_a_process_whose_first_thread_has_ended_is_alive(home: Home) -> None:
    """Such a process looks like a zombie in /proc, and goes on."""
    code = """
        import ctypes, threading, time
        def go_on():
            print("on", flush=True)
            time.sleep(1000)
        threading.Thread(target=go_on).start()
        ctypes.CDLL(None).pthread_exit(None)
    """
    with start_python(code) as child:
        assert child.stdout is not None
        child.stdout.readline()
        wait_until(lambda: b") Z " in Path(f"/proc/{child.pid}/stat").read_bytes())
        try:
            assert child.pid in processes.snapshot()
            start = processes.start_time(child.pid)
            assert start is not None
            assert processes.signal_pid(child.pid, start, signal.SIGKILL)
            assert child.wait(10) == -signal.SIGKILL
        finally:
            child.kill()


def test_orphans_come_to_a_subreaper(home: Home) -> None:
    code = """
        import os, signal
        from localrun.engine import processes
        processes.become_subreaper()
        child = os.fork()
        if child == 0:
            grandchild = os.fork()
            if grandchild == 0:
                os.setsid()
                signal.pause()
            os._exit(0)
        os.waitpid(child, 0)
        (orphan,) = processes.descendants([os.getpid()], processes.snapshot())
        os.kill(orphan, signal.SIGKILL)
        assert os.waitpid(-1, 0)[0] == orphan
    """
    assert run_python(code).stderr == ""


def test_the_boot_has_a_name() -> None:
    assert processes.boot_id() == processes.boot_id() != ""
