"""``localrun describe``: everything about a run, and no secret of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import commandline
from commandline import CPUS, block, ok, refused
from support import Home, wait_until


def facts(text: str) -> dict[str, str]:
    """The facts before the first section, by title."""
    lines = [line for line in text.partition("lifecycle\n")[0].splitlines() if line.startswith("  ")]
    return {line[2:].partition("  ")[0].strip(): line[2:].partition("  ")[2].strip() for line in lines}


def test_a_failed_run(home: Home, tmp_path: Path) -> None:
    commandline.run("run", "--follow", "--name", "it", "--metadata", "who=me", "--", "exit 3", cwd=tmp_path)
    text = ok("describe", "run", "it").text
    known = facts(text)
    assert (known["status"], known["reason"], known["exit code"]) == ("FAILED", "Error", "3")
    assert (known["command"], known["working in"], known["resumptions"]) == ("exit 3", str(tmp_path), "0")
    assert known["folder"] == str(home.runs / "it")
    assert known["logs"] == str(home.runs / "it" / "logs" / "0")
    phases = [line.split()[2] for line in text.partition("lifecycle\n")[2].partition("configuration")[0].splitlines()]
    assert phases == ["PENDING", "QUEUED", "STARTING", "RUNNING", "TERMINATING", "FAILED"]
    assert "configuration\n  name: it\n  command: exit 3\n" in text
    assert "  who: me\n" in text
    assert ok("describe", "it").text.splitlines()[0] == "run it"


def test_a_run_may_be_called_run(home: Home) -> None:
    ok("run", "--follow", "--name", "run", "--", "true")
    assert ok("describe", "run").text.splitlines()[0] == "run run"
    assert ok("describe", "run", "run").text.splitlines()[0] == "run run"


def test_a_waiting_and_a_running_one(home: Home, tmp_path: Path) -> None:
    go = block(tmp_path)
    ok("run", "--name", "it", "--cpus", CPUS, "--", "true")
    assert "held by blocker" in facts(ok("describe", "it").text)["waiting"]
    known = facts(ok("describe", "blocker").text)
    assert known["supervisor"] == f"pid {home.supervisor('blocker')}, alive"
    assert known["dispatcher"] == f"pid {home.dispatcher()}, alive"
    go.touch()
    ok("wait", "it")
    assert "supervisor" not in facts(ok("describe", "it").text)


def test_values_of_the_environment_are_hidden(home: Home) -> None:
    ok("run", "--follow", "--name", "it", "--env", "TOKEN=hunter2", "--", "true")
    for form in ("text", "json"):
        text = ok("describe", "it", "-o", form).text
        assert "TOKEN" in text and "***" in text and "hunter2" not in text
    assert "hunter2" not in ok("get", "runs", "-o", "json").text


def test_json_is_the_record(home: Home) -> None:
    ok("run", "--follow", "--name", "it", "--", "true")
    assert json.loads(ok("describe", "it", "-o", "json", COLUMNS="20").out) == home.record("it")


def test_a_copied_folder(home: Home, tmp_path: Path) -> None:
    ok("run", "--follow", "--name", "it", "--", "true")
    shutil.copytree(home.runs / "it", tmp_path / "copy" / "it")
    assert facts(ok("describe", "./copy/it", cwd=tmp_path).text)["status"] == "COMPLETED"
    assert facts(ok("describe", str(tmp_path / "copy" / "it")).text)["folder"] == str(tmp_path / "copy" / "it")


def test_what_is_no_run_is_refused(home: Home, tmp_path: Path) -> None:
    assert "is not a run folder: it has no config.json" in refused("describe", f"{tmp_path}/")
    assert "no run at" in refused("describe", f"{tmp_path}/x", code=1)
    assert "there is none of that name" in refused("describe", "run", "nowhere", code=1)
    assert "takes one run" in refused("describe", "one", "two")
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_others_must_end_before_says_which(home: Home, tmp_path: Path) -> None:
    go = block(tmp_path)
    ok("run", "--name", "it", "--cpus", 0, "--after", "blocker", "--after-any", "blocker", "--", "true")
    assert facts(ok("describe", "it").text)["waiting"] == (
        "1st of 1, starts after blocker has completed (run blocker is RUNNING), "
        "blocker has ended (run blocker is RUNNING)"
    )
    waiting = json.loads(ok("util", "-o", "json").out)["queued"][0]
    assert waiting["after"][0] == "blocker has completed (run blocker is RUNNING)"
    go.touch()
    ok("wait", "it")


def test_a_run_that_makes_way_and_the_one_it_makes_way_for(home: Home) -> None:
    stubborn = "trap '' TERM; touch $LOCALRUN_CHECKPOINT_DIR/there; while :; do sleep 0.05; done"
    ok(
        "run",
        "--name",
        "victim",
        "--cpus",
        CPUS,
        "--priority",
        "low",
        "--preemptible",
        "--stop-grace",
        20,
        "--",
        stubborn,
    )
    wait_until((home.runs / "victim/checkpoints/there").exists)
    ok("run", "--name", "it", "--cpus", CPUS, "--", "true")
    wait_until(lambda: home.record("victim")["preempt_requested"])
    assert facts(ok("describe", "victim").text)["stopping"] == "Preempted, made way for it"
    assert facts(ok("describe", "it").text)["waiting"].endswith("held by victim; victim makes way for it")
    waiting = json.loads(ok("util", "-o", "json").out)["queued"][0]
    assert (waiting["name"], waiting["making_way"]) == ("it", ["victim"])
    rank = home.rank("victim")
    assert rank is not None
    commandline.kill_and_wait(rank)
    ok("wait", "it")
    ok("stop", "run", "victim")
    assert "stopping" not in facts(ok("describe", "victim").text)
