"""The handle on a run: what it tells, what it does, what it refuses."""

from __future__ import annotations

import copy
import json
import os
import pickle
import shutil
import signal
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from support import CPUS, Home, execute, kill, run_python, start_python, submit, wait_until

import localrun
from localrun import (
    IllegalTransitionError,
    NotARunError,
    RunConfig,
    RunConfigError,
    RunExistsError,
    RunNotFoundError,
    RunStatus,
    RunStatusNotReached,
)


class TestIdentity:
    def test_a_handle_pickles_and_is_the_same_run(self, home: Home) -> None:
        run = execute("run", "echo hi")
        again = pickle.loads(pickle.dumps(run))
        assert again == run
        assert hash(again) == hash(run)
        assert again.stdout() == "hi\n"
        assert run != execute("other", "true")
        path = home.place / "handle.pkl"
        path.write_bytes(pickle.dumps(run))
        code = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).refresh().status)"
        assert run_python(code, path).stdout == "COMPLETED\n"

    def test_its_repr_names_it(self, home: Home) -> None:
        run = execute("run", "true")
        assert repr(run) == f"<Run 'run' COMPLETED {run.path!r}>"

    def test_refresh_is_in_place(self, home: Home) -> None:
        os.mkfifo(home.place / "go")
        run = submit("run", "read < go", cwd=str(home.place))
        wait_until(lambda: home.status("run") == "RUNNING")
        assert run.refresh() is run
        assert run.status is RunStatus.RUNNING
        (home.place / "go").write_text("go\n")
        assert run.wait(30) is run
        assert run.status is RunStatus.COMPLETED

    def test_a_handle_on_a_run_that_was_replaced_stays_with_its_run(self, home: Home) -> None:
        @localrun.function
        def double(x: int) -> int:
            print("doubling", x)
            return 2 * x

        first = double.run(1, run_name="run")
        first.wait(30)
        second = double.run(2, run_name="run")
        second.wait(30)
        assert first.run_uid != second.run_uid
        assert second.result() == 4
        assert first.result() == 2
        assert first.refresh().stdout() == "doubling 1\n"
        assert first.is_deleted
        assert localrun.get_run(first).run_uid == first.run_uid
        uid = first.run_uid
        assert first.refresh().run_uid == uid

    def test_an_old_handle_stops_and_deletes_nobody_else(self, home: Home) -> None:
        @localrun.function
        def waits(seconds: float) -> None:
            import time

            time.sleep(seconds)

        first = waits.run(0, run_name="run")
        first.wait(30)
        second = waits.run(1000, run_name="run")
        wait_until(lambda: home.status("run") == "RUNNING")
        first.stop()
        assert second.refresh().status is RunStatus.RUNNING
        first.update_metadata({"of": "first"})
        assert second.refresh().metadata == {}
        second.stop()

    def test_one_who_waits_while_it_is_replaced_gets_his_own(self, home: Home) -> None:
        """The waiter of the first run is looking when the second one takes its place."""

        @localrun.function
        def identity(x: int) -> int:
            return x

        code = """
            import localrun
            run = localrun.get_run("run")
            print(run.status, flush=True)
            print(run.result(60))
        """
        blocker = submit("blocker", "sleep 1000", cpus=CPUS)
        identity.run(1, run_name="run")
        waiter = start_python(code)
        assert waiter.stdout is not None
        assert waiter.stdout.readline() == "QUEUED\n"
        kill(waiter.pid, signal.SIGSTOP)
        blocker.stop()
        wait_until(lambda: home.status("run") == "COMPLETED")
        assert identity(2, run_name="run") == 2
        kill(waiter.pid, signal.SIGCONT)
        assert waiter.communicate(timeout=60)[0] == "1\n"
        home.all_ended()


class TestProperties:
    def test_all_of_them_can_be_read_at_any_time(self, home: Home) -> None:
        blocker = submit("blocker", "sleep 1000", cpus=CPUS)
        run = submit("run", "true")
        names = [name for name in dir(run) if not name.startswith("_") and not callable(getattr(type(run), name))]
        assert len(names) > 40
        for _ in range(2):
            for name in names:
                getattr(run, name)
            blocker.stop()
            run.wait(30)

    def test_what_was_asked_for(self, home: Home) -> None:
        run = execute(
            "run", "true", cpus=0.5, memory="10MB", priority="low", max_retries=2, stop_grace=3, max_duration=2,
            retry_on_system_failure=True, metadata={"a": 1}, parameters={"p": 1},
        )  # fmt: skip
        assert (run.cpus, run.memory, run.gpus, run.gpu_type) == (0.5, 10_000_000, 0, None)
        assert (run.priority, run.max_retries, run.stop_grace, run.max_duration) == ("low", 2, 3, 2)
        assert (run.retry_on_system_failure, run.preemptible, run.node_count, run.image) == (True, False, 1, None)
        assert (run.name, run.display_name, run.run_type, run.cmds, run.fn_name) == (
            "run", "run", "COMMAND", ["true"], None,
        )  # fmt: skip
        assert (run.metadata, run.config.parameters) == ({"a": 1}, {"p": 1})
        assert run.submitted_config.command == "true"
        assert run.created_by
        (node,) = run.nodes
        assert node.rank == 0

    def test_names_of_the_record_and_of_mcli(self, home: Home) -> None:
        run = execute("run", "[ $RESUMPTION_INDEX = 1 ]", max_retries=1, metadata={"a": 1})
        record = home.record("run")
        assert (run.start_time, run.end_time) == (run.started_at, run.completed_at)
        assert run.created_at <= run.start_time <= run.end_time
        assert (run.creator, run.host) == (record["creator"], record["host"]) == (run.created_by, os.uname().nodename)
        assert run.last_resumption_id == "run-1"
        assert run.config.to_mapping() == run.submitted_config.to_mapping()
        assert run.config.command == "[ $RESUMPTION_INDEX = 1 ]"
        assert run.run_config == record
        run.run_config["status"] = "mine"
        assert run.status.value == "COMPLETED"
        assert run.config_for_rns == {
            "name": "run", "uid": record["uid"], "run_type": "COMMAND", "system": record["host"], "path": run.path,
        }  # fmt: skip
        blocker = submit("blocker", "sleep 1000", cpus=CPUS)
        waiting = submit("waiting", "true", cpus=CPUS)
        assert (waiting.start_time, waiting.end_time, waiting.last_resumption_id) == (None, None, "waiting-0")
        waiting.stop()
        blocker.stop()

    def test_times_are_aware_and_compare_with_naive_ones(self, home: Home) -> None:
        before = datetime.now()
        run = execute("run", "true")
        after = datetime.now() + timedelta(seconds=1)
        assert before - timedelta(seconds=1) < run.created_at <= run.started_at <= run.completed_at < after
        assert run.created_at.tzinfo is not None
        assert run.created_at - before < timedelta(seconds=60)

    def test_what_it_gives_can_be_changed_without_changing_it(self, home: Home) -> None:
        run = execute("run", "true", metadata={"a": {"b": 1}})
        run.config.command = "other"
        run.metadata["x"] = 1
        run.lifecycle.clear()
        assert run.config.command == "true"
        assert run.metadata == {"a": {"b": 1}}
        assert run.lifecycle != []


class TestResult:
    def test_of_a_command(self, home: Home) -> None:
        assert submit("good", "echo out; echo err >&2").result(30) == "out\n"
        assert submit("bad", "echo out; echo err >&2; exit 1").result(30) == "err\n"
        assert localrun.get_run("good").inputs() == {"args": [], "kwargs": {}}

    def test_the_error_of_a_command(self, home: Home) -> None:
        run = execute("run", "for i in 1 2 3 4 5 6 7; do echo line $i; done; exit 9")
        error = run.exception()
        assert isinstance(error, localrun.RunFailedError)
        text = str(error)
        assert "run" in text
        assert "exit code 9" in text
        assert "line 7" in text
        assert "line 2" not in text
        assert f"{run.path}/logs/0" in text
        assert execute("good", "true").exception() is None
        stopped = submit("stopped", "sleep 1000")
        stopped.stop("enough")
        assert isinstance(stopped.exception(), localrun.RunStoppedError)
        assert "enough" in str(stopped.exception())

    def test_a_timeout(self, home: Home) -> None:
        run = submit("run", "sleep 1000")
        for call in (run.wait, run.result, run.exception):
            with pytest.raises(localrun.RunTimeoutError, match="run"):
                call(timeout=0.1)
        run.stop()

    def test_ranks(self, home: Home) -> None:
        run = execute("run", "echo hi")
        assert run.result(rank=0) == run.stdout(0) == "hi\n"
        with pytest.raises(ValueError, match="rank"):
            run.result(rank=1)
        with pytest.raises(ValueError, match="rank"):
            run.stdout(3)


class TestWaitForStatus:
    def test_a_status_that_was_passed_was_reached(self, home: Home) -> None:
        execute("run", "true")
        for status in ("PENDING", "queued", "Running", RunStatus.COMPLETED):
            assert localrun.wait_for_run_status("run", status, timeout=5).status is RunStatus.COMPLETED

    def test_it_returns_when_it_is_reached(self, home: Home) -> None:
        submit("run", "sleep 1000")
        assert localrun.wait_for_run_status("run", "running", timeout=30).status is RunStatus.RUNNING
        localrun.stop_run("run")

    @pytest.mark.parametrize("status", ["COMPLETED", "STOPPED"])
    def test_a_status_that_can_no_longer_be_reached(self, home: Home, status: str) -> None:
        execute("run", "exit 1")
        with pytest.raises(RunStatusNotReached, match="FAILED"):
            localrun.wait_for_run_status("run", status, timeout=5)

    @pytest.mark.parametrize("status", ["RUNNING", "COMPLETED"])
    def test_what_a_run_was_before_it_was_started_again_does_not_count(self, home: Home, status: str) -> None:
        run = execute("run", "true", cpus=CPUS)
        blocker = submit("blocker", "sleep 1000", cpus=CPUS)
        wait_until(lambda: home.status("blocker") == "RUNNING")
        run.start()
        with pytest.raises(TimeoutError, match="QUEUED"):
            localrun.wait_for_run_status("run", status, timeout=0.1)
        assert localrun.wait_for_run_status("run", "QUEUED", timeout=5).status is RunStatus.QUEUED
        promise = localrun.wait_for_run_status("run", status, future=True)
        blocker.stop()
        assert promise.result(30).resumption_count == 1
        assert localrun.wait_for_run_status(run, "COMPLETED", timeout=30).resumption_count == 1

    def test_a_completion_of_before_is_none_after_a_failure(self, home: Home) -> None:
        run = execute("run", "exit $RESUMPTION_INDEX")
        assert localrun.wait_for_run_status("run", "COMPLETED", timeout=5).status is RunStatus.COMPLETED
        run.start()
        with pytest.raises(RunStatusNotReached, match="FAILED"):
            localrun.wait_for_run_status("run", "COMPLETED", timeout=30)

    def test_a_retry_takes_nothing_back(self, home: Home) -> None:
        """It is no start by hand: the run has been RUNNING, whatever it waits for now."""
        os.mkfifo(home.place / "go")
        command = "[ $RESUMPTION_INDEX = 1 ] || exit 1; read < go"
        run = submit("run", command, max_retries=1, cwd=str(home.place))
        wait_until(lambda: len(home.record("run")["resumptions"]) == 2)
        for status in ("PENDING", "QUEUED", "RUNNING"):
            localrun.wait_for_run_status("run", status, timeout=5)
        (home.place / "go").write_text("go\n")
        assert run.wait(30).status is RunStatus.COMPLETED

    def test_an_unknown_one(self, home: Home) -> None:
        execute("run", "true")
        with pytest.raises(localrun.RunConfigError, match="finished"):
            localrun.wait_for_run_status("run", "finished")

    def test_a_timeout_and_a_future(self, home: Home) -> None:
        run = submit("run", "sleep 1000")
        with pytest.raises(TimeoutError):
            localrun.wait_for_run_status("run", "COMPLETED", timeout=0.1)
        promise = localrun.wait_for_run_status(run, "STOPPED", future=True)
        assert not promise.done()
        run.stop()
        assert promise.result(30).status is RunStatus.STOPPED


class TestLoading:
    def test_by_path_creates_nothing(self, home: Home, tmp_path: Path) -> None:
        with pytest.raises(RunNotFoundError):
            localrun.run(path=tmp_path / "nowhere")
        assert not (tmp_path / "nowhere").exists()
        with pytest.raises(RunNotFoundError):
            localrun.get_run("nowhere")
        assert not home.path.exists()

    def test_a_folder_that_is_no_run(self, home: Home, tmp_path: Path) -> None:
        (tmp_path / "folder").mkdir()
        with pytest.raises(NotARunError, match="no config"):
            localrun.run(path=tmp_path / "folder")
        assert os.listdir(tmp_path / "folder") == []

    @pytest.mark.parametrize("name", ["a/b", "../x", "", "a\nb", ".x", "x" * 200])
    def test_names_that_no_run_can_have(self, home: Home, name: str) -> None:
        with pytest.raises(RunConfigError, match="run"):
            localrun.get_run(name)

    def test_a_copy_without_its_source(self, home: Home, tmp_path: Path) -> None:
        @localrun.function
        def work(x: list[int]) -> dict[str, int]:
            print("working")
            return {"sum": sum(x)}

        run = work.run([1, 2, 3], run_name="run")
        run.wait(30)
        failed = execute("failed", "echo out; echo err >&2; exit 4")
        for one in (run, failed):
            copied = tmp_path / "copies" / one.name
            shutil.copytree(one.path, copied)
            shutil.rmtree(one.path)
            loaded = localrun.run(path=copied)
            assert (loaded.status, loaded.reason, loaded.exit_code) == (one.status, one.reason, one.exit_code)
            assert loaded.run_uid == one.run_uid
        loaded = localrun.run(path=tmp_path / "copies" / "run")
        assert loaded.result() == {"sum": 6}
        assert loaded.inputs() == {"args": [[1, 2, 3]], "kwargs": {}}
        assert loaded.stdout() == loaded.logs() == "working\n"
        other = localrun.run(path=tmp_path / "copies" / "failed")
        assert (other.stdout(), other.stderr()) == ("out\n", "err\n")
        assert other.logs() == "out\nerr\n"

    def test_a_copy_is_loaded_where_nothing_of_its_machine_is(
        self, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = execute("run", "echo hi")
        copied = tmp_path / "copy"
        shutil.copytree(run.path, copied)
        home.end()
        shutil.rmtree(home.path)
        assert localrun.run(path=str(copied)).result() == "hi\n"
        assert not home.path.exists()

    def test_a_copy_of_an_active_run_waits_for_nobody(self, home: Home, tmp_path: Path) -> None:
        run = submit("run", "sleep 1000")
        wait_until(lambda: home.status("run") == "RUNNING")
        shutil.copytree(run.path, tmp_path / "copy")
        loaded = localrun.run(path=tmp_path / "copy")
        assert loaded.status is RunStatus.RUNNING
        with pytest.raises(TimeoutError):
            loaded.wait(0.2)
        run.stop()
        shutil.rmtree(tmp_path / "copy")

    def test_path_puts_a_run_anywhere(self, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        run = submit("run", "echo hi", path=tmp_path / "some" / "where").wait(30)
        assert run.path == str(tmp_path / "some" / "where")
        assert localrun.run(path=run.path).stdout() == "hi\n"
        assert [path.name for path in (tmp_path / "some").iterdir()] == ["where"]
        monkeypatch.chdir(tmp_path)
        assert submit("other", "true", path="rel").wait(30).path == str(tmp_path / "rel")
        (tmp_path / "mine").mkdir()
        with pytest.raises(RunExistsError):
            submit("third", "true", path=tmp_path / "mine")
        assert os.listdir(tmp_path / "mine") == []

    def test_a_runs_folder_of_ones_own(self, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("LOCALRUN_RUNS_DIR", "./rh")
        run = execute("run", "true")
        assert run.path == str(tmp_path / "rh" / "run")
        assert [each.name for each in localrun.get_runs()] == ["run"]
        assert localrun.get_run("run") == run


class TestGetRuns:
    def names(self, **options: object) -> list[str]:
        return [run.name for run in localrun.get_runs(**options)]

    def test_newest_first(self, home: Home) -> None:
        for name in "abcd":
            execute(name, "true")
        assert self.names() == ["d", "c", "b", "a"]
        assert self.names(limit=2) == ["d", "c"]

    def test_by_status(self, home: Home) -> None:
        execute("good", "true")
        execute("bad", "exit 1")
        blocker = submit("blocker", "sleep 1000", cpus=CPUS)
        submit("waiting", "true")
        wait_until(lambda: home.status("blocker") == "RUNNING")
        assert self.names(statuses=["completed"]) == ["good"]
        assert self.names(statuses=[RunStatus.FAILED, "running"]) == ["blocker", "bad"]
        assert self.names(statuses=["QUEUED"]) == ["waiting"]
        assert self.names(statuses=[]) == []
        with pytest.raises(ValueError, match="finished"):
            localrun.get_runs(statuses=["finished"])
        blocker.stop()
        home.all_ended()

    def test_by_name_and_glob(self, home: Home) -> None:
        for name in ("lr-1", "lr-2", "wd-1"):
            execute(name, "true")
        assert self.names(runs=["lr-*"]) == ["lr-2", "lr-1"]
        assert self.names(runs=["wd-1", "lr-?"]) == ["wd-1", "lr-2", "lr-1"]
        assert self.names(runs=["lr-1", "lr-*"]) == ["lr-2", "lr-1"]
        assert self.names(runs=["none-*"]) == []
        assert self.names(runs=[]) == []
        assert self.names(runs=[localrun.get_run("lr-1")]) == ["lr-1"]
        with pytest.raises(RunNotFoundError):
            localrun.get_runs(runs=["lr-1", "lr-3"])

    def test_deleted_and_replaced_ones(self, home: Home) -> None:
        @localrun.function
        def one() -> int:
            return 1

        first = one.run(run_name="run")
        first.wait(30)
        one.run(run_name="run").wait(30)
        execute("gone", "echo bye")
        localrun.delete_run("gone")
        assert self.names() == ["run"]
        deleted = {run.run_uid: run for run in localrun.get_runs(include_deleted=True)}
        assert len(deleted) == 3
        assert deleted[first.run_uid].is_deleted
        for run in filter(lambda run: run.is_deleted, deleted.values()):
            with pytest.raises(IllegalTransitionError, match="was deleted or replaced"):
                run.start()
        wait_until(lambda: not home.tickets())
        assert deleted[first.run_uid].result() == 1
        with pytest.raises(RunNotFoundError):
            localrun.get_run("gone")

    def test_deleted_ones_by_name_and_glob(self, home: Home) -> None:
        slow, slower = execute("slow", "true"), execute("slower", "true")
        localrun.delete_runs(["slow", "slower"])
        assert localrun.get_runs(["slow"], include_deleted=True) == [slow]
        assert localrun.get_runs(["slow*"], include_deleted=True) == [slower, slow]
        assert localrun.get_runs(["slow", "slow*", "none-*"], include_deleted=True) == [slower, slow]
        assert self.names(runs=["slow*"]) == []
        with pytest.raises(RunNotFoundError, match="slow"):
            localrun.get_runs(["slow"])
        with pytest.raises(RunNotFoundError, match="slo"):
            localrun.get_runs(["slow", "slo"], include_deleted=True)
        again = execute("slow", "exit 1")
        assert localrun.get_runs(["slow"], include_deleted=True) == [again, slow]
        assert localrun.get_runs(["slow"], include_deleted=True, statuses=["COMPLETED"]) == [slow]
        assert localrun.get_runs(["slow"], include_deleted=True, limit=1) == [again]
        assert localrun.get_runs(["slow"]) == [again]

    @pytest.mark.parametrize(
        "damage",
        [
            "", "{", "[]", "null", '{"schema": 1}', "\x00" * 100, '{"status": "RUNNING", "name": "x"}',
            pytest.param("[" * 100_000, id="deep"),
        ],
    )  # fmt: skip
    def test_a_broken_record_is_listed_and_left_alone(self, home: Home, damage: str) -> None:
        execute("good", "true")
        broken = execute("broken", "true")
        path = Path(broken.path, "config.json")
        path.write_text(damage)
        runs = {run.name: run for run in localrun.get_runs()}
        assert runs["broken"].status is RunStatus.UNKNOWN
        assert "config.json" in runs["broken"].message
        assert runs["good"].status is RunStatus.COMPLETED
        assert localrun.get_run("broken").status is RunStatus.UNKNOWN
        assert self.names(statuses=["unknown"]) == ["broken"]
        for name in dir(runs["broken"]):
            if not name.startswith("_") and not callable(getattr(type(runs["broken"]), name, None)):
                getattr(runs["broken"], name)
        with pytest.raises(localrun.LocalrunError):
            localrun.start_run("broken")
        assert execute("other", "true").status is RunStatus.COMPLETED
        assert path.read_text() == damage

    def test_a_record_that_is_a_folder(self, home: Home) -> None:
        execute("good", "true")
        run = execute("broken", "true")
        record = Path(run.path, "config.json")
        record.unlink()
        record.mkdir()
        runs = {run.name: run for run in localrun.get_runs()}
        assert {name: run.status.value for name, run in runs.items()} == {"good": "COMPLETED", "broken": "UNKNOWN"}
        assert str(record) in runs["broken"].message
        assert localrun.get_run("broken").status is RunStatus.UNKNOWN
        calls = (
            run.refresh, lambda: localrun.run(path=run.path), lambda: localrun.start_run("broken"),
            lambda: localrun.function(len)([], run_name="broken"),
        )  # fmt: skip
        for call in calls:
            with pytest.raises(localrun.SystemFailureError, match=r"config\.json") as caught:
                call()
            assert "\n" not in str(caught.value)
        assert localrun.create_run(RunConfig(name="broken", command="true")).wait(30).name != "broken"
        assert os.listdir(record) == []

    def test_a_record_that_breaks_while_its_run_is_active(self, home: Home) -> None:
        os.mkfifo(home.place / "go")
        run = submit("run", "read < go", cwd=str(home.place), cpus=CPUS)
        wait_until(lambda: home.status("run") == "RUNNING")
        path = Path(run.path, "config.json")
        whole = path.read_bytes()
        path.write_text("{broken")
        waiting = submit("waiting", "true", cpus=CPUS)
        (home.place / "go").write_text("go\n")
        assert waiting.wait(30).status is RunStatus.COMPLETED
        assert path.read_text() == "{broken"
        assert localrun.get_run("run").status is RunStatus.UNKNOWN
        record = json.loads(whole) | {"status": "COMPLETED"}
        record["lifecycle"][-1]["status"] = "COMPLETED"
        path.write_text(json.dumps(record))

    def test_what_is_no_run_is_not_listed(self, home: Home) -> None:
        execute("run", "true")
        (home.runs / "a-file").touch()
        (home.runs / "a-folder").mkdir()
        (home.runs / "a-link").symlink_to("nowhere")
        assert self.names() == ["run"]

    def test_nothing_was_ever_submitted(self, home: Home) -> None:
        assert localrun.get_runs() == []
        assert not home.path.exists()


class TestListsOfRuns:
    def test_an_unknown_name_in_a_list_does_nothing(self, home: Home) -> None:
        run = submit("run", "sleep 1000")
        for call in (localrun.stop_runs, localrun.delete_runs, localrun.start_runs):
            with pytest.raises(RunNotFoundError):
                call(["run", "nowhere"])
        assert run.refresh().status in (RunStatus.QUEUED, RunStatus.STARTING, RunStatus.RUNNING)
        run.stop()

    def test_empty_lists_do_nothing(self, home: Home) -> None:
        run = submit("run", "sleep 1000")
        assert localrun.stop_runs([]) == localrun.delete_runs([]) == localrun.start_runs([]) == []
        run.stop()

    @pytest.mark.parametrize("text", ["de", "d", "", b"de"])
    def test_text_is_no_list(self, home: Home, text: str) -> None:
        """It would be taken for one-letter names."""
        runs = [submit(name, "sleep 1000", cpus=0) for name in "de"]
        for call in (localrun.stop_runs, localrun.delete_runs, localrun.start_runs, localrun.get_runs):
            with pytest.raises(RunConfigError, match="brackets"):
                call(text)
        assert not any(run.refresh().status.is_terminal() for run in runs)
        localrun.stop_runs(["d", "e"])

    def test_what_get_runs_refuses(self, home: Home) -> None:
        execute("run", "true")
        with pytest.raises(RunConfigError, match="limit"):
            localrun.get_runs(limit=-1)
        with pytest.raises(RunConfigError, match="statuses"):
            localrun.get_runs(statuses="COMPLETED")
        assert localrun.get_runs(limit=0) == []

    def test_delete_stops_first(self, home: Home) -> None:
        runs = [submit(f"run-{i}", "sleep 1000", cpus=CPUS) for i in range(2)]
        deleted = localrun.delete_runs(runs, timeout=60)
        assert [run.status for run in deleted] == [RunStatus.STOPPED] * 2
        assert all(run.is_deleted for run in deleted)
        assert localrun.get_runs() == []
        assert deleted[0].stdout() == ""


class TestChanges:
    def test_metadata_is_merged_at_any_time(self, home: Home) -> None:
        run = submit("run", "sleep 1000", metadata={"a": 1})
        run.update_metadata({"b": [1, {"c": None}]})
        localrun.update_run_metadata("run", {"a": 2})
        assert localrun.get_run("run").metadata == {"a": 2, "b": [1, {"c": None}]}
        run.stop()
        run.update_metadata({"after": "the end"})
        assert localrun.get_run("run").metadata["after"] == "the end"
        assert localrun.get_run("run").status is RunStatus.STOPPED

    @pytest.mark.parametrize(
        "metadata",
        [
            {str(i): i for i in range(201)},
            {"x" * 201: 1},
            {"": 1},
            {"k": "x" * 100_001},
            {"k": object()},
            {"k": float("nan")},
            {1: 2},
            ["k"],
        ],
        ids=["keys", "long key", "empty key", "large", "object", "nan", "number", "list"],
    )
    def test_metadata_that_is_refused_changes_nothing(self, home: Home, metadata: object) -> None:
        run = execute("run", "true", metadata={"a": 1})
        before = Path(run.path, "config.json").read_bytes()
        with pytest.raises(RunConfigError, match="metadata"):
            run.update_metadata(metadata)  # type: ignore[arg-type]
        assert Path(run.path, "config.json").read_bytes() == before

    def test_metadata_at_its_limits(self, home: Home) -> None:
        run = execute("run", "true")
        run.update_metadata({"x" * 200: "y" * 99_998})
        run.update_metadata({str(i): i for i in range(199)})
        with pytest.raises(RunConfigError):
            run.update_metadata({"one more": 1})
        assert len(localrun.get_run("run").metadata) == 200

    def test_metadata_of_many_writers(self, home: Home) -> None:
        run = submit("run", "sleep 1000")
        code = """
            import sys, localrun
            for i in range(10):
                localrun.update_run_metadata("run", {f"{sys.argv[1]}-{i}": i})
        """
        for child in [start_python(code, letter) for letter in "abcd"]:
            assert child.communicate(timeout=60)[1] == ""
        assert len(run.refresh().metadata) == 40
        run.stop()

    def test_update(self, home: Home) -> None:
        blocker = submit("blocker", "sleep 1000", cpus=CPUS)
        run = submit("run", "exit 1", cpus=CPUS)
        run.update(max_retries=1, retry_on_system_failure=True, max_duration=3, priority="low")
        assert (run.max_retries, run.retry_on_system_failure, run.max_duration, run.priority) == (1, True, 3, "low")
        with pytest.raises(RunConfigError, match="priority"):
            run.update(priority="urgent")
        with pytest.raises(RunConfigError, match="max_retries"):
            run.update(max_retries=-1)
        assert run.refresh().priority == "low"
        blocker.stop()
        assert run.wait(30).resumption_count == 1
        with pytest.raises(IllegalTransitionError):
            run.update(priority="high")

    def test_update_of_preemptible(self, home: Home) -> None:
        run = submit("run", "sleep 1000")
        try:
            assert run.update(preemptible=False).preemptible is False
        finally:
            run.stop()

    def test_save_renames_and_keeps_everything(self, home: Home) -> None:
        run = execute("run", "echo hi", metadata={"a": 1})
        before = home.record("run")
        assert run.save("kept") is run
        after = home.record("kept")
        changed = {key for key in before if before[key] != after[key]}
        assert changed <= {"name", "updated_at", "submission"}
        assert (run.name, run.path, run.stdout()) == ("kept", str(home.runs / "kept"), "hi\n")
        with pytest.raises(RunNotFoundError):
            localrun.get_run("run")
        assert execute("run", "true").run_uid != run.run_uid

    def test_a_renamed_run_starts_again_although_its_supervisor_has_not_left(self, home: Home) -> None:
        """Its ticket still names the folder that it had."""
        from localrun.engine.queue import ENDING, Queue
        from localrun.engine.scheduling.ticket import Ticket, ticket_name

        run = execute("run", "true")
        wait_until(lambda: not home.tickets() and home.dispatcher() is None)
        record = home.record("run")
        ticket = Ticket.of(record, ticket_name("auto", record["uid"]))
        Path(Queue(home.path).path(ENDING, ticket.name)).write_bytes(ticket.encode())
        run.save("other")
        assert run.start().wait(60).status is RunStatus.COMPLETED
        wait_until(lambda: not home.tickets())

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_save_goes_on_where_it_was_killed(self, home: Home, overwrite: bool) -> None:
        execute("run", "echo hi")
        code = """
            import os, signal, localrun
            from localrun.model import record as records
            records.update = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
            localrun.get_run("run").save("kept")
        """
        assert run_python(code, ok=False).returncode == -signal.SIGKILL
        run = localrun.get_run("kept")
        assert run.name == "run"
        assert run.save("kept", overwrite=overwrite).name == home.record("kept")["name"] == "kept"
        assert run.stdout() == "hi\n" and len(localrun.get_runs(include_deleted=True)) == 1

    def test_save_refuses(self, home: Home) -> None:
        run, other = execute("run", "echo 1"), execute("other", "echo 2")
        with pytest.raises(RunExistsError):
            run.save("other")
        with pytest.raises(RunConfigError):
            run.save("a/b")
        assert (run.stdout(), other.stdout()) == ("1\n", "2\n")
        run.save("other", overwrite=True)
        assert localrun.get_run("other").stdout() == "1\n"
        assert len(localrun.get_runs(include_deleted=True)) == 2
        active = submit("active", "sleep 1000")
        with pytest.raises(IllegalTransitionError):
            active.save("name")
        with pytest.raises(RunExistsError):
            run.save("active", overwrite=True)
        active.stop()

    def test_save_without_a_name_changes_nothing(self, home: Home) -> None:
        run = execute("run", "true")
        before = Path(run.path, "config.json").read_bytes()
        run.save()
        run.save("run")
        assert Path(run.path, "config.json").read_bytes() == before

    def test_write(self, home: Home) -> None:
        run = execute("run", "true")
        run.write("tëxt", "notes.txt")
        run.write(b"\x00\xff", "deep/er/data.bin")
        run.write({"a": [1]}, "object.pkl")
        run.write("again", "notes.txt")
        assert Path(run.path, "notes.txt").read_text() == "again"
        assert Path(run.path, "deep/er/data.bin").read_bytes() == b"\x00\xff"
        assert pickle.loads(Path(run.path, "object.pkl").read_bytes()) == {"a": [1]}

    @pytest.mark.parametrize(
        "path",
        [
            "../out", "/tmp/out", "a/../../out", "", "a//b", "./a", "config.json", "result.pkl", "logs/0/rank_0.out",
            "telemetry/0.jsonl", ".lock", "function.pkl", "inputs.pkl", "parameters.yaml", "exception.pkl", "..",
            "logs", "a/", "config.json/x", "result.pkl/deep/er", "result.rank_0.pkl/x", "telemetry/x",
            "a\0b",
        ],
    )  # fmt: skip
    def test_write_refuses(self, home: Home, path: str) -> None:
        run = execute("run", "true")

        def there() -> list[str]:
            return sorted([*map(str, home.place.iterdir()), *map(str, home.runs.rglob("*"))])

        before = there()
        with pytest.raises(RunConfigError, match="path"):
            run.write("x", path)
        assert there() == before

    def test_write_follows_no_link_out(self, home: Home, tmp_path: Path) -> None:
        run = execute("run", "true")
        (tmp_path / "outside").mkdir()
        Path(run.path, "link").symlink_to(tmp_path / "outside")
        Path(run.path, "file").symlink_to(tmp_path / "outside" / "file")
        for path in ("link/x", "file"):
            with pytest.raises(RunConfigError, match="path"):
                run.write("x", path)
        assert os.listdir(tmp_path / "outside") == []

    def test_clone(self, home: Home) -> None:
        run = execute("run", "echo $WHAT", env_variables={"WHAT": "first"}, metadata={"m": 1}, max_retries=1)
        before = copy.deepcopy(home.record("run"))
        same = run.clone().wait(30)
        other = run.clone(name="other", env_variables={"WHAT": "second"}).wait(30)
        assert same.name != "run"
        assert same.name.startswith("run-")
        assert (same.stdout(), same.metadata, same.max_retries) == ("first\n", {"m": 1}, 1)
        assert (other.name, other.stdout()) == ("other", "second\n")
        assert home.record("run") == before
        with pytest.raises(RunConfigError):
            run.clone(nonsense=1)

    def test_clone_of_a_function_run(self, home: Home) -> None:
        @localrun.function
        def add(x: int, y: int = 2) -> int:
            return x + y

        run = add.run(1, y=5, run_name="run")
        run.wait(30)
        again = run.clone(name="again")
        assert again.result(30) == 6
        assert (again.inputs(), again.fn_name) == (run.inputs(), run.fn_name)

    def test_create_run_changes_no_config(self, home: Home) -> None:
        config = RunConfig(name="run", command="true", parameters={"a": [1]}, compute={"cpus": 1})
        before = config.to_mapping()
        first = localrun.create_run(config)
        second = localrun.create_run(config)
        config.parameters["a"].append(2)
        assert (first.name, second.name[:4], len(second.name)) == ("run", "run-", 10)
        assert first.config.parameters == {"a": [1]}
        config.parameters["a"].pop()
        assert config.to_mapping() == before
        home.all_ended()

    def test_a_name_is_made_from_the_command(self, home: Home) -> None:
        run = execute(None, "python -c 'pass'; true # ../../etc")
        assert run.name.startswith("python-")
        assert len(run.name.rpartition("-")[2]) == 6


def test_a_functions_clone_runs_where_it_is_told_and_takes_no_command(home: Home, tmp_path: Path) -> None:
    @localrun.function(cpus=0)
    def where() -> str:
        import os

        return os.getcwd()

    run = where.run(run_name="where")
    assert run.result() == os.getcwd()
    assert run.clone().result() == os.getcwd()
    assert run.clone(name="there", cwd=str(tmp_path)).result() == str(tmp_path)
    with pytest.raises(RunConfigError, match=r"^command: run where is a function's"):
        run.clone(command="true")
