"""Commands as runs: how they end, what they are given, what they leave."""

from __future__ import annotations

import json
import os
import re
import resource
import stat
from pathlib import Path

import pytest
from support import Home, execute, is_alive, record_of, run_python, stderr_bytes, stdout_bytes, submit, wait_until

import localrun
from localrun import RunConfig, RunStatus

HOSTILE = ["home", "with spaces 'and' \"quotes\" $HOME `id` \\", "new\nline\t", "ünï-日本語-🏃", "raw\udcff\udc80"]


@pytest.mark.parametrize(
    ("command", "status", "reason", "code", "name", "message"),
    [
        ("true", "COMPLETED", "Completed", 0, None, ""),
        ("exit 3", "FAILED", "Error", 3, None, "exit code 3"),
        ("exit 255", "FAILED", "Error", 255, None, "exit code 255"),
        ("touch f; ./f", "FAILED", "Error", 126, None, "may not be executed"),
        ("no-such-command-here", "FAILED", "Error", 127, None, "command not found"),
        ("if", "FAILED", "Error", 2, None, "exit code 2"),
        ("kill -SEGV $$", "FAILED", "Killed", 139, "SIGSEGV", "SIGSEGV"),
        ("kill -KILL $$", "FAILED", "Killed", 137, "SIGKILL", "SIGKILL"),
        ("kill -TERM $$", "FAILED", "Killed", 143, "SIGTERM", "SIGTERM"),
        ("kill -HUP $$", "FAILED", "Killed", 129, "SIGHUP", "SIGHUP"),
        ("kill -PIPE $$", "FAILED", "Killed", 141, "SIGPIPE", "SIGPIPE"),
        ("kill -USR1 $$", "FAILED", "Killed", 138, "SIGUSR1", "SIGUSR1"),
        # A shell that outlives its child's signal reports it as a number.
        ("bash -c 'kill -SEGV $$'; exit $?", "FAILED", "Error", 139, None, "exit code 139"),
    ],
)
def test_how_a_command_ends(
    home: Home,
    tmp_path: Path,
    command: str,
    status: str,
    reason: str,
    code: int,
    name: str | None,
    message: str,
) -> None:
    run = execute("run", command, cwd=str(tmp_path))
    assert (run.status.value, run.reason, run.exit_code, run.signal) == (status, reason, code, name)
    assert message in run.message
    record = home.record("run")
    assert (record["status"], record["reason"], record["exit_code"], record["signal"]) == (status, reason, code, name)
    assert (record["failed_rank"] is None) == (status == "COMPLETED")
    phases = [phase["status"] for phase in record["lifecycle"]]
    assert phases == ["PENDING", "QUEUED", "STARTING", "RUNNING", "TERMINATING", status]
    assert [attempt["status"] for attempt in record["resumptions"]] == [status]
    assert (record["supervisor"], record["ranks"]) == (None, [])


@pytest.mark.parametrize("home", HOSTILE, indirect=True)
def test_any_home_will_do(home: Home) -> None:
    run = execute("run", 'printf "%s" "$LOCALRUN_RUN_DIR"; echo x > "$LOCALRUN_CHECKPOINT_DIR/a"', parameters={"a": 1})
    assert stdout_bytes(run) == os.fsencode(home.runs / "run")
    assert Path(run.path, "checkpoints", "a").read_text() == "x\n"
    assert run.result() == os.fsencode(home.runs / "run").decode(errors="replace")
    assert [each.name for each in localrun.get_runs()] == ["run"]


class TestNothingOfTheUsersRan:
    def check(self, run: localrun.Run, *words: str) -> None:
        assert (run.status, run.reason, run.exit_code) == (RunStatus.FAILED, "FailedToStart", None)
        for word in words:
            assert word in run.message
        record = record_of(run.path)
        phases = [phase["status"] for phase in record["lifecycle"]]
        assert phases == ["PENDING", "QUEUED", "STARTING", "TERMINATING", "FAILED"]

    def test_the_folder_is_gone(self, home: Home, tmp_path: Path) -> None:
        self.check(execute("run", "true", cwd=str(tmp_path / "gone"), max_retries=3), str(tmp_path / "gone"))

    def test_the_folder_is_a_file(self, home: Home, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        self.check(execute("run", "true", cwd=str(tmp_path / "file")), str(tmp_path / "file"))

    def test_the_command_is_longer_than_the_system_takes(self, home: Home) -> None:
        self.check(execute("run", "true " + "x" * 200_000), "rgument list too long")

    def test_the_next_run_starts(self, home: Home, tmp_path: Path) -> None:
        execute("bad", "true", cwd=str(tmp_path / "gone"))
        assert execute("good", "true", cwd=str(tmp_path)).status is RunStatus.COMPLETED


@pytest.mark.parametrize(
    "data",
    [b"", b"no newline", b"\r\nwindows\r\n\rmac\r", bytes(range(256)), b"\xff\xfe\x80 \xc3", b"\x00\x00", b"\n\n \t\n"],
)
def test_bytes_are_exact(home: Home, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "data").write_bytes(data)
    run = execute("run", "cat data; cat data >&2", cwd=str(tmp_path))
    assert stdout_bytes(run) == data
    assert stderr_bytes(run) == data
    assert run.stdout() == run.stderr() == data.decode(errors="replace")


def test_much_output_is_all_there(home: Home) -> None:
    run = execute("run", "seq 1000000; seq 1000000 >&2")
    wanted = "".join(f"{i}\n" for i in range(1, 1000001))
    assert run.stdout() == wanted
    assert run.stderr() == wanted


class TestEnvironment:
    def environment(self, run: localrun.Run) -> dict[str, str]:
        entries = [os.fsdecode(entry) for entry in stdout_bytes(run).split(b"\0") if entry]
        return dict(entry.split("=", 1) for entry in entries)

    def test_what_every_run_is_told(self, home: Home) -> None:
        run = execute("my-run", "env -0", stop_grace=2.5)
        seen = self.environment(run)
        folder = str(home.runs / "my-run")
        wanted = {
            "RUN_NAME": "my-run",
            "LOCALRUN_RUN_NAME": "my-run",
            "LOCALRUN_RUN_DIR": folder,
            "LOCALRUN_CHECKPOINT_DIR": f"{folder}/checkpoints",
            "LOCALRUN_STOP_GRACE_S": "2.5",
            "RESUMPTION_INDEX": "0",
            "PARAMETERS": f"{folder}/parameters.yaml",
            "NODE_RANK": "0",
            "NUM_NODES": "1",
            "WORLD_SIZE": "1",
            "LOCAL_WORLD_SIZE": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "PYTHONUNBUFFERED": "1",
        }
        assert {name: seen.get(name) for name in wanted} == wanted

    def test_it_is_the_submitters_with_env_variables_over_it(self, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MINE", "kept")
        monkeypatch.setenv("BOTH", "submitter's")
        monkeypatch.setenv("RAW", "\udcff\n é")
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
        monkeypatch.setenv("RUN_NAME", "outer")
        config = {"BOTH": "run's", "NUMBER": 3, "FLAG": True, "EMPTY": "", "MULTI": "a\nb"}
        seen = self.environment(execute("run", "env -0", env_variables=config))
        assert (seen["MINE"], seen["BOTH"], seen["RAW"]) == ("kept", "run's", "\udcff\n é")
        assert (seen["NUMBER"], seen["FLAG"], seen["EMPTY"], seen["MULTI"]) == ("3", "true", "", "a\nb")
        assert (seen["CUDA_VISIBLE_DEVICES"], seen["RUN_NAME"]) == ("", "run")

    def test_it_is_that_of_the_submission_and_not_of_the_dispatcher(
        self, home: Home, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("WHO", "first")
        execute("first", "true")
        assert home.dispatcher() is not None
        monkeypatch.setenv("WHO", "second")
        run = submit("second", 'sleep 0.05; printf "$WHO"')
        monkeypatch.setenv("WHO", "later")
        assert run.result(60) == "second"

    @pytest.mark.parametrize("given", ["0", "", "x"])
    def test_buffering_is_as_the_user_says(self, home: Home, given: str) -> None:
        seen = self.environment(execute("run", "env -0", env_variables={"PYTHONUNBUFFERED": given}))
        assert seen["PYTHONUNBUFFERED"] == given

    def test_environment_values_are_shown_nowhere(self, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        run = execute("run", "exit 1", env_variables={"TOKEN": "s3cr3t"})
        assert "s3cr3t" not in repr(run) + str(run) + repr(run.config) + str(run.exception())

    def test_the_kept_environment_is_private_and_goes_with_the_queue(
        self, home: Home, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TOKEN", "s3cr3t")
        monkeypatch.setenv("LOCALRUN_IDLE_S", "0")
        run = submit("run", "sleep 0.2")
        (kept,) = (home.queue / "environments").iterdir()
        assert kept.stat().st_mode & 0o777 == 0o600
        run.wait(60)
        wait_until(lambda: home.dispatcher() is None)
        assert list((home.queue / "environments").iterdir()) == []
        for path in Path(run.path).rglob("*"):
            assert path.is_dir() or b"s3cr3t" not in path.read_bytes(), path


SIGNALS = "grep -E '^Sig(Blk|Ign)' /proc/self/status"


def blocked_and_ignored(run: localrun.Run) -> tuple[int, ...]:
    """The masks that `SIGNALS` printed, without the two signals that belong to the C library."""
    return tuple(int(mask, 16) & ~(0b11 << 31) for mask in re.findall(r"[0-9a-f]{16}", run.stdout()))


class TestSurroundings:
    def test_the_folder_is_the_submitters_or_the_given_one(
        self, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        here, there = tmp_path / "here", tmp_path / "the're\n"
        here.mkdir()
        there.mkdir()
        monkeypatch.chdir(here)
        assert execute("here", "pwd").stdout() == f"{here}\n"
        assert execute("there", "pwd", cwd=str(there)).stdout() == f"{there}\n"
        assert execute("relative", "pwd", cwd="..").stdout() == f"{tmp_path}\n"
        assert localrun.get_run("here").cwd == str(here)

    @pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
    def test_the_umask_is_the_submitters(self, home: Home, tmp_path: Path, umask: int) -> None:
        before = os.umask(umask)
        try:
            run = submit("run", "umask; touch f", cwd=str(tmp_path))
        finally:
            os.umask(before)
        assert int(run.result(60), 8) == umask
        assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o666 & ~umask

    def test_the_runs_own_files_are_private_under_any_umask(self, home: Home) -> None:
        before = os.umask(0)
        try:
            run = execute("run", "echo a; echo b >&2", parameters={"a": 1})
        finally:
            os.umask(before)
        for path in [Path(run.path), *Path(run.path).rglob("*")]:
            assert path.stat().st_mode & 0o077 == 0, path
        assert stat.S_IMODE(Path(run.path, "checkpoints").stat().st_mode) == 0o700

    def test_there_is_no_input_and_no_terminal(self, home: Home) -> None:
        run = execute("run", "readlink /proc/self/fd/0; cat; tty; ps -o tty= $$")
        assert run.stdout().split() == ["/dev/null", "not", "a", "tty", "?"]

    def test_no_descriptor_but_the_three_is_inherited(self, home: Home) -> None:
        reader, writer = os.pipe()
        os.set_inheritable(writer, True)
        try:
            run = execute("run", "ls /proc/$$/fd; true")
        finally:
            os.close(reader)
            os.close(writer)
        assert set(map(int, run.stdout().split())) <= {0, 1, 2, 255}  # 255 is bash's own

    def test_no_signal_is_blocked_or_ignored(self, home: Home) -> None:
        assert blocked_and_ignored(execute("run", SIGNALS)) == (0, 0)

    def test_it_leads_a_session_of_its_own(self, home: Home) -> None:
        run = execute("run", "echo $$; ps -o sid= $$; ps -o pgid= $$")
        assert len(set(run.stdout().split())) == 1

    def test_limits_are_the_submitters(self, home: Home) -> None:
        run = execute("run", "ulimit -Hn")
        assert run.stdout().strip() in {str(resource.getrlimit(resource.RLIMIT_NOFILE)[1]), "unlimited"}

    def test_it_is_bash(self, home: Home) -> None:
        run = execute("run", "set -o pipefail; a=(1 2 3)\nfalse | true; echo ${#a[@]} $?\n# comment\n")
        assert run.stdout() == "3 1\n"


class TestWhatIsLeft:
    def test_nothing_in_the_background_outlives_a_command(self, home: Home, tmp_path: Path) -> None:
        run = execute("run", "setsid sleep 1000 & echo $!; (sleep 1000 &) ; disown -a; exit 4", stop_grace=5)
        assert (run.status, run.reason, run.exit_code) == (RunStatus.FAILED, "Error", 4)
        assert not is_alive(int(run.stdout()))
        assert [each for each in home.processes() if "sleep" in each.command] == []

    def test_what_ends_in_the_grace_is_given_the_time(self, home: Home, tmp_path: Path) -> None:
        background = "trap 'sleep 0.3; echo saved; exit' TERM; echo up; while :; do sleep 0.05; done"
        run = execute("run", f'bash -c "{background}" & until [ -s $LOCALRUN_RUN_DIR/logs/0/rank_0.out ]; do :; done')
        assert run.status is RunStatus.COMPLETED
        assert run.stdout().split() == ["up", "saved"]

    def test_the_folder_holds_what_it_should(self, home: Home) -> None:
        run = execute("run", "true", parameters={"lr": 0.1, "layers": [1, 2], "name": "ünï"})
        assert {path.name for path in Path(run.path).iterdir()} == {
            "config.json", "parameters.yaml", "provenance.json", "checkpoints", "logs", ".lock",
        }  # fmt: skip
        assert sorted(path.name for path in Path(run.path, "logs", "0").iterdir()) == ["rank_0.err", "rank_0.out"]
        assert list(home.runs.iterdir()) == [Path(run.path)]


def test_parameters_are_read_where_parameters_says(home: Home) -> None:
    parameters = {
        "lr": 1e-4,
        "deep": {"list": [1, 2.5, None, True]},
        "text": "yes",
        "ünï": "日本\n",
        "date": "2020-01-01",
    }
    run = execute("run", 'cat "$PARAMETERS"', parameters=parameters)
    import yaml

    assert yaml.safe_load(run.stdout()) is not None
    assert RunConfig.from_file(_wrapped(Path(run.path, "parameters.yaml"))).parameters == parameters
    assert run.config.parameters == parameters
    assert not Path(execute("without", "true").path, "parameters.yaml").exists()


def _wrapped(path: Path) -> Path:
    """A configuration file around a file of parameters."""
    wrapped = path.with_name("wrapped.yaml")
    lines = path.read_text().splitlines(keepends=True)
    wrapped.write_text("parameters:\n" + "".join(f"  {line}" for line in lines))
    return wrapped


def test_the_record_is_complete(home: Home) -> None:
    run = execute("run", "exit 2", metadata={"k": [1]}, env_variables={"A": "1"}, cpus=0.5, max_retries=0)
    record = json.loads(Path(run.path, "config.json").read_bytes())
    wanted = {
        "schema", "uid", "name", "run_type", "status", "reason", "message", "exit_code", "failed_rank", "created_at",
        "updated_at", "start_time", "end_time", "fn_name", "cmds", "creator", "creation_stacktrace", "host", "python",
        "cwd", "error", "error_traceback", "upstream_artifacts", "downstream_artifacts", "config", "gpus",
        "resumptions", "lifecycle", "events", "metadata",
    }  # fmt: skip
    assert wanted <= record.keys()
    assert record["run_type"] == "COMMAND"
    assert record["cmds"] == ["exit 2"]
    assert record["config"]["command"] == "exit 2"
    assert record["metadata"] == {"k": [1]}
    assert "test_the_record_is_complete" in record["creation_stacktrace"]
    times = [record[name] for name in ("created_at", "start_time", "end_time")]
    assert times == sorted(times)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", each) for each in times)


def test_python_that_ignores_nothing_dies_of_its_pipe(home: Home) -> None:
    """Python ignores SIGPIPE for itself; a pipeline in a run must end as in a shell."""
    run = execute("run", "set -o pipefail; yes | head -1; echo ${PIPESTATUS[0]}")
    assert run.stdout() == "y\n141\n"


class TestSubmitters:
    """Whatever state a submitting process is in, the dispatcher and its runs are themselves."""

    @pytest.mark.parametrize(
        "setup",
        [
            "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())",
            "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})",
            "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
            "[signal.signal(s, signal.SIG_IGN) for s in (1, 2, 3, 10, 12, 15)]",
            "signal.signal(signal.SIGINT, signal.SIG_IGN)",
        ],
        ids=["all blocked", "SIGCHLD blocked", "SIGCHLD ignored", "many ignored", "in the background"],
    )
    def test_signals(self, home: Home, setup: str) -> None:
        run_python(
            f"""
            import signal, sys
            {setup}
            import localrun
            localrun.create_run(localrun.RunConfig(name="run", command=sys.argv[1])).wait(8)
            """,
            f"{SIGNALS}; sleep 0.3",
        )
        run = localrun.get_run("run")
        assert run.status is RunStatus.COMPLETED
        assert blocked_and_ignored(run) == (0, 0)

    def test_a_blocked_signal_keeps_no_run_from_being_stopped(self, home: Home) -> None:
        run_python("""
            import signal
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM})
            import localrun
            run = localrun.create_run(localrun.RunConfig(name="run", command="sleep 1000"))
            localrun.wait_for_run_status("run", "RUNNING", timeout=30)
        """)
        assert localrun.stop_run("run", timeout=8).status is RunStatus.STOPPED

    def test_the_dispatcher_holds_nothing_of_its_submitters(self, home: Home) -> None:
        """A descriptor that is left open keeps a pipe's reader waiting and a lock held."""
        reader, writer = os.pipe()
        run_python(
            """
            import localrun
            localrun.create_run(localrun.RunConfig(name="run", command="sleep 1000"))
            localrun.wait_for_run_status("run", "RUNNING", timeout=30)
            """,
            pass_fds=[writer],
        )
        os.close(writer)
        os.set_blocking(reader, False)
        try:
            assert os.read(reader, 1) == b""
        except BlockingIOError:
            pytest.fail("the dispatcher or the supervisor has the submitter's descriptor")
        finally:
            os.close(reader)
            localrun.stop_run("run")

    def test_the_dispatcher_stands_in_nobodys_folder(self, home: Home, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir()
        code = 'import localrun; localrun.create_run(localrun.RunConfig(name="run", command="true", cwd="/")).wait(30)'
        run_python(code, cwd=str(tmp_path / "elsewhere"))
        dispatcher = home.dispatcher()
        assert dispatcher is not None
        assert os.readlink(f"/proc/{dispatcher}/cwd") == "/"

    def test_stopped_by_the_terminal_it_was_started_from(self, home: Home) -> None:
        """Ctrl-C in the terminal of whoever was first reaches neither the dispatcher nor the runs."""
        child = run_python(
            """
            import os, signal
            import localrun
            signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background
            localrun.create_run(localrun.RunConfig(name="run", command="sleep 0.3"))
            localrun.wait_for_run_status("run", "RUNNING", timeout=30)
            os.killpg(0, signal.SIGINT)
            """,
            ok=False,
            start_new_session=True,
        )
        assert child.returncode != 0
        assert localrun.get_run("run").wait(30).status is RunStatus.COMPLETED


def test_the_dispatcher_leaves_by_itself(home: Home) -> None:
    execute("run", "true")
    assert home.dispatcher() is not None
    wait_until(lambda: home.dispatcher() is None)
    wait_until(lambda: home.processes() == [])


def test_a_bad_idle_time_is_refused_before_anything_is_created(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALRUN_IDLE_S", "soon")
    with pytest.raises(localrun.RunConfigError, match="LOCALRUN_IDLE_S"):
        submit("run", "true")
    assert not home.runs.exists() or not list(home.runs.iterdir())
