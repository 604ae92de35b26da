"""``localrun util`` and ``localrun doctor``: the machine, the queue, and whether all is well."""

from __future__ import annotations

import json
import os
from pathlib import Path

import commandline
import pytest
from commandline import CPUS, Terminal, block, ok, refused
from support import Home, wait_until


def doctor() -> tuple[int, dict[str, dict[str, str]]]:
    """The exit code, and what was found, by check."""
    ended = commandline.run("doctor", "-o", "json", COLUMNS="20")
    return ended.code, {finding["check"]: finding for finding in json.loads(ended.out)}


def test_util_of_an_idle_machine(home: Home) -> None:
    text = ok("util").text
    assert text.splitlines()[1].split() == ["CPUs", str(CPUS), "0", str(CPUS)]
    assert "0 active, 0 queued" in text
    known = json.loads(ok("util", "-o", "json", COLUMNS="20").out)
    assert known["cpus"] == {"total": CPUS, "used": 0, "free": CPUS}
    assert (known["active"], known["queued"]) == ([], [])
    assert not home.path.exists()


def test_util_says_who_has_what_and_who_waits_for_it(home: Home, tmp_path: Path) -> None:
    go = block(tmp_path)
    ok("run", "--name", "first", "--cpus", CPUS, "--memory", "1GiB", "--", "true")
    ok("run", "--name", "second", "--cpus", 0.5, "--", "true")
    known = json.loads(ok("util", "-o", "json").out)
    assert known["cpus"]["used"] == CPUS
    assert [(run["name"], run["status"], run["cpus"]) for run in known["active"]] == [("blocker", "RUNNING", CPUS)]
    first, second = known["queued"]
    assert (first["name"], first["position"], first["lacking"], first["held_by"]) == (
        "first", 1, ["cpus"], ["blocker"],
    )  # fmt: skip
    assert (second["name"], second["position"], second["held_by"]) == ("second", 2, ["blocker"])
    text = ok("util", COLUMNS="20").text
    assert "1 active, 2 queued" in text
    assert f"1st of 2, waits for {CPUS} CPU{'s' if CPUS > 1 else ''} held by blocker" in text
    assert "1 GiB" in text
    go.touch()
    ok("wait", "first", "second")


def test_a_narrow_terminal_cuts_nothing_that_matters(home: Home, tmp_path: Path) -> None:
    go = block(tmp_path)
    ok("run", "--name", "waiting", "--cpus", CPUS, "--", "true")
    shown = {}
    for command in ("util", "doctor", "describe waiting"):
        with Terminal(*command.split(), columns=40, NO_COLOR="1") as terminal:
            assert terminal.end() == 0
            assert all(len(line) <= 40 for line in terminal.seen.splitlines())
            shown[command] = " ".join(terminal.seen.split())
    why = f"1st of 1, waits for {CPUS} CPU{'s' if CPUS > 1 else ''} held by blocker"
    assert why in shown["util"] and why in shown["describe waiting"]
    assert "locks exclude other processes, and are free when released" in shown["doctor"]
    assert any(len(line) > 40 for line in ok("doctor", COLUMNS="40").text.splitlines())
    go.touch()
    ok("wait", "waiting")


def test_doctor_finds_a_new_home_well(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALRUN_CONTAINER_ENGINE", "no-engine")  # the machine's own may be down: `containers` has one
    code, found = doctor()
    assert code == 0
    assert {name: finding["status"] for name, finding in found.items()} == dict.fromkeys(
        ("python", "shell", "watches", "home", "locks", "disk", "gpus", "containers", "dispatcher", "runs"), "ok"
    )
    lines = ok("doctor").text.splitlines()
    assert [line.split()[:2] for line in lines] == [["ok", name] for name in found]
    assert sorted(path.name for path in home.path.iterdir()) == ["queue", "runs"]


def test_doctor_finds_a_home_that_others_can_write(home: Home) -> None:
    home.path.mkdir()
    home.path.chmod(0o777)
    code, found = doctor()
    assert (code, found["home"]["status"]) == (1, "fail")
    assert "chmod go-w" in found["home"]["message"]
    assert "locks" not in found
    ended = commandline.run("doctor")
    assert (ended.code, ended.said) == (1, "")
    home.path.chmod(0o755)
    code, found = doctor()
    assert (code, found["home"]["status"]) == (0, "warn")
    assert "chmod 700" in found["home"]["advice"]


def test_doctor_finds_a_home_that_is_a_file(home: Home) -> None:
    home.path.write_text("")
    code, found = doctor()
    assert (code, found["home"]["status"]) == (1, "fail")


def test_doctor_starts_a_dispatcher_for_what_waits(home: Home, tmp_path: Path) -> None:
    go = block(tmp_path)
    ok("run", "--name", "it", "--cpus", CPUS, "--", "true")
    dispatcher = home.dispatcher()
    assert dispatcher is not None
    commandline.kill_and_wait(dispatcher)
    code, found = doctor()
    assert (code, found["dispatcher"]["status"]) == (0, "ok")
    assert found["dispatcher"]["message"] == f"alive, pid {home.dispatcher()}"
    go.touch()
    home.all_ended("it")


def test_doctor_sees_lost_runs_put_right(home: Home) -> None:
    ok("run", "--name", "it", "--", "sleep 600")
    ok("wait", "it", "--status", "RUNNING")
    for pid in (home.dispatcher(), home.supervisor("it")):
        assert pid is not None
        commandline.kill_and_wait(pid)
    code, found = doctor()
    assert (code, found["runs"]["status"]) == (0, "ok")
    assert home.record("it")["reason"] == "SystemFailure"


def test_doctor_warns_of_a_run_that_nobody_can_put_right(home: Home) -> None:
    ok("run", "--follow", "--name", "it", "--", "true")
    record = home.record("it")
    record["status"] = record["lifecycle"][-1]["status"] = "RUNNING"
    (home.runs / "it" / "config.json").write_text(json.dumps(record))
    code, found = doctor()
    assert (code, found["runs"]["status"]) == (0, "warn")
    assert "it" in found["runs"]["message"]
    wait_until(lambda: home.dispatcher() is None)
    record["status"] = record["lifecycle"][-1]["status"] = "COMPLETED"
    (home.runs / "it" / "config.json").write_text(json.dumps(record))


def test_a_bad_setting_is_named(home: Home) -> None:
    assert "LOCALRUN_IDLE_S" in refused("util", LOCALRUN_IDLE_S="soon")
    assert not home.path.exists()


def test_bad_command_lines(home: Home) -> None:
    assert "invalid choice" in refused("util", "-o", "xml")
    assert "unrecognized" in refused("doctor", "who")
    assert not os.path.exists(home.path)
