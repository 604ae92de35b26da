"""Nobody can be started to look after a run: it is refused, or whoever waits for it is told, and nothing is lost."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support import CPUS, Home, execute, is_alive, kill, run_python, submit, wait_until

import localrun
from localrun import RunStatus, SystemFailureError
from localrun.engine.dispatch import waiting


def break_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """No interpreter that is started from now on comes up."""
    monkeypatch.setenv("PYTHONHOME", "/nowhere")


def mend_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONHOME")


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiters look after what they wait for twenty times as often, and so give up in a second or two."""
    monkeypatch.setattr(waiting, "_PROGRESS_S", waiting._PROGRESS_S / 20)


def without_dispatcher(home: Home) -> None:
    """Kill the dispatcher; nobody starts another."""
    wait_until(lambda: home.dispatcher() is None or not kill(home.dispatcher()))


class TestNoInterpreter:
    """As in a program that embeds Python, or whose environment was removed under it."""

    @pytest.fixture
    def executable(self, request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
        if request.param == "a file":
            (tmp_path / "python").write_text("not executable")
            return str(tmp_path / "python")
        return request.param  # type: ignore[no-any-return]

    @pytest.mark.parametrize("executable", ["", None, "/nowhere/python", "a file"], indirect=True)
    def test_a_submission_is_refused_and_nothing_is_created(
        self, home: Home, monkeypatch: pytest.MonkeyPatch, executable: str | None
    ) -> None:
        monkeypatch.setattr("sys.executable", executable)
        for call in (lambda: submit("run", "true"), lambda: localrun.function(len).run([], run_name="run")):
            with pytest.raises(SystemFailureError, match=r"sys\.executable") as caught:
                call()
            assert repr(executable) in str(caught.value)
            assert "\n" not in str(caught.value)
        assert not home.path.exists()

    @pytest.mark.parametrize("executable", ["", "/nowhere/python"], indirect=True)
    def test_so_is_a_restart(self, home: Home, monkeypatch: pytest.MonkeyPatch, executable: str) -> None:
        run = execute("run", "true")
        wait_until(lambda: home.tickets() == [])
        before = Path(run.path, "config.json").read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr("sys.executable", executable)
            with pytest.raises(SystemFailureError, match=r"sys\.executable"):
                run.start()
        assert Path(run.path, "config.json").read_bytes() == before
        assert home.tickets() == []
        assert run.start().wait(30).resumption_count == 1


class TestNoneComesUp:
    def test_why_is_in_its_log(self, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        break_python(monkeypatch)
        run = submit("run", "true")
        log = home.path / "dispatcher.log"
        assert "encodings" in wait_until(lambda: log.exists() and log.read_text())
        assert log.stat().st_mode & 0o777 == 0o600
        assert home.status("run") == "QUEUED"
        mend_python(monkeypatch)
        assert run.wait(30).status is RunStatus.COMPLETED

    @pytest.mark.parametrize(
        "wait",
        [
            lambda run: run.wait(),
            lambda run: run.result(),
            lambda run: localrun.wait_for_run_status(run, "RUNNING"),
            lambda run: list(localrun.follow_run_logs(run)),
            lambda run: localrun.wait_for_run_status(run, "COMPLETED", future=True).result(60),
        ],
        ids=["wait", "result", "wait_for_run_status", "follow_run_logs", "future"],
    )
    def test_a_waiter_is_told(
        self, home: Home, monkeypatch: pytest.MonkeyPatch, soon: None, wait: Callable[[localrun.Run], object]
    ) -> None:
        break_python(monkeypatch)
        run = submit("run", "echo hi")
        with pytest.raises(SystemFailureError, match="QUEUED") as caught:
            wait(run)
        assert str(home.path / "dispatcher.log") in str(caught.value)
        mend_python(monkeypatch)
        assert run.result(30) == "hi\n"  # it was accepted, and nothing was lost

    def test_so_is_one_who_waits_behind_another_run(
        self, home: Home, monkeypatch: pytest.MonkeyPatch, soon: None
    ) -> None:
        """The other one has a supervisor, which ends with it; then nobody is there to start the next."""
        os.mkfifo(home.place / "go")
        other = submit("other", "read < go", cpus=CPUS, cwd=str(home.place))
        wait_until(lambda: home.status("other") == "RUNNING")
        run = submit("run", "true", cpus=CPUS)  # starts no second dispatcher, which would still be on its way
        break_python(monkeypatch)
        without_dispatcher(home)
        with pytest.raises(SystemFailureError, match="QUEUED"):
            run.wait()
        mend_python(monkeypatch)
        (home.place / "go").write_text("go\n")
        assert other.wait(30).status is run.wait(30).status is RunStatus.COMPLETED

    def test_a_run_with_a_supervisor_is_waited_for(
        self, home: Home, monkeypatch: pytest.MonkeyPatch, soon: None
    ) -> None:
        os.mkfifo(home.place / "go")
        run = submit("run", "read < go", cwd=str(home.place))
        wait_until(lambda: home.status("run") == "RUNNING")
        break_python(monkeypatch)
        without_dispatcher(home)
        with pytest.raises(TimeoutError, match="RUNNING"):
            run.wait(3 * waiting._MOST_STARTS * waiting._PROGRESS_S)
        (home.place / "go").write_text("go\n")
        assert run.wait(30).status is RunStatus.COMPLETED

    def test_a_run_whose_supervisor_is_lost_too(self, home: Home, monkeypatch: pytest.MonkeyPatch, soon: None) -> None:
        run = submit("run", "exec sleep 1000")
        wait_until(lambda: home.status("run") == "RUNNING")
        break_python(monkeypatch)
        without_dispatcher(home)
        supervisor = home.supervisor("run")
        assert supervisor is not None and kill(supervisor)
        wait_until(lambda: not is_alive(supervisor))
        with pytest.raises(SystemFailureError, match="RUNNING"):
            run.wait()
        mend_python(monkeypatch)
        run.wait(30)
        assert (run.status, run.reason) == (RunStatus.FAILED, "SystemFailure")


def test_a_submission_from_a_folder_that_was_removed(home: Home, tmp_path: Path) -> None:
    """One clear error, unless it is said where to run."""
    code = """
        import os
        import localrun
        from localrun import RunConfig
        os.rmdir(os.getcwd())
        calls = (
            lambda: localrun.create_run(RunConfig(name="run", command="true")),
            lambda: localrun.function(len).run([], run_name="run"),
            lambda: localrun.function(len)([], run_name="run"),
        )
        for call in calls:
            try:
                call()
            except localrun.RunConfigError as error:
                print(error)
        print(os.path.exists(os.environ["LOCALRUN_HOME"]))
        run = localrun.create_run(RunConfig(name="run", command="pwd", cwd="/"))
        print(run.result(30), end="")
    """
    (tmp_path / "gone").mkdir()
    done = run_python(code, script=tmp_path / "caller.py", cwd=str(tmp_path / "gone"))
    *errors, created, where = done.stdout.splitlines()
    assert len(errors) == 3
    assert all(error.startswith("cwd: ") and "removed" in error for error in errors)
    assert (created, where) == ("False", "/")
