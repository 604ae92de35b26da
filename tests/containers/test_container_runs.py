"""What is a container's alone: its image, what it is given of the machine, and what it isn't."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from docker import BARE, BASH, OTHER_PYTHON, PYTHON, SHELL, Engine, engine_that
from support import Home, execute, find_processes, kill, run_python, start_python, stdout_bytes, submit, wait_until

import localrun
from localrun import RunConfigError, RunStatus, SystemFailureError
from localrun.engine import processes


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which a test's runs work."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def wrote(run: Any) -> bytes:
    try:
        return stdout_bytes(run)
    except FileNotFoundError:
        return b""


def inspected(engine: Engine, run: Any, rank: int = 0) -> dict[str, Any]:
    """What the engine says of a rank's container."""
    found: dict[str, Any] = json.loads(engine("inspect", f"localrun-{run.run_uid}-0-{rank}").stdout)[0]
    return found


def started(engine: Engine, command: str = "echo up; sleep 1000", **fields: Any) -> Any:
    """A run in a container that is at work."""
    run = submit("run", command, **{"image": BASH, "stop_grace": 2, **fields})
    wait_until(lambda: wrote(run))
    return run


def test_in_an_image_with_a_shell_alone(engine: Engine) -> None:
    run = execute("run", "echo $0; exit 3", image=SHELL)
    assert (run.stdout(), run.exit_code) == ("sh\n", 3)
    ended = localrun.get_cluster().run(["exit 2", "true"], stream_logs=False, image=SHELL)
    assert [code for code, _, _ in ended] == [2, 0]


class TestNothingOfTheUsersRan:
    def check(self, run: localrun.Run, reason: str, *words: str) -> None:
        assert (run.status, run.reason, run.exit_code) == (RunStatus.FAILED, reason, None)
        for word in words:
            assert word in run.message
        phases = [phase.status.value for phase in run.lifecycle]
        assert phases == ["PENDING", "QUEUED", "STARTING", "TERMINATING", "FAILED"]
        assert run.resumption_count == 0

    @pytest.mark.parametrize("pull", ["never", "missing", "always"])
    def test_a_missing_image_without_a_registry(self, engine: Engine, pull: str) -> None:
        began = time.monotonic()
        run = execute("run", "true", image="localhost:1/none:1", pull=pull, max_retries=3, retry_on_system_failure=True)
        assert time.monotonic() - began < 20
        self.check(run, "FailedImagePull", "localhost:1/none:1", "pull is never" if pull == "never" else "refused")

    def test_a_registry_that_is_silent_delays_no_stop(self, engine: Engine) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            run = submit("run", "true", image=f"127.0.0.1:{silent.getsockname()[1]}/none:1")
            wait_until(lambda: find_processes(f"LOCALRUN_RUN_UID={run.run_uid}"))
            asked, _ = silent.accept()
            run.stop(timeout=10)
            asked.close()
        assert (run.status, run.reason) == (RunStatus.STOPPED, "StoppedByUser")
        assert "RUNNING" not in [phase.status.value for phase in run.lifecycle]

    def test_no_shell(self, engine: Engine) -> None:
        self.check(execute("run", "true", image=BARE), "FailedToStart", BARE, "sh")

    def test_no_python(self, engine: Engine) -> None:
        run = localrun.function(image=SHELL)(os.getcwd).run().wait(60)
        self.check(run, "FailedToStart", SHELL, "python3")

    def test_an_entrypoint_that_does_not_start_it(self, engine: Engine) -> None:
        engine("build", "-t", "stubborn", "-", input=f'FROM {SHELL}\nENTRYPOINT ["echo", "no:"]\n'.encode())
        self.check(execute("run", "true", image="stubborn"), "FailedToStart")

    def test_a_volume_that_is_gone(self, engine: Engine, place: Path) -> None:
        (place / "data").mkdir()
        submit("first", "until [ -e go ]; do sleep 0.01; done; rmdir data")
        run = submit("run", "true", image=SHELL, volumes=["./data:/data"], after=["first"])
        (place / "go").touch()
        self.check(run.wait(60), "FailedToStart", str(place / "data"))

    def test_the_working_folder_is_gone(self, engine: Engine, place: Path) -> None:
        self.check(execute("run", "true", image=SHELL, cwd=str(place / "gone")), "FailedToStart", str(place / "gone"))


def test_an_entrypoint_that_starts_it(engine: Engine) -> None:
    entry = '["sh", "-c", "echo from the entrypoint; exec \\"$@\\"", "entry"]'
    engine("build", "-t", "polite", "-", input=f"FROM {SHELL}\nENTRYPOINT {entry}\n".encode())
    run = execute("run", "echo and from the run", image="polite")
    assert set(run.stdout().splitlines()) == {"from the entrypoint", "and from the run"}


def test_another_python_is_refused_before_the_call(engine: Engine) -> None:
    docker.add_old_python(engine)
    run = localrun.function(image=OTHER_PYTHON)(os.getcwd).run().wait(60)
    assert (run.status, run.reason) == (RunStatus.FAILED, "FailedToStart")
    assert f"needs {docker.OURS}" in run.message
    assert run.message in run.stderr()


def test_the_python_that_it_needs_is_found_beside_another(engine: Engine) -> None:
    docker.add_old_python(engine)
    path = f"ENV PATH=/bin:{sys.base_prefix}/bin"
    engine("build", "-t", "two", "-", input=f"FROM {PYTHON}\nCOPY --from={OTHER_PYTHON} / /\n{path}\n".encode())
    found = localrun.function(image="two")(lambda: ".".join(map(str, __import__("sys").version_info[:2])))
    assert found(run_name="run") == docker.OURS
    assert docker.OURS not in execute("other", "python3 --version", image="two").stdout().partition("(")[0]


class TestAReadOnlyRoot:
    """As an engine can be set up to give to every container: what isn't mounted can't be written to."""

    @pytest.fixture(autouse=True)
    def _read_only(self, engine: Engine, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        does = '[[ $1 == run ]] && shift && set -- run --read-only "$@"'
        monkeypatch.setenv("LOCALRUN_CONTAINER_ENGINE", engine_that(place, engine, does))

    def test_functions_and_the_folders_of_the_run(self, place: Path) -> None:
        @localrun.function(image=PYTHON)
        def write() -> int:
            Path(os.environ["LOCALRUN_CHECKPOINT_DIR"], "state").write_text("x")
            return Path("here").write_text("xy")

        assert write(run_name="run") == 2
        assert (place / "here").read_text() == "xy"

    def test_who_writes_elsewhere_is_told_so(self) -> None:
        run = execute("command", "echo >/tmp/x", image=BASH)
        assert run.exit_code == 1
        assert "Read-only file system" in run.stderr()
        with pytest.raises(OSError, match="Read-only file system") as caught:
            localrun.function(image=PYTHON)(lambda: Path("/tmp/x").touch())(run_name="run")
        assert caught.value.filename == "/tmp/x"


def test_output_is_stored_once(engine: Engine, place: Path) -> None:
    """The engine keeps nothing of it."""

    def stored() -> int:
        return int(subprocess.run(["du", "-sxm", engine.folder], capture_output=True, text=True).stdout.split()[0])

    write = "head -c 104857600 /dev/zero; touch out"
    run = started(engine, f"echo up; until [ -e go ]; do sleep 0.01; done; {write}; sleep 999")
    before = stored()
    (place / "go").touch()
    wait_until(lambda: (place / "out").exists(), 60)
    assert stored() < before + 10
    assert Path(run.path, "logs/0/rank_0.out").stat().st_size == 100 * 2**20 + 3
    run.stop()


def test_two_homes_share_an_engine(engine: Engine, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    run = started(engine)
    code = """
        import localrun
        config = localrun.RunConfig(name="run", command="echo theirs", image="bash")
        run = localrun.create_run(config).wait(60)
        print(run.stdout(), end="")
        localrun.delete_run("run")
        lost = localrun.create_run(localrun.RunConfig(name="lost", command="sleep 1000", image="bash"))
        localrun.wait_for_run_status(lost, "RUNNING", timeout=60)
        print(lost.run_uid)
    """
    other = Home(home.place / "other", home.place)
    environ = os.environ | {"LOCALRUN_HOME": str(other.path)}
    printed = run_python(code, env=environ).stdout.splitlines()
    assert printed[0] == "theirs"
    kill(other.supervisor("lost"))
    wait_until(lambda: other.status("lost") == "FAILED", 60)
    wait_until(lambda: not [each for each in engine.containers() if printed[1] in each])
    other.end()
    assert run.refresh().status is RunStatus.RUNNING
    assert inspected(engine, run)["State"]["Running"]
    run.stop()


class TestNoEngine:
    @pytest.mark.parametrize(
        ("name", "value", "word"),
        [
            ("DOCKER_HOST", "unix:///nowhere/docker.sock", "nowhere"),
            ("LOCALRUN_CONTAINER_ENGINE", "no-such-engine", "LOCALRUN_CONTAINER_ENGINE"),
        ],
    )
    def test_is_told_at_submission(
        self, engine: Engine, home: Home, monkeypatch: pytest.MonkeyPatch, name: str, value: str, word: str
    ) -> None:
        monkeypatch.setenv(name, value)
        with pytest.raises(SystemFailureError, match=word):
            submit("run", "true", image=SHELL)
        assert not home.records() and not home.tickets()


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"volumes": ["/nowhere/at/all:/data"]}, "/nowhere/at/all doesn't exist"),
        ({"cwd": "/"}, "cwd: / is the image's own"),
        ({"integrations": [{"integration_type": "pip_packages", "packages": ["x"]}]}, "use an image that has them"),
    ],
)
def test_what_is_refused_at_submission(engine: Engine, home: Home, fields: dict[str, Any], word: str) -> None:
    with pytest.raises(RunConfigError, match=word):
        submit("run", "true", image=SHELL, **fields)
    assert not home.records()


def test_a_repository_is_cloned_before_it_starts(engine: Engine, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"):
        monkeypatch.setenv(name, "someone")
    for words in ("init --quiet repo", "-C repo commit --quiet --allow-empty -m first"):
        subprocess.run(["git", *words.split()], check=True)
    integration = {"integration_type": "git_repo", "git_repo": f"{place}/repo"}
    run = execute("run", "pwd; ls -d repo/.git; exit 3", image=SHELL, integrations=[integration])
    assert (run.stdout().split(), run.exit_code) == ([f"{run.path}/work", "repo/.git"], 3)
    integration["git_repo"] = f"{place}/none"
    run = execute("other", "true", image=SHELL, integrations=[integration])
    assert (run.status, run.reason) == (RunStatus.FAILED, "Error")
    assert "git clone" in run.message


def test_out_of_memory(engine: Engine) -> None:
    run = execute("run", "tail /dev/zero", image=SHELL, memory="30MiB")
    assert (run.status, run.reason, run.exit_code, run.signal) == (RunStatus.FAILED, "OutOfMemory", 137, "SIGKILL")
    run = execute("child", "tail /dev/zero; exit 0", image=SHELL, memory="30MiB")
    assert (run.status, run.reason) == (RunStatus.COMPLETED, "Completed")


def test_what_the_engine_ended_was_not_the_function(engine: Engine) -> None:
    """A child of its own was out of memory; what the function says of it counts."""

    @localrun.function(image=PYTHON, memory="100MiB")
    def function() -> None:
        import subprocess

        raise ValueError(subprocess.call(["tail", "/dev/zero"]))

    with pytest.raises(ValueError, match="-9"):
        function(run_name="run")


def test_the_image_is_on_record(engine: Engine, home: Home) -> None:
    execute("run", "sleep 1", image=SHELL)
    assert home.record("run")["image_id"] == engine("image", "inspect", "--format={{.Id}}", SHELL).stdout.strip()


def test_places_in_the_working_folder_are_the_callers(engine: Engine, place: Path) -> None:
    (place / "data").mkdir()
    (place / "data" / "file").write_text("data\n")
    volumes = [f"./data:{place}/sub/data", f"./data/file:{place}/other/file:ro"]
    run = execute("run", "cat sub/data/file other/file", image=SHELL, volumes=volumes)
    assert run.stdout() == "data\ndata\n"
    made = [place / "sub", place / "sub" / "data", place / "other"]
    assert {path.stat().st_mode & 0o777 for path in made} == {0o700}  # as the engine makes none


def test_what_it_is_given_and_what_not(engine: Engine, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", "the submitter's")
    (place / "data").mkdir()
    (place / "data" / "file").write_text("data\n")
    localrun.create_secret(localrun.Secret("plain", "mounted", "hush", mount_path="/run/here"))
    command = """
        echo $HOME $NVIDIA_VISIBLE_DEVICES "[$MINE]" $SECRET_PATH_PLAIN; cat /data/file /mnt/config/parameters.yaml
        cat /run/here/secret; echo; echo x >/data/new; echo x >/ro/new; echo x >>/run/here/secret
        echo x >>/mnt/config/parameters.yaml; df -k /dev/shm | tail -n 1 | awk '{print $2}'
    """
    volumes = ["./data:/data", f"{place}/data:/ro:ro"]
    run = execute("run", command, image=SHELL, volumes=volumes, parameters={"lr": 0.1}, shm_size="32MiB")
    assert run.stdout().splitlines() == [
        "/tmp void [] /run/here/secret", "data", "lr: 0.1", "hush", str(32 << 10),
    ]  # fmt: skip
    assert run.stderr().count("Read-only file system") == 3
    assert (place / "data" / "new").read_text() == "x\n"


def test_limits_only_when_asked(engine: Engine) -> None:
    run = started(engine)
    host = inspected(engine, run)["HostConfig"]
    run.stop()
    half = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    assert (host["NanoCpus"], host["Memory"], host["ShmSize"], host["NetworkMode"]) == (0, 0, half, "host")
    assert host["LogConfig"]["Type"] == "none"  # its output is stored once, in the run's logs
    run = submit("two", "echo up; sleep 1000", image=BASH, cpus=1, memory="64MiB", nproc_per_node=2, network="none")
    wait_until(lambda: wrote(run))
    hosts = [inspected(engine, run, rank)["HostConfig"] for rank in (0, 1)]
    run.stop()
    assert [(host["NanoCpus"], host["Memory"]) for host in hosts] == [(5 * 10**8, 32 << 20)] * 2
    assert hosts[0]["NetworkMode"] == "none"
    assert hosts[1]["NetworkMode"].startswith("container:")


def test_values_are_in_no_command_line(engine: Engine) -> None:
    localrun.create_secret(localrun.Secret("token", value="s3cr3t-one"))
    run = started(engine, env_variables={"OTHER": "s3cr3t-two", "LINES": "s3cr3t\nthree"})
    lines = b"".join(path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline"))
    seen = inspected(engine, run)["Config"]["Env"]
    run.stop()
    assert b"s3cr3t" not in lines
    assert {"TOKEN=s3cr3t-one", "OTHER=s3cr3t-two", "LINES=s3cr3t\nthree"} <= set(seen)


@pytest.mark.parametrize("name", ["with spaces, 'and' \"quotes\" $HOME `id` \\", "new\nline\t", "ünï-日本語-🏃"])
def test_any_folder_will_do(engine: Engine, place: Path, name: str) -> None:
    (place / name).mkdir()
    run = execute("run", 'printf %s "$PWD"; echo x >file', image=SHELL, cwd=str(place / name))
    assert stdout_bytes(run) == os.fsencode(place / name)
    assert (place / name / "file").read_text() == "x\n"


def test_a_function_imports_from_the_working_folder(engine: Engine, place: Path) -> None:
    (place / "helper.py").write_text("VALUE = 42\n")

    @localrun.function(image=PYTHON, env_variables={"PYTHONDONTWRITEBYTECODE": 1})
    def imported() -> Any:
        import sys

        sys.path.insert(0, "")
        import helper

        return helper.VALUE, sorted(name for name in sys.modules if name.startswith("localrun."))[:1]

    assert imported(run_name="run")[0] == 42


def test_whoever_connects_is_in_the_container(engine: Engine) -> None:
    run = started(engine, "echo up; touch /tmp/here; sleep 1000", env_variables={"A": "1"})
    code = "import sys, localrun; sys.exit(localrun.connect('run', sys.argv[1]))"
    child = start_python(code, "echo $A; ls -d /tmp/here; pwd; exit 3", stdin=subprocess.DEVNULL)
    out, _ = child.communicate(timeout=60)
    assert (child.returncode, out.split()) == (3, ["1", "/tmp/here", str(Path.cwd())])
    shell = start_python(code, "trap '' TERM; echo in; sleep 1000", stdout=subprocess.PIPE)
    assert shell.stdout is not None
    assert shell.stdout.readline() == "in\n"
    run.stop()
    shell.wait(20)  # with what code an engine's client ends then is its own affair


def test_a_user_without_privileges_finds_and_signals_its_own(engine: Engine) -> None:
    """Neither takes root nor the engine: the processes are this machine's and carry the run's mark."""
    uid = "0123456789abcdef"
    options = ["--user=4321:4321", f"--env={processes.MARK}={uid}", "--init", "--log-driver=none", "--name=other"]
    engine("run", "--detach", *options, SHELL, "sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.05; done")
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setresgid(4321, 4321, 4321)
        os.setresuid(4321, 4321, 4321)
        from localrun.engine.launchers.containerprocesses import send

        everything = processes.snapshot()
        found = [everything[pid] for pid in processes.marked(uid, everything)]
        send(found, 15, ())
        os._exit(len(found) if len(found) >= 2 else 0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) >= 2
    assert engine("wait", "other").stdout == "9\n"
    engine("rm", "-f", "other")


def test_doctor_tells_of_the_engine(engine: Engine) -> None:
    from localrun.cli.doctor import _containers

    status, message, _ = _containers()
    assert status == "ok"
    assert engine("version", "--format", "{{.Server.Version}}").stdout.strip() in message


def test_telemetry_is_of_what_is_in_the_container(engine: Engine) -> None:
    run = started(engine, "echo up; while :; do :; done")
    rows: Iterator[Any] = wait_until(lambda: [row for row in run.telemetry() if row["cpu_percent"] > 20], 30)
    run.stop()
    assert rows
