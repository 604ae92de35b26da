"""Whatever is killed: no container outlives its run, none is started twice, and the record says how it was."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from docker import BASH, Engine, engine_that
from support import Home, find_processes, kill, stdout_bytes, submit, wait_until

from localrun import RunStatus

TEST_S = 60


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def wrote(run: Any, resumption: int = 0) -> bytes:
    try:
        return stdout_bytes(run, resumption)
    except FileNotFoundError:
        return b""


def started(command: str = "echo up; sleep 1000", **fields: Any) -> Any:
    run = submit("run", command, **{"image": BASH, "stop_grace": 2, **fields})
    wait_until(lambda: wrote(run))
    return run


def client(home: Home) -> int:
    pid = home.rank("run")
    assert pid is not None
    return pid


def check_lost(run: Any) -> None:
    run.wait(TEST_S)
    assert (run.status, run.reason) == (RunStatus.FAILED, "SystemFailure")
    assert not [each for each in find_processes(f"LOCALRUN_RUN_UID={run.run_uid}") if each.command.startswith("sleep")]


class TestKilled:
    def test_the_supervisor(self, engine: Engine, home: Home) -> None:
        run = started()
        kill(home.supervisor("run"))
        check_lost(run)

    def test_the_supervisor_and_the_dispatcher(self, engine: Engine, home: Home) -> None:
        run = started()
        kill(home.dispatcher())
        kill(home.supervisor("run"))
        check_lost(run)

    def test_the_dispatcher_alone_is_nothing_to_the_run(self, engine: Engine, home: Home) -> None:
        run = started("echo up; until [ -e go ]; do sleep 0.05; done; echo done")
        kill(home.dispatcher())
        Path("go").touch()
        assert run.result(TEST_S) == "up\ndone\n"

    def test_the_engines_client(self, engine: Engine, home: Home) -> None:
        run = started("trap 'echo asked; exit' TERM; echo up; while :; do sleep 0.05; done")
        kill(client(home))
        check_lost(run)
        assert wrote(run) == b"up\nasked\n"

    def test_all_of_them_as_the_container_comes_up(self, engine: Engine, home: Home) -> None:
        run = submit("run", "echo up; sleep 1000", image=BASH, stop_grace=2)
        pid = wait_until(lambda: find_processes(f"LOCALRUN_RUN_UID={run.run_uid}"))[0].pid
        kill(home.dispatcher())
        kill(home.supervisor("run"))
        kill(pid)
        check_lost(run)

    def test_one_that_is_tried_again_is_never_there_twice(self, engine: Engine, home: Home, place: Path) -> None:
        command = f"mkdir {place}/lock || exit 9; trap 'rmdir {place}/lock; exit' TERM; echo up; " + (
            "[ $RESUMPTION_INDEX = 0 ] || { rmdir lock; exit; }; while :; do sleep 0.02; done"
        )
        run = started(command, retry_on_system_failure=True)
        kill(home.supervisor("run"))
        run.wait(TEST_S)
        assert (run.status, run.resumption_count) == (RunStatus.COMPLETED, 1)

    def test_removed_by_hand(self, engine: Engine, home: Home) -> None:
        run = started()
        engine("rm", "-f", f"localrun-{run.run_uid}-0-0")
        run.wait(TEST_S)
        assert (run.status, run.reason, run.signal) == (RunStatus.FAILED, "Killed", "SIGKILL")


class TestAsItComesUp:
    """The first rank waits at its gate; the client of the second does nothing the first time."""

    @pytest.fixture
    def run(self, engine: Engine, home: Home, place: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        does = 'if [[ $1 == run && "$*" == *localrun.rank=1* ]] && mkdir held; then exec sleep 1000; fi'
        monkeypatch.setenv("LOCALRUN_CONTAINER_ENGINE", engine_that(place, engine, does))
        run = submit("run", "touch begun", image=BASH, nproc_per_node=2, stop_grace=2, retry_on_system_failure=True)
        wait_until(lambda: (place / "held").exists())
        return run

    def test_the_client_is_killed(self, run: Any, home: Home, place: Path) -> None:
        mark = f"LOCALRUN_RUN_UID={run.run_uid}"
        kill(wait_until(lambda: [each.pid for each in find_processes(mark) if each.command.startswith("sleep")])[0])
        run.wait(TEST_S)
        assert run.status is RunStatus.COMPLETED
        assert [each["reason"] for each in home.record("run")["resumptions"]] == ["SystemFailure", "Completed"]

    def test_nobody_begins_whose_supervisor_is_killed(self, run: Any, home: Home, place: Path) -> None:
        kill(home.dispatcher())
        kill(home.supervisor("run"))
        waiting = f"localrun-{run.run_uid}-0-0"
        from localrun.engine.launchers.containerengine import ContainerEngine

        engine = ContainerEngine(**home.record("run")["request"]["engine"])
        wait_until(lambda: (state := engine.state(waiting)) is None or state.status == "exited", TEST_S)
        assert not (place / "begun").exists()
        run.wait(TEST_S)


class TestNotToBeEndedBySignals:
    def test_one_that_somebody_has_paused(self, engine: Engine, home: Home) -> None:
        run = started(stop_grace=0)
        engine("pause", f"localrun-{run.run_uid}-0-0")
        run.stop(timeout=TEST_S)
        assert (run.status, run.reason) == (RunStatus.STOPPED, "StoppedByUser")

    def test_one_that_appears_after_its_client_was_killed(
        self, engine: Engine, home: Home, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An engine that hangs makes it all the same, once it doesn't."""
        does = f"""
            if [ "$1" = run ]; then touch asked; exec sleep 1000; fi
            if [ "$1" = ps ] && mkdir {place}/told; then
                docker -H {engine.host} "$@"
                docker -H {engine.host} create --label="${{6#label=}}" {BASH} true >{place}/id
                exit
            fi"""
        monkeypatch.setenv("LOCALRUN_CONTAINER_ENGINE", engine_that(place, engine, does))
        run = submit("run", "true", image=BASH, stop_grace=0)
        wait_until(lambda: (place / "asked").exists())
        run.stop(timeout=TEST_S)
        assert (run.status, run.reason) == (RunStatus.STOPPED, "StoppedByUser")
        wait_until(lambda: (place / "id").exists() and (place / "id").read_text())
        docker.soon(engine)
        wait_until(lambda: not home.tickets())


class TestTheEngineDoesNotAnswer:
    """It runs containers, and neither lists nor removes any until it is up again."""

    @pytest.fixture
    def asked(self, engine: Engine, place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A file that grows with each time it is asked."""
        asked = place / "asked"
        does = f"if [[ -e {place}/down && $1 =~ ^(ps|rm)$ ]]; then echo >>{asked}; exit 1; fi"
        monkeypatch.setenv("LOCALRUN_CONTAINER_ENGINE", engine_that(place, engine, does))
        (place / "down").touch()
        return asked

    def check_up_again(self, engine: Engine, home: Home, place: Path) -> None:
        (place / "down").unlink()
        wait_until(lambda: not engine.containers(), TEST_S)
        wait_until(lambda: not home.tickets(), TEST_S)

    def test_runs_that_are_deleted_as_they_are_cleared(
        self, engine: Engine, home: Home, place: Path, asked: Path
    ) -> None:
        runs = [submit(f"run-{number}", "true", image=BASH) for number in range(12)]
        for run in runs:
            run.wait(TEST_S)
        while runs:
            asked.unlink(missing_ok=True)
            wait_until(asked.exists)
            for _ in range(4):
                time.sleep(random.random() * 0.02)
                runs.pop().delete()
        self.check_up_again(engine, home, place)

    def test_it_is_asked_ever_less_often(self, engine: Engine, home: Home, place: Path, asked: Path) -> None:
        submit("run", "true", image=BASH).wait(TEST_S)
        time.sleep(5)
        assert len(asked.read_text()) < 12
        self.check_up_again(engine, home, place)


class TestTheEngineIsKilled:
    """The container works on, and so its run is ended by localrun, with or without the engine."""

    @pytest.fixture(autouse=True)
    def _alive_afterwards(self, engine: Engine) -> Iterator[None]:
        yield
        if engine("version", check=False).returncode:
            engine.start()

    def test_while_it_runs(self, engine: Engine, home: Home) -> None:
        run = started("trap 'echo asked; exit' TERM; echo up; while :; do sleep 0.05; done")
        engine.kill()
        check_lost(run)
        assert wrote(run) == b"up\nasked\n"
        assert home.tickets() != []  # its container can't be removed yet
        engine.start()
        wait_until(lambda: not engine.containers(), TEST_S)
        wait_until(lambda: not home.tickets(), TEST_S)

    def test_a_run_that_is_deleted_meanwhile(self, engine: Engine, home: Home) -> None:
        run = started()
        engine.kill()
        check_lost(run)
        run.delete()
        engine.start()
        wait_until(lambda: not engine.containers(), TEST_S)
        wait_until(lambda: not home.tickets(), TEST_S)

    def test_it_is_tried_again_when_asked(self, engine: Engine, home: Home) -> None:
        command = "echo up; [ $RESUMPTION_INDEX != 0 ] || sleep 1000"
        run = started(command, retry_on_system_failure=True)
        engine.kill()
        wait_until(lambda: home.status("run") == "QUEUED", TEST_S)
        engine.start()
        run.wait(TEST_S)
        assert run.status is RunStatus.COMPLETED
        assert {each["reason"] for each in home.record("run")["resumptions"][:-1]} == {"SystemFailure"}


def test_what_is_left_of_an_ended_run_is_removed(engine: Engine, home: Home) -> None:
    """Its supervisor was killed after it had written the end, and before it removed the container."""
    run = started("echo up; exit 3")
    run.wait(TEST_S)
    docker.soon(engine)
    wait_until(lambda: not home.tickets())
    options = [f"--label=localrun.uid={run.run_uid}", "--log-driver=none"]
    engine("run", "--detach", *options, BASH, "sleep", "1000")
    from localrun.engine.queue import ACTIVE, Queue
    from localrun.engine.scheduling.ticket import Ticket, ticket_name

    record = home.record("run")
    ticket = Ticket.of(record, ticket_name("auto", record["uid"]))
    queue = Queue(home.path)
    Path(queue.path(ACTIVE, ticket.name)).write_bytes(ticket.encode())
    from localrun.engine.dispatch import submission

    submission.announce(queue)
    docker.soon(engine)
    wait_until(lambda: not home.tickets())
    assert run.refresh().exit_code == 3
