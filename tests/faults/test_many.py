"""Many at once: callers of one name, runs that wait, runs that start."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from journal import Journal
from support import CPUS, Home, find_processes, kill, run_python, start_python, submit, wait_until

import localrun
from localrun import RunStatus

PROJECT = """
import os, sys, time
import localrun

@localrun.function(cpus=0)
def slow(x):
    with open(os.environ["COUNTER"], "a") as file:
        file.write(f"executed {os.getpid()}\\n")
    time.sleep(0.2)
    return {"x": x, "pid": os.getpid()}

@localrun.function(cpus=0)
def failing(x):
    with open(os.environ["COUNTER"], "a") as file:
        file.write(f"executed {os.getpid()}\\n")
    time.sleep(0.2)
    raise KeyError(x)
"""


@pytest.fixture
def project(home: Home, monkeypatch: pytest.MonkeyPatch) -> Path:
    (home.place / "project.py").write_text(PROJECT)
    (home.place / "counter").touch()
    monkeypatch.setenv("COUNTER", str(home.place / "counter"))
    return home.place


def executions(project: Path) -> int:
    return len((project / "counter").read_text().splitlines())


CALL = """
import sys
sys.path.insert(0, sys.argv[1])
import project
sys.stdin.readline()  # all start together
{call}
"""


def all_together(project: Path, call: str, count: int) -> list[tuple[str, str]]:
    """Let that many processes make the same call at the same moment; what each wrote."""
    reader, writer = os.pipe()
    children = [start_python(CALL.format(call=call), project, stdin=reader) for _ in range(count)]
    os.close(reader)
    os.write(writer, b"go\n" * count)
    os.close(writer)
    results = []
    for child in children:
        out, err = child.communicate(timeout=120)
        assert child.returncode == 0, err
        results.append((out, err))
    return results


@pytest.mark.parametrize("arguments", ["7, run_name='it'", "7", "x=7"])
def test_32_callers_of_one_name_make_one_run(home: Home, project: Path, arguments: str) -> None:
    call = f"print(project.slow.get_or_call({arguments}))"
    results = all_together(project, call, 32)
    assert executions(project) == 1
    assert len({out for out, _ in results}) == 1
    assert "'x': 7" in results[0][0]
    (run,) = localrun.get_runs(include_deleted=True)
    assert run.status is RunStatus.COMPLETED


def test_a_caller_that_is_slow_does_not_replace_what_another_has_made(home: Home, project: Path) -> None:
    """It saw no run of that name, and is held up while it pickles the function; meanwhile another caller is served."""
    call = """
from localrun.model.pickles import travel
original = travel.dumps_function
def slow(function):
    print("held up", flush=True)
    sys.stdin.readline()
    return original(function)
travel.dumps_function = slow
print(project.slow.get_or_call(7, run_name="it"))
"""
    slow = start_python(CALL.format(call=call), project, stdin=-1)
    assert slow.stdin is not None
    assert slow.stdout is not None
    slow.stdin.write("go\n")
    slow.stdin.flush()
    assert slow.stdout.readline() == "held up\n"
    (other,) = all_together(project, "print(project.slow.get_or_call(7, run_name='it'))", 1)
    out, err = slow.communicate("go on\n", timeout=60)
    assert out == other[0], err
    assert executions(project) == 1


def test_callers_that_come_while_one_fails_get_its_error_or_a_run_of_their_own(home: Home, project: Path) -> None:
    call = """
try:
    project.failing.get_or_call(7, run_name="it")
except KeyError as error:
    print("KeyError", *error.args)
"""
    results = all_together(project, call, 8)
    assert {out.splitlines()[-1] for out, _ in results} == {"KeyError 7"}
    assert executions(project) == len(localrun.get_runs(include_deleted=True))


def test_callers_of_run_with_one_name_exclude_each_other(home: Home, project: Path) -> None:
    call = """
import localrun
try:
    print(project.slow(1, run_name="it")["x"])
except localrun.RunExistsError:
    print("exists")
"""
    results = [out.splitlines()[-1] for out, _ in all_together(project, call, 8)]
    assert set(results) <= {"1", "exists"}
    assert "1" in results
    assert executions(project) == results.count("1")


def test_names_of_commands_are_made_unique(home: Home, project: Path) -> None:
    call = """
import localrun
print(localrun.create_run(localrun.RunConfig(name="same", command="true", compute={"cpus": 0})).name)
"""
    names = [out.strip() for out, _ in all_together(project, call, 12)]
    assert len(set(names)) == 12
    assert "same" in names
    assert all(name == "same" or (name.startswith("same-") and len(name) == len("same-") + 6) for name in names)
    home.all_ended()


def test_the_caller_that_made_the_run_is_killed(home: Home, project: Path) -> None:
    first = start_python(CALL.format(call="print(project.slow.get_or_call(7, run_name='it'))"), project, stdin=-1)
    assert first.stdin is not None
    first.stdin.write("go\n")
    first.stdin.flush()
    wait_until(lambda: home.tickets("waiting", "active"))  # accepted
    second = start_python(CALL.format(call="print(project.slow.get_or_call(7, run_name='it'))"), project, stdin=-1)
    first.kill()
    out, err = second.communicate("go\n", timeout=60)
    assert "'x': 7" in out, err
    assert executions(project) == 1


class TestQueue:
    def test_many_wait_without_a_process_each_and_run_in_order(self, home: Home, thorough: bool) -> None:
        count = 1000 if thorough else 300
        journal = Journal(home.place)
        blocker = submit("blocker", "sleep 1000", cpus=CPUS)
        names = [f"run-{i:04}" for i in range(count)]
        # One at a time, so that the order of their starts is theirs in the journal too.
        for name in names:
            submit(name, f"echo start {name} >> '{home.place}/journal/lines'", cpus=CPUS)
        wait_until(lambda: home.status("blocker") == "RUNNING")
        processes = find_processes(f"LOCALRUN_HOME={home.path}")
        # The dispatcher, the blocker's supervisor, its shell, and its sleep.
        assert len(processes) <= 4, [str(each) for each in processes]
        assert home.tickets("waiting") == sorted(home.tickets("waiting"))
        assert len(home.tickets("waiting")) == count
        blocker.stop()
        statuses = home.all_ended(timeout=180)
        assert {statuses[name] for name in names} == {"COMPLETED"}
        assert journal.order() == names

    def test_submitted_by_many_processes_each_in_its_order(self, home: Home) -> None:
        journal = Journal(home.place)
        code = """
            import sys
            from localrun import RunConfig, create_run
            for i in range(25):
                name = f"run-{sys.argv[1]}-{i:02}"
                create_run(RunConfig(name=name, command=sys.argv[2].replace("NAME", name), compute={"cpus": 1}))
        """
        cpus = os.sched_getaffinity(0)
        children = [start_python(code, letter, f"echo start NAME >> '{home.place}/journal/lines'") for letter in "abcd"]
        for child in children:
            assert child.communicate(timeout=60)[1] == ""
        assert set(home.all_ended().values()) == {"COMPLETED"}
        order = journal.order()
        assert len(order) == 100
        if len(cpus) == 1:
            for letter in "abcd":
                mine = [name for name in order if name.startswith(f"run-{letter}")]
                assert mine == sorted(mine)

    def test_no_more_run_at_once_than_fit(self, home: Home) -> None:
        """Each counts who is there with it."""
        place = home.place / "present"
        place.mkdir()
        command = f"cd '{place}'; touch $RUN_NAME; ls | wc -l; sleep 0.03; rm $RUN_NAME"
        runs = [submit(f"run-{i}", command, cpus=CPUS / 2) for i in range(20)]
        home.all_ended()
        present = [int(run.stdout()) for run in runs]
        assert 1 <= max(present) <= 2

    def test_the_dispatcher_is_idle_while_nothing_happens(self, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LOCALRUN_IDLE_S", "60")
        submit("blocker", "sleep 1000", cpus=CPUS)
        for i in range(50):
            submit(f"run-{i}", "true", cpus=CPUS)
        wait_until(lambda: home.status("blocker") == "RUNNING")
        pid = wait_until(home.dispatcher)
        submit("free", "true", cpus=0).wait(30)

        def activity() -> tuple[int, int]:
            """Hundredths of a second of CPU, and how often it was woken."""
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            status = Path(f"/proc/{pid}/status").read_text()
            return int(fields[11]) + int(fields[12]), int(status.split("voluntary_ctxt_switches:")[1].split()[0])

        before = activity()
        run_python("import time; time.sleep(1)")
        after = activity()
        assert after[0] - before[0] <= 5
        assert after[1] - before[1] <= 2
        kill(pid)
        for i in range(50):
            localrun.stop_run(f"run-{i}")
        localrun.stop_run("blocker")
