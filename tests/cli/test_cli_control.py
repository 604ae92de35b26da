"""``localrun stop``, ``start``, ``delete`` and ``wait``: one run, many, and the question before many."""

from __future__ import annotations

import json
from pathlib import Path

import commandline
import pytest
from commandline import Terminal, ok, refused, start
from support import Home, is_alive

HANGING = "echo there; sleep 600"


def queue(*names: str, command: str = HANGING) -> None:
    """Queue runs that need no CPU, and wait until they run."""
    for name in names:
        ok("run", "--name", name, "--cpus", 0, "--stop-grace", 5, "--", command)
    for name in names:
        ok("wait", name, "--status", "RUNNING")


def statuses(home: Home, *names: str) -> list[str]:
    """The statuses of these runs."""
    return [home.status(name) for name in names]


def test_a_run_is_stopped_with_its_processes(home: Home) -> None:
    queue("it")
    rank = home.rank("it")
    assert rank is not None
    ended = ok("stop", "run", "it")
    assert (ended.text, ended.said) == ("", "it: STOPPED\n")
    assert not is_alive(rank)
    ended = ok("stop", "run", "it")
    assert ended.said == "it has ended already: STOPPED\n"


def test_why_a_run_was_stopped_is_kept(home: Home) -> None:
    queue("it")
    ok("stop", "run", "it", "--reason", "no longer wanted")
    assert home.record("it")["message"].endswith(": no longer wanted")


def test_filters_choose_what_is_stopped(home: Home) -> None:
    queue("it")
    assert ok("stop", "runs", "--before", "1h", "-y").said == "no runs to stop\n"
    assert "give -y" in refused("stop", "runs", "--after", "1h")
    assert ok("stop", "runs", "i*", "--after", "1h", "-y").said == "it: STOPPED\n"


def test_a_stop_that_takes_its_grace_says_so(home: Home) -> None:
    ok("run", "--name", "it", "--stop-grace", 2, "--", "trap '' TERM; echo there; while :; do sleep 0.1; done")
    process = start("logs", "-f", "it")
    assert process.stdout is not None and process.stdout.readline() == b"there\n"
    assert ok("stop", "run", "it").said == "stopping it, up to 2 s\nit: STOPPED\n"
    commandline.finish(process)
    assert home.record("it")["signal"] == "SIGKILL"


def test_many_are_stopped_by_glob_and_status_without_being_asked(home: Home) -> None:
    queue("a-1", "a-2", "b-1")
    ok("stop", "runs", "a-*", "-y")
    assert statuses(home, "a-1", "a-2", "b-1") == ["STOPPED", "STOPPED", "RUNNING"]
    assert ok("stop", "runs", "a-*", "-y").said == "no runs to stop\n"
    ok("stop", "runs", "--status", "running", "-y")
    assert home.status("b-1") == "STOPPED"
    assert ok("stop", "runs", "--all").said == "no runs to stop\n"


@pytest.mark.parametrize(
    "which", [["a", "b"], ["a*"], ["--all"], ["--status", "RUNNING"]], ids=["two", "glob", "all", "filter"]
)
@pytest.mark.parametrize("verb", ["stop", "delete"])
def test_without_a_terminal_to_ask_on_many_are_refused(home: Home, verb: str, which: list[str]) -> None:
    queue("a", "b")
    assert "give -y" in refused(verb, "runs", *which)
    assert statuses(home, "a", "b") == ["RUNNING", "RUNNING"]
    ok("stop", "runs", "--all", "-y")


@pytest.mark.parametrize(
    ("answer", "code", "expected"), [("y\r", 0, "STOPPED"), ("no\r", 1, "RUNNING"), ("\r", 1, "RUNNING")]
)
def test_on_a_terminal_the_person_is_asked(home: Home, answer: str, code: int, expected: str) -> None:
    queue("a", "b")
    with Terminal("stop", "runs", "a", "b") as terminal:
        seen = terminal.read_until(r"stop 2 runs\? \[y/N\] ")
        assert "a  RUNNING" in seen and "b  RUNNING" in seen
        terminal.type(answer)
        assert terminal.end() == code
    assert statuses(home, "a", "b") == [expected, expected]
    ok("stop", "runs", "--all", "-y")


def test_ctrl_c_at_the_question_does_nothing(home: Home) -> None:
    queue("a")
    with Terminal("delete", "runs", "a*") as terminal:
        terminal.read_until(r"delete run a\? \[y/N\] ")
        terminal.type("\x03")
        assert terminal.end() == 130
    assert home.status("a") == "RUNNING"
    ok("stop", "run", "a")


@pytest.mark.parametrize("verb", ["stop", "start", "delete"])
def test_a_list_with_an_unknown_name_does_nothing(home: Home, verb: str) -> None:
    queue("it")
    assert "did you mean 'it'?" in refused(verb, "runs", "it", "itt", "-y", code=1)
    assert home.status("it") == "RUNNING"
    ok("stop", "run", "it")


@pytest.mark.parametrize("verb", ["stop", "start", "delete"])
def test_bad_command_lines(home: Home, tmp_path: Path, verb: str) -> None:
    assert "name the runs" in refused(verb, "runs")
    assert "--all" in refused(verb, "runs", "it", "--all")
    assert "invalid choice" in refused(verb, "it")
    assert "none of" in refused(verb, "runs", "--status", "asleep")
    assert "no config.json" in refused(verb, "run", f"{tmp_path}/")
    assert "none of that name" in refused(verb, "run", "it", code=1)
    assert not home.path.exists()


def test_ended_runs_are_started_again(home: Home) -> None:
    ok("run", "--follow", "--name", "it", "--", "true")
    commandline.run("run", "--follow", "--name", "bad", "--", "exit 1")
    assert ok("start", "run", "it").said == "it: QUEUED\n"
    ok("wait", "it")
    assert len(home.record("it")["resumptions"]) == 2
    assert ok("start", "runs", "--status", "failed", "-y").said == "bad: QUEUED\n"
    commandline.run("wait", "bad")


def test_a_run_that_has_not_ended_is_not_started(home: Home) -> None:
    queue("it")
    assert "it: cannot go from RUNNING" in refused("start", "run", "it", code=1)
    assert ok("start", "runs", "--all", "-y").said == "no runs to start\n"
    ok("stop", "run", "it")


def test_deleted_runs_are_out_of_the_list_and_found_when_asked_for(home: Home) -> None:
    queue("active")
    ok("run", "--follow", "--name", "ended", "--", "true")
    ok("run", "--follow", "--name", "kept", "--", "true")
    ended = ok("delete", "runs", "active", "ended", "-y")
    assert ended.said == "active: deleted\nended: deleted\n"
    assert ok("get", "runs", "-o", "name").text == "kept\n"
    found = json.loads(ok("get", "runs", "--deleted", "active", "-o", "json").out)
    assert [run["status"] for run in found] == ["STOPPED"]


def test_a_run_whose_record_is_broken_is_left_alone(home: Home) -> None:
    ok("run", "--follow", "--name", "it", "--", "true")
    ok("run", "--follow", "--name", "other", "--", "true")
    record = home.runs / "it" / "config.json"
    record.write_text("{broken")
    ended = ok("delete", "runs", "--all", "-y")
    assert "it is left alone: " in ended.said and "other: deleted" in ended.said
    assert "not readable" in refused("delete", "run", "it", code=1)
    assert "not readable" in refused("stop", "run", "it", code=1)
    assert record.read_text() == "{broken"


def test_wait_gives_the_first_code_that_is_not_zero(home: Home) -> None:
    for name, code in (("a", 0), ("b", 5), ("c", 6)):
        ok("run", "--name", name, "--", f"exit {code}")
    ended = commandline.run("wait", "a", "b", "c")
    assert (ended.code, ended.out, ended.err) == (5, b"", b"")
    assert commandline.run("wait", "c", "*").code == 6


def test_wait_may_give_up_and_may_wait_for_a_status(home: Home) -> None:
    queue("it")
    assert "it is RUNNING after 0.1 s" in refused("wait", "it", "--timeout", "0.1", code=1)
    ok("wait", "it", "--status", "running")
    assert "it is RUNNING after" in refused("wait", "it", "--status", "COMPLETED", "--timeout", "0", code=1)
    ok("stop", "run", "it")
    assert "did not reach COMPLETED" in refused("wait", "it", "--status", "COMPLETED", code=1)
    assert "none of" in refused("wait", "it", "--status", "asleep")
    assert "--timeout" in refused("wait", "it", "--timeout", "soon")
    assert "RUN" in refused("wait")
    assert "none of that name" in refused("wait", "nowhere", code=1)
