"""The machine as a cluster: what it has and who uses it, and commands run on it, each recorded."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from support import CPUS, Home, run_python, start_python, submit, wait_until

import localrun
from localrun import (
    Cluster,
    ResultUnavailableError,
    RunConfigError,
    RunExistsError,
    RunFailedError,
    RunNotFoundError,
    get_cluster,
    get_clusters,
    wait_for_run_status,
)


@pytest.fixture
def cluster(home: Home) -> Cluster:
    """This machine."""
    return get_cluster(include_utilization=False)


# -- what there is ----------------------------------------------------------------------------------------------------


def test_the_seed_pages_example(home: Home) -> None:
    """That of the lifecycle page, with another import."""
    code = """
        from localrun import get_cluster

        cluster = get_cluster("name")

        gpus_available = sum(i.gpus_available for i in cluster.utilization.cluster_instance_utils)
        print(f"{cluster.name}: "
              f"{len(cluster.utilization.active_runs_by_user)} active, "
              f"{len(cluster.utilization.queued_runs_by_user)} queued, "
              f"{gpus_available} GPUs available")
    """
    free = sum(gpu.state == "free" for gpu in localrun.gpus())
    assert run_python(code).stdout == f"name: 0 active, 0 queued, {free} GPUs available\n"


def test_it_is_this_machine(home: Home) -> None:
    cluster = get_cluster()
    assert cluster.name == os.uname().nodename
    assert {instance.cpus for instance in cluster.cluster_instances} == {CPUS}
    assert all(instance.memory > 1 << 20 and instance.nodes == 1 for instance in cluster.cluster_instances)
    assert sum(instance.gpus for instance in cluster.cluster_instances) == len(localrun.gpus())
    assert get_cluster(cluster, include_utilization=False).utilization is None
    assert get_cluster("any", future=True).result(60).name == "any"


def test_it_is_listed_once_for_each_name(home: Home) -> None:
    assert [cluster.name for cluster in get_clusters()] == [os.uname().nodename]
    assert [(cluster.name, cluster.utilization) for cluster in get_clusters(["a", "b"])] == [("a", None), ("b", None)]
    assert get_clusters([]) == []
    assert "<td>a</td>" in get_clusters(["a"])._repr_html_()
    assert get_clusters(include_utilization=True, future=True).result(60)[0].utilization is not None


def test_active_and_queued_runs_have_their_user(home: Home) -> None:
    first = submit("first", "sleep 1000", cpus=CPUS)
    wait_for_run_status(first, "RUNNING", 60)
    second = submit("second", "true", memory="1MiB")
    used = get_cluster().utilization
    assert used is not None
    assert [(run.name, run.user, run.cpus, run.gpus) for run in used.active_runs_by_user] == [
        ("first", first.created_by, CPUS, 0)
    ]
    assert [(run.id, run.name, run.memory) for run in used.queued_runs_by_user] == [(second.run_uid, "second", 1 << 20)]
    assert used.active_runs_by_user[0].started_at >= used.active_runs_by_user[0].created_at
    second.stop()
    first.stop()


@pytest.mark.parametrize("name", ["", 3])
def test_what_is_no_name_is_refused(home: Home, name: object) -> None:
    with pytest.raises(RunConfigError, match="cluster: must be a name, not") as refused:
        get_cluster(name)
    assert refused.value.status == 400
    with pytest.raises(RunConfigError, match="clusters: must be a list, not the text 'name'"):
        get_clusters("name")
    with pytest.raises(RunConfigError, match="clusters: must be a list, not 5"):
        get_clusters(5)


# -- commands ---------------------------------------------------------------------------------------------------------


def test_what_came_of_each_command(cluster: Cluster) -> None:
    commands = ["echo a; echo 'b c' >&2", "exit 3", "kill -9 $$", "printf '\\377 x'", "", "echo \"$0 'e'\"\necho f"]
    assert cluster.run(commands, run_name="run") == [
        (0, "a\n", "b c\n"), (3, "", ""), (137, "", ""), (0, "\ufffd x", ""), (0, "", ""),
        (0, "/bin/bash 'e'\nf\n", ""),
    ]  # fmt: skip
    run = cluster.get_run("run")
    assert run is not None
    assert (run.status.value, run.reason, run.exit_code, run.cmds) == ("FAILED", "Error", 3, commands)
    assert Path(run.path, "logs", "0", "rank_0.out").read_bytes() == b"a\n\xff x/bin/bash 'e'\nf\n"


@pytest.mark.parametrize(("command", "code"), [("echo x", 0), ("echo x; exit 3", 3), ("echo x; kill -9 $$", 137)])
def test_a_single_command(cluster: Cluster, command: str, code: int) -> None:
    assert cluster.run(command, run_name="run") == cluster.run([command]) == [(code, "x\n", "")]
    run = cluster.get_run("run")
    assert run is not None
    assert (run.status.value, run.exit_code) == ("COMPLETED" if code == 0 else "FAILED", code)


def test_the_output_is_shown_meanwhile(home: Home) -> None:
    code = "import localrun; localrun.get_cluster().run(['echo a', 'echo b >&2'], stream_logs={})"
    shown, quiet = run_python(code.format(True)), run_python(code.format(False))
    assert (shown.stdout, shown.stderr, quiet.stdout, quiet.stderr) == ("a\n", "b\n", "", "")


def test_fields_are_those_of_a_configuration(cluster: Cluster, tmp_path: Path) -> None:
    commands = ["echo $MINE", "pwd"]
    ended = cluster.run(commands, run_name="run", env_variables={"MINE": "x"}, cwd=str(tmp_path), cpus=0)
    assert ended == [(0, "x\n", ""), (0, f"{tmp_path}\n", "")]
    with pytest.raises(RunConfigError, match="no attribute 'cpu': did you mean 'cpus'"):
        cluster.run("true", cpu=1)


def test_a_name_is_used_again(cluster: Cluster) -> None:
    assert cluster.run(["echo 1", "true"], run_name="run")[0] == (0, "1\n", "")
    assert cluster.run(["echo 2", "true"], run_name="run")[0] == (0, "2\n", "")
    again = localrun.get_run("run").clone("again").wait(60)
    assert (again.cmds, again.stdout()) == (["echo 2", "true"], "2\n")
    changed = again.clone("changed", command="echo 3").wait(60)
    assert (changed.cmds, changed.stdout()) == (["echo 3"], "3\n")
    assert len(localrun.get_runs(["run"], include_deleted=True)) == 2


def test_a_name_at_work_is_refused(cluster: Cluster) -> None:
    run = submit("run", "sleep 1000")
    with pytest.raises(RunExistsError, match=r"run run is .* already") as refused:
        cluster.run("true", run_name="run")
    assert refused.value.status == 409
    run.stop()


@pytest.mark.parametrize(
    ("commands", "message"),
    [([], "must not be empty"), ("", "must not be empty"), ([" ", ""], "must not be empty"), ([3], "must be text")],
)
def test_what_are_no_commands_is_refused(cluster: Cluster, commands: list[str], message: str) -> None:
    with pytest.raises(RunConfigError, match=f"commands: {message}"):
        cluster.run(commands)
    with pytest.raises(RunConfigError, match=f"lines: {message}"):
        cluster.run_python(commands)


def test_commands_that_are_stopped(cluster: Cluster) -> None:
    code = """
        import localrun
        try:
            localrun.get_cluster().run(["echo a", "sleep 1000", "echo b"], run_name="run")
        except localrun.RunStoppedError as error:
            print(error)
    """
    child = start_python(code)
    wait_until(lambda: (run := cluster.get_run("run")) is not None and run.stdout() == "a\n")
    assert cluster.cancel("run").status.value == "STOPPED"
    out, err = child.communicate(timeout=60)
    assert (err, out.splitlines()[:1]) == ("", ["a"])
    assert out.splitlines()[1].startswith("run run was stopped: stopped by ")


def test_commands_that_could_not_all_be_run(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(RunFailedError, match="FAILED, FailedToStart"):
        cluster.run(["true", "true"], cwd=str(tmp_path / "gone"))
    with pytest.raises(RunFailedError, match="FAILED, Killed"):
        cluster.run(["true", "kill -9 $PPID; sleep 1000"], stop_grace=0.1)
    with pytest.raises(ResultUnavailableError, match="run run: how its commands ended could not be noted"):
        cluster.run(["rm -r $LOCALRUN_RUN_DIR/logs/0", "true"], run_name="run")


# -- Python -----------------------------------------------------------------------------------------------------------


def test_lines_of_python(cluster: Cluster) -> None:
    lines = ["import sys", "for i in range(2):", "    print(f'''it's \"{i}\" $HOME `x` \\\\''')", "", "print('a\\nb')"]
    assert cluster.run_python(lines, run_name="run") == [
        (0, "it's \"0\" $HOME `x` \\\nit's \"1\" $HOME `x` \\\na\nb\n", "")
    ]
    run = cluster.get_run("run")
    assert run is not None
    assert run.cmds[0].startswith(f"{sys.executable} -c ")


def test_python_that_fails(cluster: Cluster) -> None:
    [(code, out, err)] = cluster.run_python("print(1)\nraise ValueError('it')")
    assert (code, out, err.splitlines()[-1]) == (1, "1\n", "ValueError: it")


# -- runs by name -----------------------------------------------------------------------------------------------------


def test_runs_by_name(cluster: Cluster) -> None:
    assert cluster.get_run("run") is None
    with pytest.raises(RunNotFoundError):
        cluster.cancel("run")
    submit("run", "true").wait(60)
    assert cluster.cancel("run").status.value == "COMPLETED"
