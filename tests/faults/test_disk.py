"""A run whose disk is full, or whose folder can't be written any more: it fails with a reason, others go on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import CPUS, TERMINAL, Home, fill, is_alive, kill, record_of, run_python, small_disk, submit, wait_until

import localrun
from localrun import RunStatus


@pytest.fixture
def disk(home: Home) -> Iterator[Path]:
    with small_disk(home.place / "disk") as place:
        yield place


@contextmanager
def read_only(place: Path) -> Iterator[None]:
    """A folder that nobody can write to, root neither."""
    if (
        shutil.which("mount") is None
        or subprocess.run(["mount", "--bind", place, place], capture_output=True).returncode
    ):
        pytest.skip("mounting isn't permitted here")
    subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def status_of(path: Path) -> str:
    return str(record_of(path)["status"])


def filling(home: Home, disk: Path, then: str) -> str:
    """A command that fills the disk once it has been seen to run, and then does something more."""
    os.mkfifo(home.place / "go")
    return f"read < '{home.place}/go'; yes > '{disk}/filler'; {then}"


def let_it_fill(home: Home, disk: Path) -> dict[str, Any]:
    """Wait until the run is RUNNING, let it fill the disk; its record."""
    wait_until(lambda: status_of(disk / "run") == "RUNNING")
    record = record_of(disk / "run")
    (home.place / "go").write_text("go\n")
    wait_until(lambda: shutil.disk_usage(disk).free == 0)
    return record


def others_go_on(home: Home, name: str = "other") -> None:
    assert submit(name, "true", cpus=CPUS).wait(30).status is RunStatus.COMPLETED


class TestFullDisk:
    def test_a_submission_is_refused_and_leaves_nothing(self, home: Home, disk: Path) -> None:
        filler = fill(disk)
        with pytest.raises(localrun.SystemFailureError, match=r"No space left"):
            submit("run", "true", path=disk / "run")
        assert os.listdir(disk) == ["filler"]
        assert home.tickets() == []
        others_go_on(home)
        filler.unlink()
        assert submit("run", "true", path=disk / "run").wait(30).status is RunStatus.COMPLETED

    def test_a_home_that_is_full_refuses_too(self, home: Home, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LOCALRUN_HOME", str(disk / "home"))
        inner = Home(disk / "home", disk)
        submit("first", "true").wait(30)
        wait_until(lambda: inner.dispatcher() is None)
        filler = fill(disk)
        with pytest.raises(localrun.SystemFailureError, match=r"No space left"):
            submit("run", "true")
        with pytest.raises(localrun.SystemFailureError):
            localrun.start_run("first")
        assert os.listdir(inner.runs) == ["first"]
        assert inner.tickets() == []
        assert inner.status("first") == "COMPLETED"
        filler.unlink()
        assert submit("run", "true").wait(30).status is RunStatus.COMPLETED
        assert localrun.start_run("first").wait(30).status is RunStatus.COMPLETED
        inner.end()

    @pytest.mark.parametrize(
        "pages",
        range(1, 9),
    )
    def test_a_home_with_room_for_a_part_of_a_submission(
        self, home: Home, disk: Path, monkeypatch: pytest.MonkeyPatch, pages: int
    ) -> None:
        """Wherever a submission fails for want of space, it is refused as a whole, or accepted as a whole."""
        monkeypatch.setenv("LOCALRUN_HOME", str(disk / "home"))
        monkeypatch.setenv("LARGE", "x" * 10_000)
        inner = Home(disk / "home", disk)
        submit("first", "true", path=home.place / "first").wait(30)
        wait_until(lambda: inner.dispatcher() is None)
        fill(disk, leave=pages * 4096)
        path = home.place / "run"
        try:
            submit("run", "true", path=path)
        except localrun.SystemFailureError:
            assert not path.exists() or status_of(path) in TERMINAL
            assert inner.tickets() == []
        else:
            wait_until(lambda: status_of(path) in TERMINAL)
        inner.end()

    def test_a_command_that_fills_the_disk_ends_as_it_ends(self, home: Home, disk: Path) -> None:
        submit("run", filling(home, disk, "exit 3"), path=disk / "run", cpus=CPUS)
        let_it_fill(home, disk)
        # It can't be written that it is over, but its place is free.
        others_go_on(home)
        wait_until(lambda: "can't be written" in (home.path / "dispatcher.log").read_text())
        assert status_of(disk / "run") not in TERMINAL
        assert len(home.tickets("ending")) == 1
        (disk / "filler").unlink()
        wait_until(lambda: status_of(disk / "run") in TERMINAL)
        record = record_of(disk / "run")
        assert (record["status"], record["reason"], record["exit_code"]) == ("FAILED", "Error", 3)
        wait_until(lambda: home.tickets() == [])

    def test_a_function_whose_result_is_too_large_fails_and_says_so(self, home: Home, disk: Path) -> None:
        @localrun.function(path=str(disk / "run"))
        def large() -> bytes:
            return os.urandom(10_000_000)

        run = large.run()
        run.wait(30)
        assert (run.status, run.reason) == (RunStatus.FAILED, "Error")
        assert "No space left" in run.message
        assert "result" in run.message
        assert [name for name in os.listdir(run.path) if name.endswith(".tmp")] == []
        with pytest.raises((OSError, localrun.RunFailedError), match="No space left"):
            run.result()

    def test_a_function_whose_disk_is_full_fails_and_says_so(self, home: Home, disk: Path) -> None:
        place = str(disk)

        @localrun.function(path=str(disk / "run"))
        def fills() -> int:
            with open(f"{place}/filler", "wb", buffering=0) as file:
                while True:
                    try:
                        file.write(b"\0" * 512)
                    except OSError:
                        return 1

        run = fills.run()
        others_go_on(home)
        wait_until(lambda: not home.tickets("active"))
        (disk / "filler").unlink()
        run.wait(30)
        assert (run.status, run.reason) == (RunStatus.FAILED, "Error")
        assert "space" in run.message

    def test_a_run_that_has_filled_the_disk_can_be_stopped(self, home: Home, disk: Path) -> None:
        run = submit("run", filling(home, disk, "sleep 1000"), path=disk / "run", stop_grace=1)
        rank = let_it_fill(home, disk)["ranks"][0]["pid"]
        run.stop(timeout=1)
        wait_until(lambda: not is_alive(rank))
        others_go_on(home)
        (disk / "filler").unlink()
        assert run.wait(30).status is RunStatus.STOPPED

    def test_a_run_that_has_filled_the_disk_is_ended_when_its_time_is_over(self, home: Home, disk: Path) -> None:
        command = filling(home, disk, "sleep 1000")
        run = submit("run", command, path=disk / "run", max_duration=2 / 3600, stop_grace=1)
        rank = let_it_fill(home, disk)["ranks"][0]["pid"]
        wait_until(lambda: not is_alive(rank))
        (disk / "filler").unlink()
        run.wait(30)
        assert (run.status, run.reason) == (RunStatus.STOPPED, "MaxDurationExceeded")

    def test_a_supervisor_that_is_lost_meanwhile(self, home: Home, disk: Path) -> None:
        submit("run", filling(home, disk, "sleep 1000"), path=disk / "run", cpus=CPUS)
        record = let_it_fill(home, disk)
        kill(record["supervisor"]["pid"])
        wait_until(lambda: not is_alive(record["ranks"][0]["pid"]))
        others_go_on(home)
        (disk / "filler").unlink()
        wait_until(lambda: status_of(disk / "run") in TERMINAL)
        assert record_of(disk / "run")["reason"] == "SystemFailure"

    def test_a_run_that_is_to_start_on_a_full_disk(self, home: Home, disk: Path) -> None:
        blocker = submit("blocker", "sleep 1000", cpus=CPUS)
        submit("run", "echo never", path=disk / "run", cpus=CPUS)
        filler = fill(disk)
        blocker.stop()
        others_go_on(home)
        filler.unlink()
        wait_until(lambda: status_of(disk / "run") in TERMINAL)
        record = record_of(disk / "run")
        assert (record["status"], record["reason"]) == ("FAILED", "FailedToStart")
        assert "No space left" in record["message"]
        assert "free space" in record["message"]

    def test_logs_are_read_whatever_was_cut_short(self, home: Home, disk: Path) -> None:
        run = submit("run", "seq 300000; seq 300000 >&2; true", path=disk / "run")
        wait_until(lambda: home.tickets("ending"))
        assert localrun.get_run_logs(run).startswith("1\n")
        assert run.stdout().startswith("1\n")
        os.truncate(disk / "run" / "logs" / "0" / "rank_0.out", 0)
        run.wait(30)


class TestReadOnlyFolder:
    def test_a_run_whose_folder_became_read_only_before_it_started(self, home: Home) -> None:
        blocker = submit("blocker", "sleep 1000", cpus=CPUS)
        path = home.place / "run"
        submit("run", "echo never", path=path, cpus=CPUS)
        with read_only(path):
            blocker.stop()
            others_go_on(home)
        localrun.run(path=path).wait(10)
        record = record_of(path)
        assert (record["status"], record["reason"]) == ("FAILED", "FailedToStart")
        assert "writable" in record["message"]
        wait_until(lambda: home.tickets() == [])

    def test_a_run_whose_folder_became_read_only_while_it_ran(self, home: Home) -> None:
        path = home.place / "run"
        os.mkfifo(home.place / "go")
        submit("run", "read < go; exit 3", path=path, cpus=CPUS, cwd=str(home.place))
        wait_until(lambda: status_of(path) == "RUNNING")
        with read_only(path):
            (home.place / "go").write_text("go\n")
            others_go_on(home)
            assert status_of(path) == "RUNNING"
        wait_until(lambda: status_of(path) in TERMINAL)
        record = record_of(path)
        assert (record["status"], record["reason"], record["exit_code"]) == ("FAILED", "Error", 3)

    def test_a_run_whose_folder_became_read_only_and_whose_supervisor_is_lost(self, home: Home) -> None:
        path = home.place / "run"
        run = submit("run", "sleep 1000", path=path, cpus=CPUS)
        wait_until(lambda: status_of(path) == "RUNNING")
        record = record_of(path)
        with read_only(path):
            kill(record["supervisor"]["pid"])
            others_go_on(home)
            wait_until(lambda: not is_alive(record["ranks"][0]["pid"]), 10)
        run.wait(10)
        assert (run.status, run.reason) == (RunStatus.FAILED, "SystemFailure")

    def test_a_read_only_copy_is_read_like_any(self, home: Home) -> None:
        run = submit("run", "echo out; echo err >&2; exit 2")
        run.wait(30)
        copy = home.place / "copy"
        shutil.copytree(run.path, copy)
        with read_only(copy):
            loaded = localrun.run(path=copy)
            assert (loaded.status, loaded.exit_code) == (RunStatus.FAILED, 2)
            assert (loaded.stdout(), loaded.stderr(), loaded.logs()) == (run.stdout(), run.stderr(), run.logs())
            assert loaded.result() == "err\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
class TestAsSomebodyElse:
    """Root may write anywhere; others are refused by the permissions."""

    @pytest.fixture
    def place(self, home: Home) -> Iterator[Path]:
        place = Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())
        os.chown(place, 65534, 65534)
        yield place
        Home(place / "theirs", place).end()
        shutil.rmtree(place)

    def run_as_nobody(self, code: str, place: Path) -> str:
        """What the code prints that is executed as that user, by an interpreter that it may execute."""

        def run(python: str, code: str) -> subprocess.CompletedProcess[str]:
            environment = os.environ | {"LOCALRUN_HOME": str(place / "theirs")}
            nobody: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []}
            argv = [python, "-c", code, str(place)]
            return subprocess.run(
                argv, env=environment, capture_output=True, text=True, timeout=60, cwd="/", check=False, **nobody
            )

        def is_able(python: str) -> bool:
            try:
                return run(python, "import localrun.api.runs").returncode == 0
            except OSError:
                return False

        able = [python for python in (sys.executable, "/usr/bin/python3") if is_able(python)]
        if not able:
            pytest.skip("another user can't execute localrun from this checkout")
        start = "import os, sys\nimport localrun\nfrom localrun import RunConfig\npath = sys.argv[1] + '/run'\n"
        child = run(able[0], start + textwrap.dedent(code))
        assert child.returncode == 0, child.stderr
        return child.stdout

    def test_a_folder_without_write_permission(self, home: Home, place: Path) -> None:
        out = self.run_as_nobody(
            """
            blocker = localrun.create_run(RunConfig(name="blocker", command="sleep 1000", compute={"cpus": 1}))
            need = len(os.sched_getaffinity(0))
            run = localrun.create_run(RunConfig(name="run", command="true", compute={"cpus": need}), path=path)
            os.chmod(path, 0o500)
            blocker.stop()
            other = localrun.create_run(RunConfig(name="other", command="true", compute={"cpus": need})).wait(30)
            print(other.status)
            os.chmod(path, 0o700)
            run.wait(10)
            print(run.status, run.reason, run.message)
            """,
            place,
        )
        first, second = out.splitlines()
        assert first == "COMPLETED"
        assert second.startswith("FAILED FailedToStart")
        assert "writable" in second

    def test_a_runs_folder_that_is_not_theirs(self, home: Home, place: Path) -> None:
        out = self.run_as_nobody(
            """
            try:
                localrun.create_run(RunConfig(name="run", command="true"), path="/usr/nowhere/run")
            except localrun.SystemFailureError as error:
                print(error)
            print(os.path.exists("/usr/nowhere"))
            """,
            place,
        )
        assert "Permission denied" in out
        assert out.splitlines()[-1] == "False"


class TestBlocks:
    def test_the_end_that_found_no_room_is_written_when_there_is_some(self, home: Home, disk: Path) -> None:
        block = localrun.run(name="run", path=str(disk / "run"))
        with pytest.raises(localrun.SystemFailureError, match="could not be written"), block as run:
            filler = fill(disk)
        assert run.refresh().status is RunStatus.RUNNING
        filler.unlink()
        assert (run.refresh().status, run.message) == (RunStatus.COMPLETED, "the block ended")

    def test_or_at_the_end_of_the_program(self, home: Home, disk: Path) -> None:
        code = """
            import atexit, os, sys, localrun
            try:
                with localrun.run(name="run", path=f"{sys.argv[1]}/run"):
                    os.system(f"yes > {sys.argv[1]}/filler 2>/dev/null")
            except localrun.SystemFailureError:
                os.unlink(f"{sys.argv[1]}/filler")
        """
        run_python(code, disk)
        run = localrun.run(path=disk / "run")
        assert (run.status, run.message) == (RunStatus.COMPLETED, "the block ended")

    def test_a_beginning_that_finds_no_room_takes_nothing_away(self, home: Home, disk: Path) -> None:
        place = str(disk / "run")
        with localrun.run(name="run", path=place) as first:
            pass
        filler = fill(disk)
        with pytest.raises(localrun.SystemFailureError, match="could not be begun"):
            localrun.run(name="run", path=place, load=False, overwrite=True).__enter__()
        assert first.refresh().status is RunStatus.COMPLETED
        filler.unlink()
        with localrun.run(name="run", path=place, load=False, overwrite=True) as second:
            print("again")
        assert localrun.run(path=place).run_uid == second.run_uid
