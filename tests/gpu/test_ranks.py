"""Several processes make one run: their environment, logs, results, first failure, and the port where they meet."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from support import REPOSITORY, Home, execute, is_alive, kill, submit, wait_until

import localrun
from localrun import RunStatus

TORCHRUN = [
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "NODE_RANK", "ROLE_RANK", "ROLE_WORLD_SIZE",
    "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT",
]  # fmt: skip


def seen(run: localrun.Run, rank: int) -> dict[str, str]:
    return dict(line.split("=", 1) for line in run.stdout(rank).splitlines() if "=" in line)


class TestEnvironment:
    def test_it_is_torchruns(self, home: Home) -> None:
        run = execute("run", "[ $RESUMPTION_INDEX = 0 ] && exit 1; env", nproc_per_node=3, max_retries=1)
        port = home.record("run")["port"]
        for rank in range(3):
            there = seen(run, rank)
            assert {name: there[name] for name in TORCHRUN} == {
                "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "3",
                "GROUP_RANK": "0", "NODE_RANK": "0", "ROLE_RANK": str(rank), "ROLE_WORLD_SIZE": "3",
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "run",
                "TORCHELASTIC_RESTART_COUNT": "1",
            }  # fmt: skip

    def test_what_torchrun_sets_besides(self, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        besides = ("TORCHELASTIC_MAX_RESTARTS", "TORCHELASTIC_USE_AGENT_STORE", "TORCH_NCCL_ASYNC_ERROR_HANDLING")
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        there = seen(execute("two", "env", nproc_per_node=2, cpus=0, max_retries=3), 1)
        assert [there[name] for name in (*besides, "OMP_NUM_THREADS")] == ["3", "False", "1", "1"]
        assert "OMP_NUM_THREADS" not in seen(execute("one", "env", nproc_per_node=1), 0)
        assert set(besides).isdisjoint(seen(execute("none", "env"), 0))

    def test_the_users_number_of_threads_counts(self, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OMP_NUM_THREADS", "5")
        assert seen(execute("theirs", "env", nproc_per_node=2, cpus=0), 1)["OMP_NUM_THREADS"] == "5"
        variables = {"OMP_NUM_THREADS": 7}
        run = execute("given", "env", nproc_per_node=2, cpus=0, env_variables=variables)
        assert seen(run, 1)["OMP_NUM_THREADS"] == "7"

    def test_a_submitter_that_is_a_rank_passes_nothing_of_it_on(
        self, home: Home, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in (*TORCHRUN, "ROLE_NAME", "GROUP_WORLD_SIZE", "TORCHELASTIC_USE_AGENT_STORE", "TORCHELASTIC_NEW"):
            monkeypatch.setenv(name, "77")
        inner = execute("run", "env", env_variables={"MASTER_ADDR": "given"})
        assert "77" not in {value for name, value in seen(inner, 0).items() if name in TORCHRUN}
        there = seen(inner, 0)
        assert not [name for name in there if name.startswith(("TORCHELASTIC", "ROLE_", "GROUP_")) or name == "RANK"]
        assert (there["MASTER_ADDR"], there["WORLD_SIZE"]) == ("given", "1")
        assert "77" not in seen(execute("ranks", "env", nproc_per_node=2, cpus=0), 1).values()

    def test_one_rank_that_was_asked_for_is_a_rank(self, home: Home) -> None:
        assert seen(execute("run", "env", nproc_per_node=1), 0)["RANK"] == "0"

    def test_without_ranks_there_are_none(self, home: Home) -> None:
        there = seen(execute("run", "env"), 0)
        assert {"RANK", "LOCAL_RANK", "MASTER_PORT"}.isdisjoint(there)
        assert [there[name] for name in ("NODE_RANK", "NUM_NODES", "WORLD_SIZE", "LOCAL_WORLD_SIZE")] == list("0111")


class TestFunctions:
    def test_results_are_a_list_or_one_ranks(self, home: Home) -> None:
        @localrun.function(nproc_per_node=2, cpus=0)
        def square(x: int) -> int:
            return (x + int(os.environ["RANK"])) ** 2

        assert square(3, run_name="run") == [9, 16]
        run = localrun.get_run("run")
        assert (run.result(rank=0), run.result(rank=1)) == (9, 16)
        for rank in (2, -1, "0", True, 1.0):
            with pytest.raises(ValueError, match="rank"):
                run.result(rank=rank)
        assert square.get_or_call(3, run_name="run") == [9, 16]
        assert square.options(nproc_per_node=1)(3, run_name="alone") == [9]

    def test_the_error_is_the_first_failed_ranks(self, home: Home) -> None:
        @localrun.function(nproc_per_node=3, cpus=0, stop_grace=1)
        def fails() -> None:
            rank = int(os.environ["RANK"])
            if rank == 1:
                raise KeyError("one")
            time.sleep(1000)

        with pytest.raises(KeyError, match="one"):
            fails(run_name="run")
        run = localrun.get_run("run")
        assert (run.failed_rank, run.reason, run.exit_code) == (1, "Error", 1)

    def test_one_that_leaves_without_a_word_fails_all(self, home: Home) -> None:
        @localrun.function(nproc_per_node=2, cpus=0, stop_grace=1)
        def leaves() -> None:
            if os.environ["RANK"] == "1":
                os._exit(0)
            time.sleep(1000)

        run = leaves.run().wait(60)
        assert (run.status, run.failed_rank) == (RunStatus.FAILED, 1)
        assert "returned nothing" in run.message


class TestFailures:
    def test_one_of_four_exits_3_while_others_hang(self, home: Home) -> None:
        others = "trap '' TERM; sleep 1000 & wait; sleep 1000"
        command = f"[ $RANK = 2 ] && {{ echo broken >&2; exit 3; }}; {others}"
        run = submit("run", command, nproc_per_node=4, stop_grace=1).wait(60)
        assert (run.status, run.reason, run.failed_rank, run.exit_code) == (RunStatus.FAILED, "Error", 2, 3)
        assert "rank 2" in run.message
        assert localrun.get_run_logs(run, failed=True) == "broken\n"
        phases = {phase.status: phase.seconds for phase in run.lifecycle}
        assert phases[RunStatus.TERMINATING] < 6

    def test_the_first_that_fails_is_the_first_in_time(self, home: Home) -> None:
        """The supervisor sleeps meanwhile, and finds all of them ended at once."""
        command = "until [ -e go.$RANK ]; do sleep 0.02; done; exit 1$RANK"
        run = submit("run", command, nproc_per_node=3, cpus=0, cwd=str(home.place))
        supervisor = home.freeze("run")
        pids = {rank["rank"]: rank["pid"] for rank in home.record("run")["ranks"]}
        for rank in (1, 2, 0):
            (home.place / f"go.{rank}").touch()
            wait_until(lambda rank=rank: not is_alive(pids[rank]))
        kill(supervisor, signal.SIGCONT)
        run.wait(30)
        assert (run.failed_rank, run.exit_code) == (1, 11)

    def test_ranks_that_complete_early_are_waited_with(self, home: Home) -> None:
        run = execute("run", "sleep 0.$RANK; echo $RANK", nproc_per_node=3)
        assert (run.status, run.exit_code, run.failed_rank) == (RunStatus.COMPLETED, 0, None)
        assert [run.stdout(rank) for rank in range(3)] == ["0\n", "1\n", "2\n"]

    def test_a_stop_reaches_every_rank(self, home: Home) -> None:
        run = submit("run", "trap 'echo stopped; exit' TERM; echo up; while :; do sleep 0.05; done", nproc_per_node=3)
        wait_until(lambda: all(Path(run.path, f"logs/0/rank_{r}.out").exists() for r in range(3)))
        wait_until(lambda: all(run.stdout(r) for r in range(3)))
        assert run.stop(timeout=30).status is RunStatus.STOPPED
        assert {run.stdout(r) for r in range(3)} == {"up\nstopped\n"}


class TestPorts:
    def test_runs_at_the_same_time_have_ports_of_their_own(self, home: Home) -> None:
        runs = [submit(f"run-{i}", "sleep 1000", nproc_per_node=1, cpus=0) for i in range(8)]
        for run in runs:
            wait_until(lambda run=run: home.status(run.name) == "RUNNING")
        ports = {home.record(run.name)["port"] for run in runs}
        assert len(ports) == len(runs)
        localrun.stop_runs(runs)

    @pytest.mark.parametrize("times", [2])
    def test_torch_meets_in_two_runs_at_once(self, home: Home, times: int) -> None:
        pytest.importorskip("torch", reason="torch is not installed; .ci/run installs it")
        code = (REPOSITORY / "examples" / "distributed.py").read_text()
        script = home.place / "meets.py"
        script.write_text(code.replace("if __name__", "if False"))
        submitted = f"""
import sys; sys.path.insert(0, {str(home.place)!r})
import localrun
from meets import train
together = localrun.function(nproc_per_node=2, cpus=0, env_variables={{"OMP_NUM_THREADS": 1}})(train)
runs = [together.run(20, run_name=f"run-{{i}}") for i in range({times})]
print([[rank["sum of ranks"] for rank in run.result(240)] for run in runs])
"""
        from support import run_python

        assert run_python(submitted, timeout=300).stdout == f"{[[3.0, 3.0]] * times}\n"
