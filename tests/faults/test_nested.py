"""A run that uses localrun itself: whatever it starts there is not a part of it, the dispatcher least of all."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from support import TERMINAL, Home, kill, look, submit, wait_until

import localrun
from localrun import RunStatus

# Submits runs as it is told to through files in its folder: ``submit <name> <command>``, and ends by ``end``.
OUTER = """
import os, sys, time
import localrun
from localrun import RunConfig
print("up", flush=True)
for line in sys.stdin:
    what, *words = line.split(" ", 2)
    if what == "end\\n":
        break
    run = localrun.create_run(RunConfig(name=words[0], command=words[1], compute={"cpus": 0}))
    print("submitted", run.name, flush=True)
"""


class Outer:
    """A run that takes orders through a pipe."""

    def __init__(self, home: Home, name: str = "outer") -> None:
        self._home = home
        self.fifo = home.place / f"{name}.orders"
        os.mkfifo(self.fifo)
        script = home.place / "outer.py"
        script.write_text(OUTER)
        self.run = submit(name, f"exec '{sys.executable}' '{script}' < '{self.fifo}'", cpus=0, stop_grace=1)
        self._orders = os.open(self.fifo, os.O_RDWR)
        self.wait_for("up")

    def wait_for(self, text: str) -> None:
        out = Path(self.run.path, "logs/0/rank_0.out")
        wait_until(lambda: out.exists() and text in out.read_text().splitlines(), what=text)

    def submit(self, name: str, command: str) -> None:
        os.write(self._orders, f"submit {name} {command}\n".encode())
        self.wait_for(f"submitted {name}")

    def end(self) -> None:
        os.write(self._orders, b"end\n")
        os.close(self._orders)
        self._home.all_ended(self.run.name)


@pytest.fixture
def outer(home: Home) -> Outer:
    return Outer(home)


def ancestors(pid: int | None) -> list[int]:
    """The parent of a process, its parent, and so on."""
    found = []
    while pid and pid > 1:
        stat = Path(f"/proc/{pid}/stat").read_text()
        pid = int(stat.rpartition(")")[2].split()[1])
        found.append(pid)
    return found


def test_a_function_submits_another_and_waits_for_it(home: Home) -> None:
    @localrun.function(cpus=0)
    def inner(x: int) -> int:
        return x + 1

    @localrun.function(cpus=0)
    def middle(x: int) -> int:
        value: int = inner(x, run_name="inner") * 10
        return value

    assert middle(1, run_name="middle") == 20
    assert localrun.get_run("inner").status is RunStatus.COMPLETED
    assert localrun.get_run("inner").inputs() == {"args": [1], "kwargs": {}}


def test_an_inner_run_outlives_the_outer_one(home: Home, outer: Outer) -> None:
    outer.submit("inner", "read x < gate; exit 5".replace("gate", str(home.place / "gate")))
    os.mkfifo(home.place / "gate")
    gate = os.open(home.place / "gate", os.O_RDWR)
    wait_until(lambda: home.status("inner") in ("RUNNING", "FAILED"))
    outer.end()
    assert home.status("outer") == "COMPLETED"
    os.write(gate, b"go\n" * 3)
    home.all_ended()
    os.close(gate)
    assert home.record("inner")["exit_code"] in (1, 5)
    assert home.record("inner")["reason"] == "Error"


def start_dispatcher_inside(home: Home, outer: Outer) -> int:
    """Let the next dispatcher be started by the outer run, so that it descends from that run's supervisor."""
    old = wait_until(home.dispatcher)
    kill(old)
    wait_until(lambda: home.dispatcher() is None)
    outer.submit("starter", "true")
    new = wait_until(home.dispatcher)
    assert new is not None
    assert home.supervisor("outer") in ancestors(new)
    home.all_ended("starter")
    return new


HOW = ["ends", "is stopped", "loses its supervisor"]


@pytest.mark.parametrize("how", HOW)
def test_a_dispatcher_that_was_started_inside_a_run_survives_it(home: Home, outer: Outer, how: str) -> None:
    dispatcher = start_dispatcher_inside(home, outer)
    outer.submit("inner", "sleep 1000")
    submit("stranger", "sleep 1000", cpus=0)
    for name in ("inner", "stranger"):
        wait_until(lambda name=name: home.status(name) == "RUNNING")
    supervisors = {name: home.supervisor(name) for name in ("inner", "stranger")}
    if how == "ends":
        outer.end()
    elif how == "is stopped":
        localrun.stop_run("outer", timeout=30)
    else:
        kill(home.supervisor("outer"))
        home.all_ended("outer")
    assert home.status("outer") in TERMINAL
    assert home.dispatcher() == dispatcher
    for name, supervisor in supervisors.items():
        assert (home.status(name), home.supervisor(name)) == ("RUNNING", supervisor)
        assert look(supervisor or 0) is not None
    assert {run.status for run in localrun.stop_runs(["inner", "stranger"], timeout=30)} == {RunStatus.STOPPED}


@pytest.mark.parametrize("how", HOW)
def test_runs_of_a_dispatcher_that_was_started_inside_and_killed_survive_too(
    home: Home, outer: Outer, how: str
) -> None:
    """Their supervisors are orphans then, and come to the outer run's supervisor."""
    start_dispatcher_inside(home, outer)
    outer.submit("inner", "sleep 1000")
    submit("stranger", "sleep 1000", cpus=0)
    for name in ("inner", "stranger"):
        wait_until(lambda name=name: home.status(name) == "RUNNING")
    supervisors = {name: home.supervisor(name) for name in ("inner", "stranger")}
    kill(home.dispatcher())
    wait_until(lambda: home.dispatcher() is None)
    if how == "ends":
        outer.end()
    elif how == "is stopped":
        localrun.stop_run("outer", timeout=30)
    else:
        kill(home.supervisor("outer"))
        localrun.get_run("outer").wait(30)
    assert home.status("outer") in TERMINAL
    for name, supervisor in supervisors.items():
        assert (home.status(name), home.supervisor(name)) == ("RUNNING", supervisor)
        assert look(supervisor or 0) is not None
    assert {run.status for run in localrun.stop_runs(["inner", "stranger"], timeout=30)} == {RunStatus.STOPPED}


def test_a_run_inside_is_not_told_it_is_the_outer_one(home: Home, outer: Outer) -> None:
    start_dispatcher_inside(home, outer)
    outer.submit("inner", "env -0")
    home.all_ended("inner")
    seen = dict(e.split("=", 1) for e in Path(home.runs, "inner/logs/0/rank_0.out").read_text().split("\0") if e)
    assert seen["RUN_NAME"] == seen["LOCALRUN_RUN_NAME"] == "inner"
    assert seen["LOCALRUN_RUN_DIR"] == str(home.runs / "inner")
    assert seen["LOCALRUN_RUN_UID"] == home.record("inner")["uid"]
    outer.end()


def test_a_stop_from_inside_of_the_run_itself(home: Home) -> None:
    script = home.place / "suicide.py"
    script.write_text("import os, localrun; localrun.stop_run(os.environ['RUN_NAME'])")
    run = submit("run", f"'{sys.executable}' '{script}'; sleep 1000", stop_grace=1)
    assert run.wait(60).status is RunStatus.STOPPED
