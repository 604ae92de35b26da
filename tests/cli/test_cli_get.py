"""``localrun get runs``: what is listed, for people and for programs."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import commandline
import pytest
from commandline import Terminal, block, ok, refused
from support import Home

LONG = "a-very-long-name-" * 7 + "x"


def names(*args: str) -> list[str]:
    """The names that ``get runs`` lists."""
    return ok("get", "runs", *args, "-o", "name").text.split()


@pytest.fixture
def three(home: Home) -> Home:
    """Three runs that have ended: lr-1 completed, lr-2 failed, other completed."""
    for name, command in (("lr-1", "true"), ("lr-2", "exit 3"), ("other", "true")):
        commandline.run("run", "--follow", "--name", name, "--", command)
    return home


def test_there_may_be_none(home: Home) -> None:
    ended = ok("get", "runs")
    assert (ended.text, ended.said) == ("", "no runs\n")
    assert ok("get", "runs", "-o", "json").text == "[]\n"
    assert ok("get", "runs", "-o", "name").text == ""
    assert not home.path.exists()


def test_the_newest_is_first(three: Home) -> None:
    assert names() == ["other", "lr-2", "lr-1"]
    assert names("--limit", "1") == ["other"]
    assert names("--limit", "0") == []
    assert names("--all") == ["other", "lr-2", "lr-1"]
    assert ok("get", "runs", "--limit", "2").said == "there are more: --all shows them\n"
    assert ok("get", "runs", "--limit", "3").said == ""


def test_by_name_glob_folder_and_status(three: Home) -> None:
    assert names("lr-*") == ["lr-2", "lr-1"]
    assert names("lr-1", "other", "lr-1") == ["other", "lr-1"]
    assert ok("get", "run", str(three.runs / "lr-1"), "-o", "name").text == "lr-1\n"
    assert names("--status", "failed") == ["lr-2"]
    assert names("--status", "Failed,COMPLETED", "lr-*") == ["lr-2", "lr-1"]
    assert names("--status", "failed", "--status", "completed") == ["other", "lr-2", "lr-1"]
    assert names("nothing*") == []


def test_a_table_in_a_pipe_is_whole_at_any_width(home: Home) -> None:
    ok("run", "--follow", "--name", LONG, "--", "echo '[bold]x[/bold]' \t\x1b[31m | cat\ntrue")
    lines = ok("get", "runs", COLUMNS="20").text.splitlines()
    assert lines[0].split() == ["NAME", "STATUS", "REASON", "AGE", "DURATION", "GPUS", "EXIT", "COMMAND"]
    assert lines[1].split()[:3] == [LONG, "COMPLETED", "Completed"]
    assert lines[1].endswith(r"echo '[bold]x[/bold]' \t\x1b[31m | cat\ntrue")
    assert len(lines) == 2


def test_json_is_valid_at_any_width(three: Home) -> None:
    listed = json.loads(ok("get", "runs", "-o", "json", COLUMNS="20").out)
    assert [run["name"] for run in listed] == ["other", "lr-2", "lr-1"]
    failed = listed[1]
    assert (failed["status"], failed["reason"], failed["exit_code"], failed["cmds"]) == (
        "FAILED", "Error", 3, ["exit 3"],
    )  # fmt: skip
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+\+00:00", failed["created_at"])
    assert failed["created_at"] == three.record("lr-2")["created_at"]


def test_a_table_on_a_terminal_fits_it_a_line_each(home: Home) -> None:
    ok("run", "--follow", "--name", LONG, "--", f"echo {'x' * 300}")
    ok("run", "--follow", "--name", "some-name", "--", "true")
    for columns in (200, 80, 40, 20, 3):
        with Terminal("get", "runs", columns=columns) as terminal:
            assert terminal.end() == 0
        plain = re.sub(r"\x1b\[[0-9;]*m", "", terminal.seen)
        assert plain != terminal.seen  # colours
        lines = plain.splitlines()
        assert len(lines) == 3 and all(len(line) <= columns for line in lines), plain
        if columns >= 20:
            assert lines[1].startswith("some-name"[: len(lines[0].split("  ")[0])][:4])
            assert lines[2].split("  ")[0].endswith("x") and "…" in lines[2]


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colour_is_for_those_who_want_it(home: Home, name: str, value: str) -> None:
    ok("run", "--follow", "--name", "it", "--", "true")
    with Terminal("get", "runs", **{name: value}) as terminal:
        assert terminal.end() == 0
    assert "\x1b" not in terminal.seen and "it    COMPLETED" in terminal.seen


def test_filters_are_those_of_the_sdk(three: Home) -> None:
    import getpass

    middle = three.record("lr-2")["created_at"]
    ended = three.record("lr-2")["end_time"]
    assert names("--after", middle) == ["other", "lr-2"]
    assert names("--before", middle) == ["lr-1"]
    assert names("--ended-after", ended) == ["other", "lr-2"]
    assert names("--ended-before", ended) == ["lr-1"]
    assert names("--after", "1h") == ["other", "lr-2", "lr-1"]
    assert names("--before", "1h") == names("--ended-before", "1.5d") == []
    assert names("--after", "2020-01-01", "lr-*") == ["lr-2", "lr-1"]
    assert names("--user", getpass.getuser()) == ["other", "lr-2", "lr-1"]
    assert names("--user", "nobody-else") == names("--cluster", "elsewhere") == names("--gpus", "1") == []
    assert names("--gpus", "0", "--gpu-type", "none", "--type", "command", "lr-1") == ["lr-1"]
    assert names("--type", "function") == []


def test_waiting_and_running_ones_are_listed(home: Home, tmp_path: Path) -> None:
    go = block(tmp_path)
    ok("run", "--name", "it", "--cpus", commandline.CPUS, "--", "true")
    rows = [line.split()[:2] for line in ok("get", "runs").text.splitlines()[1:]]
    assert rows == [["it", "QUEUED"], ["blocker", "RUNNING"]]
    go.touch()
    ok("wait", "it", "blocker")


def test_deleted_ones_are_found_when_asked_for(three: Home) -> None:
    ok("delete", "run", "lr-1")
    assert names() == ["other", "lr-2"]
    assert names("--deleted") == ["other", "lr-2", "lr-1"]
    assert names("--deleted", "lr-1") == names("--deleted", "?r-1") == ["lr-1"]
    assert "nothing" in refused("get", "runs", "--deleted", "nothing", code=1)
    assert "COMPLETED (deleted)" in ok("get", "runs", "--deleted", "lr-1").text
    assert json.loads(ok("get", "runs", "--deleted", "lr-1", "-o", "json").out)[0]["deleted"] is True


def test_an_unreadable_record_is_listed_with_the_reason(three: Home) -> None:
    record = three.runs / "lr-2" / "config.json"
    record.write_text("{broken")
    assert names("--status", "unknown") == ["lr-2"]
    assert "Unreadable" in ok("get", "runs").text
    assert "not readable" in ok("describe", "run", "lr-2").text
    assert json.loads(ok("describe", "run", "lr-2", "-o", "json").out)["status"] == "UNKNOWN"
    assert record.read_text() == "{broken"


def test_an_unknown_name_may_have_been_another(three: Home) -> None:
    assert refused("get", "run", "lr1", code=1).endswith("did you mean 'lr-1'?")
    assert refused("get", "run", "lr-3", code=1).endswith("did you mean 'lr-2' or 'lr-1'?")
    assert "did you mean" not in refused("get", "run", "quite-different", code=1)


def test_bad_input_is_refused(home: Home, tmp_path: Path) -> None:
    assert "none of" in refused("get", "runs", "--status", "asleep")
    assert "whole number" in refused("get", "runs", "--limit", "-1")
    assert "invalid choice" in refused("get", "runs", "-o", "xml")
    assert "invalid choice" in refused("get", "clouds")
    assert "must be a time" in refused("get", "runs", "--after", "soon")
    assert "must be a time" in refused("get", "runs", "--before", "xd")
    assert "none of INTERACTIVE" in refused("get", "runs", "--type", "batch")
    assert "whole number" in refused("get", "runs", "--gpus", "some")
    assert "KIND" in refused("get")
    assert "no config.json" in refused("get", "run", f"{tmp_path}/")
    assert "no run at" in refused("get", "run", f"{tmp_path}/nowhere", code=1)
    assert "'a b' has ' '" in refused("get", "run", "a b")
    assert not home.path.exists()


def test_clusters(home: Home) -> None:
    header, row = ok("get", "clusters").text.splitlines()
    assert header.split() == ["NAME", "ACTIVE", "QUEUED", "GPUS", "FREE", "CPUS", "MEMORY", "INSTANCE"]
    assert row.split()[:3] == [os.uname().nodename, "0", "0"]
    assert ok("get", "clusters", "a", "b", "-o", "name").text == "a\nb\n"
    ok("run", "--name", "run", "--", "sleep 1000")
    ok("wait", "run", "--status", "RUNNING")
    [cluster] = json.loads(ok("get", "cluster", "-o", "json", COLUMNS="20").out)
    [run] = cluster["utilization"]["active_runs_by_user"]
    assert (run["name"], run["status"], run["created_at"][-6:]) == ("run", "RUNNING", "+00:00")
    ok("stop", "run", "run")
