"""The run functions of mcli's pages: their parameters in their order, and what the deprecated ones mean."""

from __future__ import annotations

import concurrent.futures
import enum
import inspect
import json
import os
import signal
import textwrap
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from support import CPUS, Home, execute, run_python, submit, wait_until

import localrun
from localrun import IllegalTransitionError, RunConfig, RunConfigError, RunNotFoundError, RunStatus
from localrun.api.watching import as_of

_LOGS = "run, rank, node_rank, local_gpu_rank, global_gpu_rank, timeout, future"
_FILTERS = "cluster_names, before, after, gpu_types, gpu_nums, statuses, timeout=10, future, user_emails, run_types"
_UPDATE = "preemptible, priority, max_retries, retry_on_system_failure"
# As the pages have them, the newer first; what is localrun's own comes behind.
SIGNATURES = {
    "create_run": "run, timeout=10, future",
    "get_run": "run, timeout=10, future, include_details=True",
    "get_runs": f"runs, {_FILTERS}, include_details, include_deleted, ended_before, ended_after, limit=100, clusters",
    "start_run": "run, timeout=10, future",
    "start_runs": "runs, timeout=10, future",
    "stop_run": "run, reason, timeout=10, future",
    "stop_runs": "runs, reason, timeout=10, future",
    "delete_run": "run, timeout=10, future",
    "delete_runs": "runs, timeout=10, future",
    "update_run": f"run, update_run_data, {_UPDATE}, timeout=10, future, max_duration",
    "update_run_metadata": "run, metadata, timeout=10, future, protect",
    "get_run_logs": f"{_LOGS}, failed, resumption, tail, container",
    "follow_run_logs": f"{_LOGS}, resumption, tail, container",
    "watch_run_status": "run, timeout, future",
    "wait_for_run_status": "run, status, timeout, future",
}
METHODS = {
    "clone": "self, name, image, cluster, instance, nodes, gpu_type, gpus, priority, preemptible, max_retries, "
    "max_duration",
    "update": f"self, {_UPDATE}, max_duration",
    "update_metadata": "self, metadata",
}
MARKED = {"10": 10, "100": 100, "True": True}


def check(call: Any, page: str) -> None:
    expected = [entry.partition("=")[::2] for entry in page.split(", ")]
    has = list(inspect.signature(call).parameters.values())[: len(expected)]
    assert [each.name for each in has] == [name for name, _ in expected]
    for each, (_, default) in zip(has, expected, strict=True):
        unset = (inspect.Parameter.empty, None, False)
        assert each.default in ((MARKED[default],) if default else unset), each


@pytest.mark.parametrize("name", SIGNATURES)
def test_parameters(name: str) -> None:
    check(getattr(localrun, name), SIGNATURES[name])


@pytest.mark.parametrize("name", METHODS)
def test_parameters_of_methods(name: str) -> None:
    check(getattr(localrun.Run, name), METHODS[name])


def test_the_pages_import_them_from_one_module() -> None:
    from localrun.api import runs

    for name in [*SIGNATURES, "Run", "RunConfig", "RunStatus", "ComputeConfig", "SchedulingConfig"]:
        assert getattr(runs, name) is getattr(localrun, name)


class TestCreateRun:
    def test_older_arguments(self, home: Home) -> None:
        class Priority(enum.Enum):
            LOW = "low"

        config = RunConfig(name="run", command="true")
        with pytest.warns(DeprecationWarning, match="use scheduling.priority") as caught:
            run = localrun.create_run(config, _priority=Priority.LOW)
        assert caught[0].filename == __file__
        assert (run.priority, config.priority) == ("low", None)
        with pytest.warns(DeprecationWarning, match="_job_type means nothing"):
            localrun.create_run(RunConfig(command="true"), _job_type="RUN").wait(30)
        run.wait(30)

    @pytest.mark.parametrize("how", ["change", "assign"])
    def test_a_sweep_without_copies(self, home: Home, tmp_path: Path, how: str) -> None:
        """The seed page's, where the caller forgets ``copy.deepcopy``."""
        base = tmp_path / "base.yaml"
        base.write_text("{name: sweep, command: cat $PARAMETERS, parameters: {optimizers: {sgd: {lr: 1}}}}")
        config = RunConfig.from_file(base)
        params = config.parameters
        runs = []
        for lr in (0.1, 0.01, 0.001):
            if how == "change":
                config.parameters["optimizers"]["sgd"]["lr"] = lr
            else:
                params["optimizers"]["sgd"]["lr"] = lr
                config.parameters = params
            runs.append(localrun.create_run(config))
        for run, lr in zip(runs, (0.1, 0.01, 0.001), strict=True):
            assert run.submitted_config.parameters == {"optimizers": {"sgd": {"lr": lr}}}
            assert f"lr: {lr}" in run.wait(60).stdout()
        assert config.name == "sweep"

    def test_a_refused_one_creates_nothing(self, home: Home) -> None:
        for config in (RunConfig(name="a"), {"name": "a", "comand": "x"}, RunConfig(name="a/b", command="x"), None, 3):
            with pytest.raises(RunConfigError) as caught:
                localrun.create_run(config)
            assert (caught.value.status, "\n" in str(caught.value)) == (400, False)
        assert localrun.get_runs() == []


class TestUpdateRun:
    @pytest.fixture
    def waiting(self, home: Home) -> Any:
        blocker = submit("blocker", "sleep 1000", cpus=CPUS)
        yield submit("waiting", "true", cpus=CPUS)
        localrun.stop_runs(["waiting", blocker])

    def test_each_field(self, waiting: Any) -> None:
        for field, value in {"priority": "low", "max_retries": 3, "retry_on_system_failure": True,
                             "max_duration": 2.5, "preemptible": True}.items():  # fmt: skip
            run = localrun.update_run("waiting", **{field: value})
            assert getattr(run, field) == getattr(run.submitted_config, field) == value
        assert localrun.get_run("waiting").max_retries == 3  # what isn't given stays

    def test_the_older_way(self, waiting: Any) -> None:
        with pytest.warns(DeprecationWarning, match="update_run_data") as caught:
            run = localrun.update_run(waiting, {"maxRetries": 2, "retryOnSystemFailure": True, "priority": "low"})
        assert caught[0].filename == __file__
        assert (run.max_retries, run.retry_on_system_failure, run.priority) == (2, True, "low")
        with pytest.warns(DeprecationWarning):
            assert localrun.update_run(waiting, {"max_retries": 5}, max_retries=6).max_retries == 6

    @pytest.mark.filterwarnings("ignore:update_run_data")
    @pytest.mark.parametrize(
        ("data", "fields", "message"),
        [
            ({"maxRetry": 1}, {}, "update_run_data: unknown key 'max_retry': did you mean 'max_retries'?"),
            ([1], {}, "update_run_data: must be a mapping, not a list"),
            (None, {"priority": "urgent"}, "scheduling.priority: must be "),
            (None, {"max_retries": -1}, "scheduling.max_retries: must be a whole number, 0 or more, not -1"),
            (None, {"max_duration": 0}, "scheduling.max_duration: must be a number, more than 0"),
        ],
    )
    def test_what_is_refused_changes_nothing(
        self, waiting: Any, home: Home, data: Any, fields: dict[str, Any], message: str
    ) -> None:
        before = home.record("waiting")
        with pytest.raises(RunConfigError) as caught:
            localrun.update_run("waiting", data, **fields)
        assert caught.value.message.startswith(message)
        assert home.record("waiting") == before

    def test_an_ended_run(self, home: Home) -> None:
        execute("run", "true")
        with pytest.raises(IllegalTransitionError, match="can't be updated any more") as caught:
            localrun.update_run("run", priority="low")
        assert caught.value.status == 409


class TestMetadata:
    def test_it_is_merged(self, home: Home) -> None:
        execute("run", "true", metadata={"a": 1, "b": {"c": 2}})
        assert localrun.update_run_metadata("run", {"b": 3, "d": [None]}).metadata == {"a": 1, "b": 3, "d": [None]}

    @pytest.mark.parametrize(
        ("metadata", "message"),
        [
            ({str(number): 1 for number in range(200)}, "metadata: must have at most 200 keys, not 201"),
            ({"x" * 201: 1}, "metadata: a key must have 1 to 200 characters"),
            ({"": 1}, "metadata: a key must have 1 to 200 characters"),
            ({"big": "x" * 100_000}, "metadata.big: must be at most 100 KB of JSON, not 100002 bytes"),
            ({"x": object()}, "metadata.x: must be text, a number"),
            ({1: 1}, "metadata: the key 1 must be text"),
            ([1], "metadata: must be a mapping, not a list"),
        ],
        ids=["keys", "long", "empty", "big", "object", "number", "list"],
    )
    def test_its_limits(self, home: Home, metadata: Any, message: str) -> None:
        execute("run", "true", metadata={"a": 1})
        before = home.record("run")
        with pytest.raises(RunConfigError) as caught:
            localrun.update_run_metadata("run", metadata)
        assert caught.value.message.startswith(message)
        assert caught.value.status == 400
        assert home.record("run") == before

    def test_protected_from_sigterm(self, home: Home) -> None:
        """The signal takes effect when the call has ended; without ``protect`` at once."""
        execute("run", "true")
        done = run_python(
            """
            import os, signal, sys, localrun
            from localrun.model import record as records
            read = records.read

            def interrupted(folder):
                os.kill(os.getpid(), signal.SIGTERM)
                return read(folder)

            records.read = interrupted
            localrun.update_run_metadata("run", {sys.argv[1]: 1}, protect=sys.argv[1] == "protected")
            """,
            "protected",
            ok=False,
        )
        assert done.returncode == -signal.SIGTERM
        assert home.record("run")["metadata"] == {"protected": 1}

    def test_protection_leaves_the_callers_handler_and_other_threads_alone(self, home: Home) -> None:
        execute("run", "true")
        before = signal.getsignal(signal.SIGTERM)
        localrun.update_run_metadata("run", {"a": 1}, protect=True)
        with pytest.raises(RunNotFoundError):
            localrun.update_run_metadata("none", {"a": 1}, protect=True)
        thread = threading.Thread(target=localrun.update_run_metadata, args=("run", {"b": 1}), kwargs={"protect": True})
        thread.start()
        thread.join()
        assert localrun.update_run_metadata("run", {"c": 1}, protect=True, future=True).result(30).metadata == {
            "a": 1, "b": 1, "c": 1,
        }  # fmt: skip
        assert signal.getsignal(signal.SIGTERM) is before


PHASES = ["QUEUED", "STARTING", "RUNNING", "TERMINATING", "COMPLETED"]


class TestWatch:
    def test_each_status_once_however_short(self, home: Home) -> None:
        blocker = submit("blocker", "sleep 1000", cpus=CPUS)
        run = submit("run", "true", cpus=CPUS)
        watch = localrun.watch_run_status("run")
        first = next(watch)
        assert (first.status, first.started_at, first.resumptions) == (RunStatus.QUEUED, None, [])
        blocker.stop()
        run.wait(30)
        seen = [first, *watch]
        assert [each.status.value for each in seen] == PHASES
        assert len({id(each) for each in seen}) == len(seen)
        for each, phase in zip(seen, PHASES, strict=True):
            assert each.lifecycle[-1].status.value == phase
            assert (each.completed_at is None) == (each.exit_code is None) == (phase != "COMPLETED")
        assert [each.resumption_count for each in seen] == [0] * 5
        assert seen[2].refresh().status is RunStatus.COMPLETED  # a handle like any other

    def test_an_ended_run(self, home: Home) -> None:
        run = execute("run", "exit 3")
        assert [each.status.value for each in localrun.watch_run_status(run)] == ["FAILED"]

    def test_retries(self, home: Home) -> None:
        blocker = submit("blocker", "sleep 1000", cpus=CPUS)
        submit("run", "exit $((1 - RESUMPTION_INDEX))", max_retries=1, cpus=CPUS)
        watch = localrun.watch_run_status("run", timeout=60)
        next(watch)
        blocker.stop()
        seen = [each.status.value for each in watch]
        assert seen == [*PHASES[1:4], *PHASES]

    def test_timeout_and_unknown_runs(self, home: Home) -> None:
        with pytest.raises(RunNotFoundError):
            localrun.watch_run_status("none")
        run = submit("run", "sleep 1000")
        with pytest.raises(TimeoutError):
            list(localrun.watch_run_status("run", timeout=0.2))
        run.stop()

    def test_futures(self, home: Home) -> None:
        """As the page has it, two runs watched in parallel."""
        blocker = submit("blocker", "sleep 1000", cpus=CPUS)
        for name in ("one", "two"):
            submit(name, "true", cpus=CPUS)
        watches = {name: localrun.watch_run_status(name, future=True) for name in ("one", "two")}
        pending = {next(watch): name for name, watch in watches.items()}
        seen: dict[str, list[str]] = {"one": [], "two": []}
        blocker.stop()
        while pending:
            for promise in concurrent.futures.wait(pending, 60, concurrent.futures.FIRST_COMPLETED).done:
                name = pending.pop(promise)
                try:
                    seen[name].append(promise.result().status.value)
                except StopAsyncIteration:
                    assert list(watches[name]) == []
                    continue
                pending[next(watches[name])] = name
        assert seen == {"one": PHASES, "two": PHASES}

    def test_as_of(self) -> None:
        at = [f"2024-01-01T00:00:0{second}.000000+00:00" for second in range(8)]
        statuses = ["QUEUED", "STARTING", "TERMINATING", "QUEUED", "STARTING", "FAILED"]
        lifecycle = [
            {"status": status, "started_at": at[n], "ended_at": at[n + 1], "reason": None, "resumption_index": n // 4}
            for n, status in enumerate(statuses)
        ]
        attempts = [
            {"index": 0, "status": "FAILED", "started_at": at[1], "ended_at": at[3], "exit_code": 1},
            {"index": 1, "status": "FAILED", "started_at": at[4], "ended_at": at[5], "exit_code": 2},
        ]
        record = {"status": "FAILED", "reason": "Error", "exit_code": 2, "start_time": at[1], "end_time": at[5],
                  "lifecycle": lifecycle, "resumptions": attempts}  # fmt: skip
        made = [as_of(record, phase) for phase in range(6)]
        assert [each["status"] for each in made] == statuses
        assert [[a["status"] for a in each["resumptions"]] for each in made] == [
            [], [None], [None], ["FAILED"], ["FAILED", None], ["FAILED", "FAILED"],
        ]  # fmt: skip
        assert [each["start_time"] for each in made] == [None, *[at[1]] * 5]
        assert [each["end_time"] for each in made] == [*[None] * 5, at[5]]
        assert made[5] is record
        assert json.dumps(lifecycle).count(at[6]) == 1  # the record itself was left alone


class TestTimeout:
    @pytest.mark.parametrize("timeout", ["x", "1", True, float("nan"), [1]])
    def test_what_is_no_number_is_refused_and_nothing_done(self, home: Home, timeout: Any) -> None:
        run = submit("run", "sleep 1000")
        calls = [run.wait, run.stop, run.delete, localrun.get_clusters]
        calls += [
            lambda call=call, **options: call("run", **options)
            for call in (localrun.get_run, localrun.stop_run, localrun.delete_run, localrun.get_run_logs,
                         localrun.follow_run_logs, localrun.watch_run_status)
        ]  # fmt: skip
        calls.append(lambda timeout: localrun.wait_for_run_status("run", "COMPLETED", timeout))
        for call in calls:
            with pytest.raises(RunConfigError, match=r"^timeout: must be a number of seconds or None, not "):
                call(timeout=timeout)
        assert not run.refresh().status.is_terminal()
        run.stop()

    def test_other_numbers(self, home: Home) -> None:
        run = execute("run", "true")
        for timeout in (0, 1.5, -1, Fraction(1, 2), float("inf")):
            assert localrun.wait_for_run_status(run, "COMPLETED", timeout).wait(timeout) is not None


class TestLogs:
    @pytest.mark.parametrize(
        "options",
        [{"tail": "x"}, {"tail": -1}, {"tail": True}, {"resumption": "x"}, {"rank": "x"}, {"global_gpu_rank": 0.5},
         {"global_gpu_rank": 0, "local_gpu_rank": 0}, {"global_gpu_rank": 0, "node_rank": 0}],
    )  # fmt: skip
    def test_refused(self, home: Home, options: dict[str, Any]) -> None:
        execute("run", "echo hi")
        for call in (localrun.get_run_logs, localrun.follow_run_logs):
            with pytest.raises(RunConfigError):
                call("run", **options)

    def test_container(self, home: Home) -> None:
        execute("run", "echo hi")
        assert localrun.get_run_logs("run", container="MAIN") == "hi\n"
        assert list(localrun.follow_run_logs("run", container="main")) == ["hi\n"]
        for call in (localrun.get_run_logs, localrun.follow_run_logs):
            with pytest.raises(RunConfigError, match=r"^container: a run has one, 'MAIN', and not 'sidecar'$"):
                call("run", container="sidecar")

    def test_futures_of_lines(self, home: Home) -> None:
        os.mkfifo(home.place / "go")
        submit("run", "echo one; read < go; echo two", cwd=str(home.place))
        lines = localrun.follow_run_logs("run", future=True).result(30)
        assert next(lines).result(30) == "one\n"
        second = next(lines)
        assert not second.done()
        (home.place / "go").write_text("go\n")
        assert second.result(30) == "two\n"
        with pytest.raises(StopAsyncIteration):
            next(lines).result(30)
        assert list(lines) == []


def test_an_abandoned_watch_leaves_no_thread(home: Home) -> None:
    execute("run", "true")
    before = threading.active_count()
    watch = localrun.watch_run_status("run", future=True)
    next(watch).result(30)
    watch.close()
    wait_until(lambda: threading.active_count() <= before)


def test_a_file_written_and_read_is_the_same_run(home: Home, tmp_path: Path) -> None:
    run = execute("run", textwrap.dedent("echo a\necho b\n"), parameters={"lr": 1e-4}, priority="low")
    run.submitted_config.to_file(tmp_path / "again.yaml")
    again = RunConfig.from_file(tmp_path / "again.yaml")
    assert again == run.submitted_config
    assert localrun.create_run(again).wait(30).stdout() == "a\nb\n"
