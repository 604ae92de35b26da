"""The dispatcher may be killed at any time: runs don't notice, the queue goes on at the next touch, two never act."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from journal import Journal
from support import CPUS, REPOSITORY, TERMINAL, Home, kill, run_python, start_python, submit, wait_until

import localrun
from localrun import RunStatus
from localrun.engine.processes import SERVICE_PROGRAM


@pytest.fixture
def journal(home: Home) -> Journal:
    return Journal(home.place)


def let_pass(seconds: float) -> None:
    """Let some time pass, for a kill at a random moment."""
    end = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() >= end)


def running(home: Home, name: str) -> bool:
    return home.status(name) == "RUNNING"


def kill_dispatcher(home: Home) -> None:
    pid = wait_until(home.dispatcher)
    kill(pid)
    wait_until(lambda: home.dispatcher() != pid)


def test_active_runs_end_with_their_true_exit_codes(home: Home) -> None:
    os.mkfifo(home.place / "go")
    codes = {f"run-{code}": code for code in (0, 1, 7, 255)}
    for name, code in codes.items():
        submit(name, f"read < go; echo out; exit {code}", cwd=str(home.place), cpus=0)
    killed = submit("killed", "read < go; kill -SEGV $$", cwd=str(home.place), cpus=0)
    for name in [*codes, "killed"]:
        wait_until(lambda name=name: running(home, name))
    kill_dispatcher(home)
    assert home.dispatcher() is None
    gate = os.open(home.place / "go", os.O_RDWR)
    os.write(gate, b"go\n" * 10)
    # Without anything of localrun being touched.
    home.all_ended()
    os.close(gate)
    for name, code in codes.items():
        record = home.record(name)
        assert (record["exit_code"], record["status"]) == (code, "FAILED" if code else "COMPLETED")
        assert localrun.get_run(name).stdout() == "out\n"
    assert (killed.refresh().signal, killed.reason) == ("SIGSEGV", "Killed")
    assert home.dispatcher() is None


@pytest.mark.parametrize(
    "touch",
    [
        "get_run",
        "wait",
        "get_runs",
        "get_runs of others",
        "submit",
        "another's",
    ],
)
def test_queued_runs_start_when_anything_touches_localrun(home: Home, touch: str) -> None:
    blocker = submit("blocker", "sleep 1000", cpus=CPUS)
    waiting = submit("waiting", "true", cpus=CPUS)
    wait_until(lambda: running(home, "blocker"))
    kill_dispatcher(home)
    kill(home.rank("blocker"))
    wait_until(lambda: home.status("blocker") == "FAILED")
    if home.status("waiting") not in TERMINAL:
        if touch == "get_run":
            localrun.get_run("waiting")
        elif touch == "get_runs":
            localrun.get_runs()
        elif touch == "get_runs of others":
            assert [run.name for run in localrun.get_runs(statuses=["FAILED"])] == ["blocker"]
        elif touch == "submit":
            submit("another", "true")
        elif touch == "another's":
            localrun.get_run("blocker")
    if touch == "wait":
        assert waiting.wait(60).status is RunStatus.COMPLETED
    home.all_ended("waiting", timeout=10)
    assert home.status("waiting") == "COMPLETED"
    assert blocker.refresh().status is RunStatus.FAILED


def test_sigterm_ends_it_and_nothing_else(home: Home) -> None:
    """As when the machine shuts down, or somebody tidies up; other signals it does not mind."""
    run = submit("run", "sleep 0.5; exit 3")
    wait_until(lambda: running(home, "run"))
    pid = wait_until(home.dispatcher)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE):
        kill(pid, number)
    submit("free", "true", cpus=0).wait(30)
    assert home.dispatcher() == pid
    kill(pid, signal.SIGTERM)
    wait_until(lambda: home.dispatcher() is None)
    home.all_ended("run")
    assert run.refresh().exit_code == 3


def test_a_new_one_leaves_running_runs_alone_and_counts_their_resources(home: Home) -> None:
    os.mkfifo(home.place / "go")
    cpus = CPUS
    submit("one", "read < go", cwd=str(home.place), cpus=cpus)
    wait_until(lambda: running(home, "one"))
    supervisor, rank = home.supervisor("one"), home.rank("one")
    kill_dispatcher(home)
    submit("two", "true", cpus=cpus)
    wait_until(home.dispatcher)
    submit("free", "true", cpus=0).wait(60)  # the new dispatcher is at work
    assert (home.supervisor("one"), home.rank("one")) == (supervisor, rank)
    assert home.status("two") == "QUEUED"
    (home.place / "go").write_text("go\n")
    assert set(home.all_ended().values()) == {"COMPLETED"}
    assert len(home.record("one")["resumptions"]) == 1


def test_a_new_one_notices_the_end_of_runs_it_did_not_start(home: Home) -> None:
    """What the old one would have learned by being their parent."""
    cpus = CPUS
    submit("one", "sleep 1000", cpus=cpus)
    wait_until(lambda: running(home, "one"))
    kill_dispatcher(home)
    submit("two", "true", cpus=cpus)
    submit("free", "true", cpus=0).wait(60)
    start = time.monotonic()
    kill(home.supervisor("one"))
    statuses = home.all_ended()
    assert (statuses["one"], statuses["two"]) == ("FAILED", "COMPLETED")
    assert home.record("one")["reason"] == "SystemFailure"
    assert time.monotonic() - start < 20


def test_a_run_is_stopped_without_a_dispatcher(home: Home) -> None:
    run = submit("run", "sleep 1000")
    wait_until(lambda: running(home, "run"))
    kill_dispatcher(home)
    assert run.stop(timeout=30).status is RunStatus.STOPPED


def test_a_retry_comes_after_its_delay_whoever_is_the_dispatcher(home: Home) -> None:
    run = submit("run", "[ $RESUMPTION_INDEX = 1 ]", max_retries=1)
    wait_until(lambda: home.status("run") == "QUEUED" and home.record("run")["resumptions"])
    kill_dispatcher(home)
    assert run.wait(60).status is RunStatus.COMPLETED
    first, second = run.resumptions
    assert (second.started_at - first.ended_at).total_seconds() >= 0.9


def test_killed_over_and_over(home: Home, journal: Journal, thorough: bool) -> None:
    """A dispatcher that never lives long still gets everything done, once and in order."""
    random_ = random.Random(7)
    count = 200 if thorough else 60
    names = [f"run-{i:03}" for i in range(count)]
    for name in names:
        submit(name, journal.command())
        if random_.random() < 0.3:
            kill(home.dispatcher())
    deadline = time.monotonic() + 120
    while home.active() and time.monotonic() < deadline:
        kill(home.dispatcher())
        localrun.get_runs(limit=1000)
        wait_until(lambda: home.dispatcher() is not None or not home.active(), 10)
        let_pass(random_.random() * 0.2)
    assert set(home.all_ended(*names).values()) == {"COMPLETED"}
    journal.check()
    assert sorted(journal.order()) == names
    assert all(len(home.record(name)["resumptions"]) == 1 for name in names)


def spawn_dispatcher(home: Home) -> subprocess.Popen[bytes]:
    """What a submitter starts, once more."""
    return subprocess.Popen([sys.executable, "-P", "-c", SERVICE_PROGRAM, str(REPOSITORY), str(home.path)])


def dispatchers(home: Home) -> list[int]:
    """The processes that are dispatchers, supervisors not counted."""
    found = [each for each in home.processes() if "dispatch.service" in each.command]
    supervisors = {record["supervisor"]["pid"] for record in home.records().values() if record["supervisor"]}
    return [each.pid for each in found if each.pid not in supervisors]


def test_of_ten_that_start_at_once_one_stays(home: Home, journal: Journal, thorough: bool) -> None:
    submit("first", "true").wait(30)
    random_ = random.Random(3)
    for round_ in range(20 if thorough else 5):
        kill(home.dispatcher())
        for i in range(4):
            submit(f"run-{round_}-{i}", journal.command("sleep 0.02"))
        starters = [spawn_dispatcher(home) for _ in range(10)]
        for starter in starters:
            starter.wait(30)
        if random_.random() < 0.5:
            kill(home.dispatcher())
            starters = [spawn_dispatcher(home) for _ in range(3)]
            for starter in starters:
                starter.wait(30)
        wait_until(lambda: len(dispatchers(home)) <= 1)
    localrun.get_runs()
    assert set(home.all_ended().values()) == {"COMPLETED"}
    journal.check()


def test_one_that_was_stopped_for_long_does_no_harm(home: Home, journal: Journal) -> None:
    """It holds its lock still; what is submitted meanwhile waits, and nobody starts a second one."""
    submit("first", "true").wait(30)
    pid = wait_until(home.dispatcher)
    kill(pid, signal.SIGSTOP)
    submit("second", journal.command())
    assert home.dispatcher() == pid
    wait_until(lambda: dispatchers(home) == [pid])
    kill(pid, signal.SIGCONT)
    assert home.all_ended()["second"] == "COMPLETED"
    journal.check()


class TestLeaving:
    """With LOCALRUN_IDLE_S=0 the dispatcher leaves whenever the queue is empty for a moment."""

    def test_whoever_submits_at_that_moment_is_served(
        self, home: Home, monkeypatch: pytest.MonkeyPatch, thorough: bool
    ) -> None:
        monkeypatch.setenv("LOCALRUN_IDLE_S", "0")
        for i in range(400 if thorough else 100):
            name = f"run-{i}"
            submit(name, "true")
            # Without touching localrun again, and right when it leaves: the next one comes as this one is over.
            wait_until(lambda name=name: home.status(name) in TERMINAL, 30, f"{name} ends")
        assert set(home.all_ended().values()) == {"COMPLETED"}

    def test_submitters_that_come_at_any_moment_are_served(
        self, home: Home, monkeypatch: pytest.MonkeyPatch, thorough: bool
    ) -> None:
        monkeypatch.setenv("LOCALRUN_IDLE_S", "0")
        code = """
            import random, sys, time
            from localrun import RunConfig, create_run
            random_ = random.Random(int(sys.argv[1]))
            for i in range(int(sys.argv[2])):
                create_run(RunConfig(name=f"run-{sys.argv[1]}-{i}", command="true", compute={"cpus": 0}))
                time.sleep(random_.random() * 0.05)
        """
        count = 200 if thorough else 50
        children = [start_python(code, seed, count) for seed in range(3)]
        for child in children:
            assert child.communicate(timeout=120)[1] == ""
        statuses = home.all_ended()
        assert len(statuses) == 3 * count
        assert set(statuses.values()) == {"COMPLETED"}

    def test_a_restart_at_that_moment_is_served(self, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LOCALRUN_IDLE_S", "0")
        run = submit("run", "true")
        for count in range(1, 21):
            wait_until(lambda: home.status("run") in TERMINAL)
            run.start()
            wait_until(lambda count=count: len(home.record("run")["resumptions"]) == count + 1)
        home.all_ended()


class TestHome:
    def test_a_home_that_is_removed_while_it_is_watched(self, home: Home) -> None:
        """The dispatcher of a folder that is gone leaves; a new folder of that name has its own."""
        submit("run", "true").wait(30)
        old = wait_until(home.dispatcher)
        home.path.rename(home.place / "elsewhere")
        assert submit("run", "true").wait(30).status is RunStatus.COMPLETED
        assert home.dispatcher() != old
        wait_until(lambda: old not in [each.pid for each in home.processes()])

    def test_its_log_says_what_it_put_right(self, home: Home) -> None:
        run = submit("run", "sleep 1000")
        wait_until(lambda: running(home, "run"))
        kill(home.supervisor("run"))
        run.wait(30)
        assert "run had lost its supervisor" in (home.path / "dispatcher.log").read_text()

    def test_two_homes_have_nothing_to_do_with_each_other(self, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        submit("run", "true").wait(30)
        first = home.dispatcher()
        run_python(
            'import localrun; localrun.create_run(localrun.RunConfig(name="run", command="sleep 0.2")).wait(30)',
            env=os.environ | {"LOCALRUN_HOME": str(home.place / "other"), "LOCALRUN_IDLE_S": "30"},
        )
        other = Home(home.place / "other", home.place)
        assert other.dispatcher() not in (first, None)
        other.end()
        assert len(localrun.get_runs()) == 1
