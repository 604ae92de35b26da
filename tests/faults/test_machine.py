"""What a machine does to its processes: it reboots, reuses numbers, runs out of things."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import CPUS, Home, execute, is_alive, kill, record_of, run_python, start_python, submit, wait_until

import localrun
from localrun import RunStatus


def change_record(path: str, **fields: Any) -> None:
    """Write a record as if it had been written so."""
    record = record_of(path) | fields
    temporary = Path(path, "changed")
    temporary.write_text(json.dumps(record))
    temporary.rename(Path(path, "config.json"))


@pytest.fixture
def innocent() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with it, in a session of its own."""
    with subprocess.Popen(["sleep", "1000"], start_new_session=True, env={}) as child:
        yield child
        child.kill()


def start_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def kill_everything(home: Home, name: str) -> None:
    """As a power cut does."""
    victims = [home.dispatcher(), home.supervisor(name), home.rank(name)]
    for pid in victims:
        kill(pid)
    wait_until(lambda: not any(is_alive(pid) for pid in victims if pid))
    wait_until(lambda: not home.processes())


class TestReboot:
    """The numbers in the record mean other processes by now."""

    def test_a_run_is_failed_and_nobody_else_is_killed(self, home: Home, innocent: subprocess.Popen[bytes]) -> None:
        run = submit("run", "exec sleep 1000", cpus=CPUS)
        behind = submit("behind", "true", cpus=CPUS)
        wait_until(lambda: home.status("run") == "RUNNING")
        kill_everything(home, "run")
        other = {"pid": innocent.pid, "start": start_of(innocent.pid)}
        change_record(run.path, supervisor={**other, "boot_id": "of an earlier boot"}, ranks=[{"rank": 0, **other}])
        run.wait(30)
        assert (run.status, run.reason) == (RunStatus.FAILED, "SystemFailure")
        assert behind.wait(30).status is RunStatus.COMPLETED
        assert innocent.poll() is None

    def test_a_run_that_is_retried_on_system_failures_is_tried_again(self, home: Home) -> None:
        run = submit("run", "[ $RESUMPTION_INDEX = 1 ] || exec sleep 1000", retry_on_system_failure=True)
        wait_until(lambda: home.status("run") == "RUNNING")
        kill_everything(home, "run")
        change_record(run.path, supervisor={**record_of(run.path)["supervisor"], "boot_id": "of an earlier boot"})
        assert run.wait(30).status is RunStatus.COMPLETED

    @pytest.mark.parametrize("who", ["supervisor", "ranks"])
    def test_a_number_that_is_somebody_elses_by_now(
        self, home: Home, innocent: subprocess.Popen[bytes], who: str
    ) -> None:
        run = submit("run", "exec sleep 1000")
        wait_until(lambda: home.status("run") == "RUNNING")
        kill_everything(home, "run")
        record = record_of(run.path)
        reused = {"pid": innocent.pid, "start": start_of(innocent.pid) - 1}
        if who == "supervisor":
            change_record(run.path, supervisor={**record["supervisor"], **reused})
        else:
            change_record(run.path, ranks=[{"rank": 0, **reused}])
        run.stop(timeout=30)
        assert run.status in (RunStatus.FAILED, RunStatus.STOPPED)
        assert innocent.poll() is None


class TestFolders:
    def test_a_queued_run_whose_folder_is_removed_is_nobodys_concern(self, home: Home) -> None:
        blocker = submit("blocker", "sleep 1000", cpus=CPUS)
        gone = submit("gone", "true", cpus=CPUS)
        behind = submit("behind", "true", cpus=CPUS)
        wait_until(lambda: home.status("blocker") == "RUNNING")
        shutil.rmtree(gone.path)
        blocker.stop()
        assert behind.wait(30).status is RunStatus.COMPLETED
        wait_until(lambda: home.tickets() == [])
        with pytest.raises(localrun.RunNotFoundError):
            gone.refresh()

    def test_a_queued_run_whose_folder_is_another_runs_by_now(self, home: Home) -> None:
        blocker = submit("blocker", "sleep 1000", cpus=CPUS)
        submit("run", "echo first", cpus=CPUS)
        shutil.rmtree(home.runs / "run")
        second = submit("run", "echo second", cpus=CPUS)
        blocker.stop()
        assert second.wait(30).stdout() == "second\n"
        assert len(second.resumptions) == 1
        wait_until(lambda: home.tickets() == [])

    def test_an_active_run_whose_folder_is_removed_ends(self, home: Home) -> None:
        run = submit("run", "sleep 0.3", cpus=CPUS)
        wait_until(lambda: home.status("run") == "RUNNING")
        shutil.rmtree(run.path)
        assert execute("behind", "true", cpus=CPUS).status is RunStatus.COMPLETED

    def test_a_ticket_that_is_damaged_stops_nobody_else(self, home: Home) -> None:
        blocker = submit("blocker", "sleep 1000", cpus=CPUS)
        wait_until(lambda: home.status("blocker") == "RUNNING")
        run = submit("run", "true", cpus=CPUS)
        (name,) = home.tickets("waiting")
        path = home.queue / "waiting" / name
        kill(home.dispatcher())
        path.unlink()
        path.write_text("{")
        behind = submit("behind", "true", cpus=CPUS)
        blocker.stop()
        assert behind.wait(30).status is RunStatus.COMPLETED
        assert "damaged" in (home.path / "dispatcher.log").read_text()
        assert run.stop().status is RunStatus.STOPPED

    def test_a_folder_that_appears_while_it_is_looked_for(self, home: Home) -> None:
        """It gets its name by one rename: it is a run, or it isn't there."""
        import threading

        path = Path(execute("run", "true").path)
        stop = threading.Event()

        def come_and_go() -> None:
            while not stop.is_set():
                path.rename(path.with_name("elsewhere"))
                path.with_name("elsewhere").rename(path)

        thread = threading.Thread(target=come_and_go)
        thread.start()
        try:
            for _ in range(10_000):
                try:
                    localrun.run(path=path)
                except localrun.RunNotFoundError:
                    continue
        finally:
            stop.set()
            thread.join()


class TestScarcity:
    def test_without_a_file_watch_left_everything_works(self, home: Home) -> None:
        """A user may have so many inotify instances, 128 by default, and other programs take them."""
        libc = ctypes.CDLL(None)
        taken = []
        while (fd := libc.inotify_init1(0)) >= 0:
            taken.append(fd)
            if len(taken) > 4096:
                for fd in taken:
                    os.close(fd)
                pytest.skip("this machine has more than can be used up")
        try:
            code = """
                import sys
                import localrun
                from localrun import RunConfig, create_run
                @localrun.function
                def talks(x):
                    print("out")
                    print("err", file=sys.stderr)
                    return x + 1
                print(talks(1, run_name="function"))
                run = create_run(RunConfig(name="run", command="for i in 1 2 3; do echo $i; sleep 0.1; done"))
                print(list(localrun.follow_run_logs(run)))
                long = create_run(RunConfig(name="long", command="sleep 1000"))
                print(localrun.wait_for_run_status(long, "RUNNING").stop().status)
            """
            done = run_python(code)
        finally:
            for fd in taken:
                os.close(fd)
        assert done.stdout == "out\n2\n['1\\n', '2\\n', '3\\n']\nSTOPPED\n"
        assert done.stderr == "err\n"

    def test_more_active_runs_than_descriptors(self, home: Home) -> None:
        code = """
            import resource
            resource.setrlimit(resource.RLIMIT_NOFILE, (32, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
            from localrun import RunConfig, create_run
            for i in range(40):
                create_run(RunConfig(name=f"run-{i}", command="read < go", compute={"cpus": 0}))
        """
        os.mkfifo(home.place / "go")
        run_python(code, cwd=str(home.place))
        pid = wait_until(home.dispatcher, 3)
        wait_until(lambda: home.dispatcher() != pid or len(home.tickets("active")) >= 40, 5)
        assert home.dispatcher() == pid

    def test_an_environment_that_is_too_large_fails_its_own_run(
        self, home: Home, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        large = {f"LARGE_{i}": "x" * 100_000 for i in range(40)}
        run = execute("run", "true", env_variables=large)
        assert (run.status, run.reason) == (RunStatus.FAILED, "FailedToStart")
        assert "rgument list too long" in run.message
        assert execute("other", "true").status is RunStatus.COMPLETED


class TestEachSubmittersOwn:
    """The dispatcher is started by one submitter and serves others."""

    @pytest.mark.skipif(CPUS < 2, reason="needs two CPUs")
    def test_affinity(self, home: Home) -> None:
        run_python("""
            import os
            os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
            import localrun
            localrun.create_run(localrun.RunConfig(name="first", command="true")).wait(30)
        """)
        run = execute("second", "nproc", cpus=2)
        assert run.stdout() == f"{CPUS}\n"

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs to be root, who may lower a niceness")
    def test_limits_and_niceness(self, home: Home) -> None:
        run_python("""
            import os, resource
            for limit in (resource.RLIMIT_CORE, resource.RLIMIT_NOFILE):
                resource.setrlimit(limit, (100, resource.getrlimit(limit)[1]))
            os.nice(5)
            import localrun
            localrun.create_run(localrun.RunConfig(name="first", command="true")).wait(30)
        """)
        ask = "ulimit -c; ulimit -n; sleep 0.1; nice"
        run = execute("second", ask)
        mine = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True)
        assert run.stdout() == mine.stdout


class TestInOneProcess:
    def test_many_threads_ask_for_one_value(self, home: Home) -> None:
        from concurrent.futures import ThreadPoolExecutor

        @localrun.function(cpus=0)
        def once(x: int) -> tuple[int, int]:
            return x, os.getpid()

        with ThreadPoolExecutor(16) as pool:
            values = set(pool.map(lambda _: once.get_or_call(1, run_name="run"), range(16)))
        assert len(values) == 1
        assert len(localrun.get_runs(include_deleted=True)) == 1

    def test_forked_children_ask_for_one_value(self, home: Home) -> None:
        """As multiprocessing's children do, in the middle of their parent's life."""
        code = """
            import multiprocessing
            import localrun
            @localrun.function(cpus=0)
            def once(x):
                import os
                return x, os.getpid()
            def ask(_):
                return once.get_or_call(2, run_name="other")
            if __name__ == "__main__":
                once.get_or_call(1, run_name="run")
                with multiprocessing.get_context("fork").Pool(4) as pool:
                    print(len(set(pool.map(ask, range(8)))))
        """
        done = run_python(code, script=home.place / "forks.py")
        assert done.stdout.splitlines()[-1] == "1", done.stderr

    def test_threads_submit_at_once(self, home: Home) -> None:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(8) as pool:
            runs = list(pool.map(lambda i: submit("same", f"echo {i}", cpus=0), range(24)))
        assert len({run.name for run in runs}) == 24
        home.all_ended()
        assert {run.stdout() for run in runs} == {f"{i}\n" for i in range(24)}


def test_a_stop_that_is_slow_takes_nothing_from_a_later_start(home: Home) -> None:
    """Whoever stops a run is held up between its record and its ticket; meanwhile it is started again."""
    code = """
        import os, signal, sys
        import localrun
        from localrun.engine.dispatch import submission
        original = submission.withdraw
        def slow(*arguments):
            print("held up", flush=True)
            sys.stdin.readline()
            original(*arguments)
        submission.withdraw = slow
        localrun.stop_run("run")
    """
    blocker = submit("blocker", "sleep 1000", cpus=CPUS)
    run = submit("run", "true", cpus=CPUS)
    stopper = start_python(code, stdin=-1)
    assert stopper.stdout is not None
    assert stopper.stdout.readline() == "held up\n"
    blocker.stop()
    wait_until(lambda: home.tickets() == [])  # the stopped run's ticket, too
    second = submit("second", "sleep 1000", cpus=CPUS)
    wait_until(lambda: home.status("second") == "RUNNING")
    run.start()
    stopper.communicate("go on\n", timeout=30)
    second.stop()
    assert run.wait(5).status is RunStatus.COMPLETED
