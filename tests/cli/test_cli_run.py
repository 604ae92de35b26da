"""``localrun run``: what is queued, what --follow passes on, and what is refused before anything is made."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import commandline
import pytest
from commandline import CPUS, Terminal, block, ok, refused, start
from support import Home, wait_until


def config(home: Home, name: str) -> dict[str, object]:
    """A run's configuration as its record has it."""
    return home.record(name)["config"]  # type: ignore[no-any-return]


def test_a_name_is_printed_and_the_run_goes_on_by_itself(home: Home) -> None:
    ended = ok("run", "--name", "first", "--", "echo", "hello")
    assert (ended.text, ended.said) == ("first\n", "")
    assert ok("wait", "first").code == 0
    assert home.status("first") == "COMPLETED"


def test_a_run_without_a_name_is_named_after_its_command(home: Home) -> None:
    name = ok("run", "--", "true").text.strip()
    assert name.startswith("true-")
    ok("wait", name)


def test_several_words_are_arguments_and_one_is_a_command_line(home: Home) -> None:
    words = ["a b", "$HOME", "'", "*"]
    assert ok("run", "--follow", "--", "printf", "%s\\n", *words).text.splitlines() == words
    assert ok("run", "--follow", "--", "echo one && echo two | tr a-z A-Z").text == "one\nTWO\n"
    assert ok("run", "--follow", "--", "echo", "--", "-n").text == "-- -n\n"


def test_follow_passes_on_exact_bytes_to_their_own_streams(home: Home) -> None:
    ended = commandline.run("run", "--follow", "--", r"printf '\377\0a\r\nb'; printf '\200err' >&2; exit 3")
    assert (ended.code, ended.out, ended.err) == (3, b"\377\0a\r\nb", b"\200err")


def test_follow_passes_on_output_while_it_comes(home: Home, tmp_path: Path) -> None:
    go = tmp_path / "go"
    process = start("run", "--follow", "--", f"printf prompt; until [ -e {go} ]; do sleep 0.02; done; echo end")
    assert process.stdout is not None
    assert process.stdout.read(6) == b"prompt"
    go.touch()
    assert commandline.finish(process).out == b"end\n"


@pytest.mark.parametrize(
    ("command", "code"),
    [("true", 0), ("exit 7", 7), ("no-such-program", 127), ("kill -KILL $$", 137), ("kill -TERM $$", 143)],
)
def test_follow_and_wait_exit_as_the_run_did(home: Home, command: str, code: int) -> None:
    assert commandline.run("run", "--name", "it", "--follow", "--", command).code == code
    assert commandline.run("wait", "it").code == code


def test_a_stopped_run_followed_is_143(home: Home) -> None:
    process = start("run", "--name", "it", "--follow", "--", "echo there; sleep 60")
    assert process.stdout is not None and process.stdout.readline() == b"there\n"
    ok("stop", "run", "it")
    ended = commandline.finish(process)
    assert ended.code == 143
    assert "STOPPED, StoppedByUser" in ended.said
    assert commandline.run("wait", "it").code == 143


def test_a_run_over_its_max_duration_followed_is_124(home: Home) -> None:
    ended = commandline.run("run", "--follow", "--max-duration", "0.0001", "--", "sleep 60")
    assert ended.code == 124
    assert "STOPPED, MaxDurationExceeded" in ended.said


def test_a_run_that_failed_without_a_code_is_1_and_says_why(home: Home, tmp_path: Path) -> None:
    ended = commandline.run("run", "--follow", "--cwd", str(tmp_path / "gone"), "--", "true")
    assert ended.code == 1
    assert "FAILED, FailedToStart" in ended.said and "gone" in ended.said


def test_follow_goes_through_retries(home: Home) -> None:
    command = "echo attempt $RESUMPTION_INDEX; exit $((1 - RESUMPTION_INDEX))"
    assert ok("run", "--follow", "--max-retries", 1, "--", command).text == "attempt 0\nattempt 1\n"


def test_a_followed_run_that_waits_says_where_and_for_what(home: Home, tmp_path: Path) -> None:
    go = block(tmp_path)
    ok("run", "--name", "ahead", "--cpus", CPUS, "--", "true")
    process = start("run", "--name", "it", "--cpus", CPUS, "--follow", "--", "echo done")
    assert process.stderr is not None
    line = process.stderr.readline().decode()
    what = f"{CPUS} CPU{'s' if CPUS > 1 else ''}"
    assert line == f"queued: 2nd of 2, waits for {what} held by blocker\n"
    go.touch()
    ended = commandline.finish(process)
    assert (ended.code, ended.out) == (0, b"done\n")
    assert all(line.startswith("queued: ") for line in ended.said.splitlines())


def test_on_a_terminal_the_place_in_the_queue_is_updated_in_place(home: Home, tmp_path: Path) -> None:
    go = block(tmp_path)
    ok("run", "--name", "ahead", "--cpus", CPUS, "--", "true")
    with Terminal("run", "--name", "it", "--cpus", CPUS, "--follow", "--", "echo done") as terminal:
        terminal.read_until(r"\rqueued: 2nd of 2, waits for \d+ CPUs? held by blocker\x1b\[K")
        ok("stop", "run", "ahead")
        terminal.read_until(r"\rqueued: 1st of 1, ")
        go.touch()
        assert terminal.end() == 0
        assert "\r\x1b[K" in terminal.seen  # taken back
        assert terminal.seen.endswith("done\r\n")
        assert "queued" not in terminal.seen.rpartition("\x1b[K")[2]


def test_ctrl_c_detaches_from_a_followed_run(home: Home, tmp_path: Path) -> None:
    go = tmp_path / "go"
    process = start("run", "--name", "it", "--follow", "--", f"echo there; until [ -e {go} ]; do sleep 0.02; done")
    assert process.stdout is not None and process.stdout.readline() == b"there\n"
    process.send_signal(signal.SIGINT)
    ended = commandline.finish(process)
    assert ended.code == 130
    assert "goes on" in ended.said and "localrun logs -f it" in ended.said and "localrun stop run it" in ended.said
    assert home.status("it") == "RUNNING"
    go.touch()
    assert ok("wait", "it").code == 0


def test_ctrl_c_on_the_terminal_reaches_the_follower_alone(home: Home, tmp_path: Path) -> None:
    go = tmp_path / "go"
    command = f"echo there; until [ -e {go} ]; do sleep 0.02; done"
    with Terminal("run", "--name", "it", "--follow", "--", command) as terminal:
        terminal.read_until("there\r\n")
        terminal.type("\x03")
        assert terminal.end() == 130
        assert "goes on" in terminal.seen
    assert home.status("it") == "RUNNING"
    go.touch()
    ok("wait", "it")


def test_whoever_stops_reading_ends_the_follower_quietly(home: Home) -> None:
    process = start("run", "--name", "it", "--stop-grace", 1, "--follow", "--", "yes")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait(timeout=60) == 141
    assert process.stderr.read() == b""
    process.stderr.close()
    ok("stop", "run", "it")


def test_flags_are_fields(home: Home) -> None:
    flags = {
        "name": "it", "cpus": "0.5", "memory": "1MiB", "priority": "low", "max-retries": "2", "max-duration": "1",
        "stop-grace": "3",
    }  # fmt: skip
    given = [word for flag, value in flags.items() for word in (f"--{flag}", value)]
    ok("run", *given, "--retry-on-system-failure", "--env", "A=b=c", "--metadata", "who=me", "--", "true")
    ok("wait", "it")
    request = home.record("it")["request"]
    assert (request["cpus"], request["memory"], request["priority"]) == (0.5, 1 << 20, "low")
    assert (request["max_retries"], request["max_duration"], request["stop_grace"]) == (2, 1.0, 3.0)
    assert request["retry_on_system_failure"] is True
    assert request["env_variables"] == {"A": "b=c"}
    assert home.record("it")["metadata"] == {"who": "me"}


def test_a_number_of_processes(home: Home) -> None:
    ok("run", "--name", "it", "--nproc-per-node", 2, "--", "true")
    ok("wait", "it")
    assert home.record("it")["request"]["nproc_per_node"] == 2
    assert "compute.nproc_per_node" in refused("run", "--nproc-per-node", "gpu", "--", "true")
    assert "compute.nproc_per_node" in refused("run", "--nproc-per-node", 0, "--", "true")
    assert "--nproc-per-node" in refused("run", "--nproc-per-node", "many", "--", "true")


def test_parameters_are_typed_and_nest(home: Home) -> None:
    params = ["lr=1e-4", "opt.name=adam", "opt.on=true", "layers=[1, 2]", "text=a: b", "none=null", "empty="]
    given = [word for param in params for word in ("--param", param)]
    assert "lr: 0.0001" in ok("run", "--follow", "--name", "it", *given, "--", "cat $PARAMETERS").text
    assert config(home, "it")["parameters"] == {
        "lr": 1e-4, "opt": {"name": "adam", "on": True}, "layers": [1, 2], "text": "a: b", "none": None, "empty": None,
    }  # fmt: skip


def test_a_file_is_run_and_flags_override_it(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "it.yaml"
    file.write_text(
        "name: filed\ncommand: echo $A $B\nenv_variables: {A: a, B: b}\nparameters: {x: {y: 1, z: 2}}\n"
        "compute: {cpus: 0.5}\n"
    )
    assert ok("run", "-f", str(file), "--follow").text == "a b\n"
    overrides = ["--name", "other", "--env", "B=c", "--param", "x.y=3", "--cpus", "1"]
    assert ok("run", "-f", str(file), "--follow", *overrides).text == "a c\n"
    assert home.record("filed")["request"]["cpus"] == 0.5
    assert home.record("other")["request"]["cpus"] == 1
    assert config(home, "other")["parameters"] == {"x": {"y": 3, "z": 2}}
    assert ok("run", "-f", str(file), "--follow", "--", "echo", "instead").text == "instead\n"


def test_older_spellings_in_a_file_are_told_of_in_a_line(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "it.json"
    file.write_text(json.dumps({"run_name": "old", "command": "true"}))
    ended = ok("run", "-f", str(file))
    assert ended.text == "old\n"
    assert ended.said == f"localrun: warning: {file}: run_name is an older spelling: use name\n"
    ok("wait", "old")


def test_a_run_is_queued_again_under_its_name(home: Home) -> None:
    ok("run", "--follow", "--name", "it", "--", "echo attempt $RESUMPTION_INDEX")
    assert ok("run", "-r", "it", "--follow").text == "attempt 1\n"
    assert ok("run", "-r", "it").text == "it\n"
    ok("wait", "it")
    assert len(home.record("it")["resumptions"]) == 3


def test_a_run_is_cloned_with_changes(home: Home, tmp_path: Path) -> None:
    ok("run", "--follow", "--name", "it", "--env", "A=1", "--env", "B=2", "--", "echo $A $B; pwd", cwd=tmp_path)
    there = ok("run", "--clone", "it", "--name", "copy", "--env", "B=3", "--follow", cwd=Path("/")).text
    assert there == f"1 3\n{tmp_path}\n"
    assert config(home, "it")["env_variables"] == {"A": "1", "B": "2"}
    assert ok("run", "--clone", "it", "--follow").text.startswith("1 2\n")
    assert ok("run", "--clone", "it", "--follow", "--", "echo new").text == "new\n"


def test_a_runs_folder_may_be_anywhere(home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere" / "it"
    assert ok("run", "--follow", "--path", str(folder), "--", "echo there").text == "there\n"
    assert (folder / "config.json").exists()
    assert ok("logs", str(folder)).text == "there\n"
    assert refused("run", "--path", str(folder), "--", "true", code=1)


BAD_COMMAND_LINES = {
    "nothing": ([], "nothing to run"),
    "no command": (["--"], "nothing to run"),
    "empty command": (["--", ""], "command: must not be empty"),
    "misplaced command": (["echo", "hi"], "localrun run -- echo hi"),
    "unknown flag": (["--cpu", "2", "--", "true"], "--cpu"),
    "name": (["--name", "a/b", "--", "true"], "name: 'a/b' has '/'"),
    "negative cpus": (["--cpus", "-1", "--", "true"], "compute.cpus"),
    "cpus no number": (["--cpus", "many", "--", "true"], "--cpus"),
    "too many cpus": (["--cpus", "100000", "--", "true"], "compute.cpus"),
    "memory": (["--memory", "lots", "--", "true"], "compute.memory"),
    "too much memory": (["--memory", "1000TiB", "--", "true"], "compute.memory"),
    "gpus": (["--gpus", "1", "--", "true"], "compute.gpus"),
    "priority": (["--priority", "urgent", "--", "true"], "scheduling.priority"),
    "env": (["--env", "A", "--", "true"], "NAME=VALUE"),
    "param": (["--param", "a=[1", "--", "true"], "a: "),
    "param in a value": (["--param", "a=1", "--param", "a.b=1", "--", "true"], "a.b"),
    "no such file": (["-f", "nowhere.yaml"], "nowhere.yaml: No such file"),
    "a folder as file": (["-f", "/"], "/: is a folder, not a file"),
    "two sources": (["-f", "x", "-r", "y"], "-f and -r"),
    "restart with changes": (["-r", "x", "--cpus", "2"], "-r"),
    "restart with a command": (["-r", "x", "--", "true"], "-r"),
    "clone to a path": (["--clone", "x", "--path", "y"], "--path"),
}
BAD_FILES = {
    "unknown key": ("command: x\ncomand: y\n", "did you mean 'command'?"),
    "unknown inner key": ("command: x\ncompute: {cpu: 2}\n", "compute: unknown key 'cpu'"),
    "name": ("command: x\nname: a/b\n", "name: 'a/b' has '/'"),
    "negative cpus": ("command: x\ncompute: {cpus: -1}\n", "compute.cpus"),
    "a list for a mapping": ("command: x\nparameters: [1]\n", "parameters: must be a mapping, not a list"),
    "a list alone": ("- command: x\n", "must be a mapping"),
    "no command": ("name: x\n", "command: must not be empty"),
    "syntax": ("command: [x\n", "line"),
}


@pytest.mark.parametrize("case", BAD_COMMAND_LINES)
def test_a_bad_command_line_is_one_line_and_nothing_is_made(home: Home, case: str) -> None:
    args, expected = BAD_COMMAND_LINES[case]
    assert expected in refused("run", *args)
    assert not home.path.exists()


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_one_line_and_nothing_is_made(home: Home, tmp_path: Path, case: str) -> None:
    text, expected = BAD_FILES[case]
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    assert expected in refused("run", "-f", str(file))
    assert not home.path.exists()


def test_a_secret_is_in_no_error(home: Home) -> None:
    assert "hunter2" not in refused("run", "--env", "hunter2", "--", "true")
    assert "hunter2" not in refused("run", "--env", "=hunter2", "--", "true")


def test_a_run_that_is_not_there_is_not_queued_again(home: Home) -> None:
    assert "did you mean" not in refused("run", "-r", "nowhere", code=1)
    assert "nowhere" in refused("run", "--clone", "nowhere", code=1)
    assert not home.path.exists()


def test_any_command_starts_what_waits_after_the_dispatcher_was_killed(home: Home, tmp_path: Path) -> None:
    go = block(tmp_path)
    ok("run", "--name", "it", "--cpus", CPUS, "--", "true")
    dispatcher = home.dispatcher()
    assert dispatcher is not None
    commandline.kill_and_wait(dispatcher)
    go.touch()
    wait_until(lambda: home.status("blocker") == "COMPLETED")
    if home.status("it") != "COMPLETED":  # a supervisor may have gone on to it by itself
        ok("get", "runs", "nothing*")
    home.all_ended("it")


def test_scheduling_is_said_by_flags(home: Home) -> None:
    ok("run", "--name", "a", "--", "true")
    ok(
        "run", "--name", "it", "--preemptible", "--after", "a", "--after-any", "a",
        "--nodes", 1, "--cluster", "here", "--instance", "x", "--", "true",
    )  # fmt: skip
    ok("wait", "it")
    asked = config(home, "it")
    assert asked["scheduling"] == {"preemptible": True, "after": ["a"], "after_any": ["a"]}
    assert asked["compute"] == {"nodes": 1, "cluster": "here", "instance": "x"}
    ok("run", "--clone", "it", "--name", "copy", "--not-preemptible", "--no-retry-on-system-failure", "--follow")
    assert config(home, "copy")["scheduling"] == {
        "preemptible": False, "after": ["a"], "after_any": ["a"], "retry_on_system_failure": False,
    }  # fmt: skip


def test_a_container_is_described_by_flags() -> None:
    from localrun.cli.fields import overrides
    from localrun.cli.main import parse
    from localrun.model.config import RunConfig

    flags = "--image i --volume /a:/b --volume /c:/d:ro --shm-size 1GiB --pull never --network none --secrets a,b"
    assert overrides(parse(["run", *flags.split(), "--", "x y", "z"]), RunConfig()) == {
        "image": "i", "volumes": ["/a:/b", "/c:/d:ro"], "shm_size": "1GiB", "pull": "never", "network": "none",
        "secrets": ["a", "b"], "command": "'x y' z",
    }  # fmt: skip
