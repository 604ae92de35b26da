"""Traced blocks: their record, and what becomes of it whatever way the block is left."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from support import Home, kill, record_of, run_python, start_python, submit, wait_until

import localrun
from localrun import RunConfigError, RunExistsError, RunNotFoundError, RunStatus


def test_a_block_is_running_on_disk_and_completed_afterwards(home: Home) -> None:
    with localrun.run(name="prep") as run:
        assert isinstance(run, localrun.Run)
        assert home.status("prep") == "RUNNING" and run.status is RunStatus.RUNNING
        assert localrun.get_run("prep").status is RunStatus.RUNNING
        print("hello")
    assert home.status("prep") == "COMPLETED" and run.status is RunStatus.COMPLETED
    record = home.record("prep")
    assert (record["run_type"], record["reason"], record["exit_code"]) == ("CONTEXT", "Completed", 0)
    assert [phase["status"] for phase in record["lifecycle"]] == [
        "PENDING", "QUEUED", "STARTING", "RUNNING", "TERMINATING", "COMPLETED",
    ]  # fmt: skip
    assert run.result() == run.stdout() == "hello\n"
    assert run.inputs() == {"args": [], "kwargs": {}}
    assert [each.name for each in localrun.get_runs()] == ["prep"]


def test_the_class_and_the_factory_are_the_same(home: Home) -> None:
    with localrun.Run(name="prep") as run:
        print("hello")
    assert localrun.run(name="prep").stdout() == run.stdout() == "hello\n"
    assert localrun.run(path=run.path).run_uid == run.run_uid


def test_nothing_is_created_until_it_is_entered(home: Home) -> None:
    run = localrun.run(name="prep")
    assert run.status is RunStatus.PENDING and not Path(run.path).exists()
    with pytest.raises(RunNotFoundError):
        run.refresh()
    with pytest.raises(RunNotFoundError, match="no run at"):
        localrun.run(path=home.path / "nowhere")


def test_an_exception_fails_the_run_and_propagates(home: Home) -> None:
    error = ValueError("no such table")
    with pytest.raises(ValueError, match="no such table") as caught, localrun.run(name="prep") as run:
        raise error
    assert caught.value is error
    assert (run.status, run.reason, run.exit_code) == (RunStatus.FAILED, "Error", 1)
    assert run.error == "ValueError: no such table"
    assert "raise error\n" in run.error_traceback and "test_blocks.py" in run.error_traceback
    assert run.result() == run.stderr()
    with pytest.raises(localrun.RunFailedError, match="no such table"):
        raise localrun.get_run("prep").exception() or AssertionError


@pytest.mark.parametrize(
    ("leave", "status", "code"),
    [
        ("sys.exit()", "COMPLETED", 0),
        ("sys.exit(0)", "COMPLETED", 0),
        ("sys.exit(3)", "FAILED", 3),
        ("sys.exit('broken')", "FAILED", 1),
        ("raise KeyboardInterrupt", "FAILED", 130),
        ("raise GeneratorExit", "COMPLETED", 0),
    ],
)
def test_what_exits_make_of_the_block(home: Home, leave: str, status: str, code: int) -> None:
    script = f"""
        import sys, localrun
        with localrun.run(name="x"):
            print("inside", flush=True)
            {leave}
    """
    child = start_python(script)
    output, _ = child.communicate(timeout=60)
    assert output == "inside\n"
    record = home.record("x")
    assert (record["status"], record["exit_code"]) == (status, code)


@pytest.mark.parametrize("leave", ["os._exit(0)", "os._exit(7)", "os.kill(os.getpid(), 9)", "os.abort()"])
def test_a_process_that_ends_inside_leaves_a_failed_run_with_all_its_output(home: Home, leave: str) -> None:
    script = f"""
        import ctypes, os, subprocess, localrun
        with localrun.run(name="outer"), localrun.run(name="inner"):
            print("python")
            subprocess.run(["echo", "subprocess"])
            os.write(2, b"last words")
            {leave}
    """
    child = start_python(script)
    output, errors = child.communicate(timeout=60)
    assert (output, errors) == ("python\nsubprocess\n", "last words")  # shown, all of it
    for name in ("inner", "outer"):
        run = localrun.get_run(name)
        assert (run.status, run.reason) == (RunStatus.FAILED, "SystemFailure"), name
        assert f"pid {child.pid}" in run.message
        assert (run.stdout(), run.stderr()) == ("python\nsubprocess\n", "last words")
        assert home.status(name) == "FAILED"  # on disk, too


def test_a_lost_block_is_found_by_whatever_looks(home: Home) -> None:
    script = "import os, localrun\nwith localrun.run(name={!r}): os._exit(1)\n"
    looks: dict[str, Any] = {
        "get_runs": lambda name: localrun.get_runs([name])[0].status,
        "refresh": lambda name: localrun.run(name=name).refresh().status,
        "wait": lambda name: localrun.run(name=name).wait(20).status,
    }
    for name, look in looks.items():
        start_python(script.format(name)).wait(60)
        assert home.status(name) == "RUNNING"
        assert look(name) is RunStatus.FAILED
    handle = start_python(script.format("waited")).wait(60)
    assert handle == 1
    with pytest.raises(localrun.RunStatusNotReached):
        localrun.wait_for_run_status("waited", "COMPLETED", timeout=20)


def test_a_waiter_learns_of_a_kill(home: Home) -> None:
    child = start_python("import time, localrun\nwith localrun.run(name='x'): time.sleep(60)\n")
    wait_until(lambda: (home.path / "runs/x/config.json").exists())
    run = localrun.get_run("x")
    assert run.status is RunStatus.RUNNING
    kill(child.pid)
    assert run.wait(30).status is RunStatus.FAILED


def test_names_that_are_taken(home: Home) -> None:
    with localrun.run(name="x") as first:
        with pytest.raises(RunExistsError, match="RUNNING"), localrun.run(name="x"):
            raise AssertionError("entered")
        with pytest.raises(RunExistsError, match="RUNNING"), first:
            raise AssertionError("entered")
        assert home.status("x") == "RUNNING"
    with localrun.run(name="x") as second:
        print("again")
    assert second.run_uid != first.run_uid
    assert {run.run_uid for run in localrun.get_runs(include_deleted=True)} == {first.run_uid, second.run_uid}
    assert first.refresh().is_deleted and first.stdout() == ""
    with localrun.run(name="x", overwrite=True) as third:
        pass
    assert {run.run_uid for run in localrun.get_runs(include_deleted=True)} == {first.run_uid, third.run_uid}
    with pytest.raises(RunNotFoundError):
        second.refresh()


def test_a_handle_can_be_entered_again(home: Home) -> None:
    run = localrun.run(name="x")
    uids = []
    for text in ("one", "two"):
        with run:
            print(text)
        assert run.stdout() == f"{text}\n"
        uids.append(run.run_uid)
    assert len(set(uids)) == 2


def test_load_false_does_not_look(home: Home) -> None:
    with localrun.run(name="x") as before:
        pass
    run = localrun.run(name="x", load=False)
    assert run.status is RunStatus.PENDING and run.run_uid != before.run_uid
    with run:
        pass
    assert localrun.run(name="x").run_uid == run.run_uid


def test_a_folder_of_ones_own(home: Home) -> None:
    place = home.path.parent / "elsewhere" / "prep run"
    with localrun.run(name="prep", path=place) as run:
        print("hello")
    assert run.path == str(place) and record_of(place)["name"] == "prep"
    assert localrun.run(path=place).stdout() == "hello\n"
    with localrun.Run(path=place.parent / "unnamed") as other:
        pass
    assert other.name == "unnamed"
    (place.parent / "mine").mkdir()
    (place.parent / "mine" / "file").write_text("precious")
    with pytest.raises(RunExistsError, match="is no run"), localrun.Run(path=place.parent / "mine"):
        raise AssertionError("entered")
    assert os.listdir(place.parent / "mine") == ["file"]


def test_a_name_is_made_where_none_is_given(home: Home) -> None:
    with localrun.run() as run:
        pass
    assert run.name.startswith("block-") and localrun.get_run(run.name).status is RunStatus.COMPLETED


def test_a_dry_run_leaves_nothing(home: Home, capfd: pytest.CaptureFixture[str]) -> None:
    with localrun.run(name="x", dryrun=True) as run:
        print("inside")
        assert run.status is RunStatus.RUNNING
    assert run.status is RunStatus.COMPLETED and not (home.path / "runs").exists()
    assert capfd.readouterr().out == "inside\n"


@pytest.mark.parametrize("is_active", [True, False])
def test_a_dry_run_of_a_name_that_is_taken(home: Home, is_active: bool) -> None:
    with localrun.run(name="x") as first:
        if is_active:
            with localrun.run(name="x", dryrun=True) as dry:
                pass
    before = home.record("x")
    if not is_active:
        with localrun.run(name="x", dryrun=True) as dry:
            assert dry.status is RunStatus.RUNNING
    assert dry.status is RunStatus.COMPLETED and dry.run_uid != first.run_uid
    assert home.record("x") == before and os.listdir(home.runs) == ["x"]


def test_what_a_dry_run_writes_goes_nowhere(home: Home, tmp_path: Path) -> None:
    (tmp_path / "made").touch()
    with localrun.run(name="x", dryrun=True) as run:
        run.write("text", "mine.txt")
        run.log_artifact(tmp_path / "made")
    assert not home.runs.exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "a/b"}, "name"),
        ({"name": "x", "log_dest": "nowhere"}, "log_dest: must be one of file, stream"),
        ({"name": "x", "system": "s3"}, "system: a block is traced on this machine"),
        ({"name": "x", "status": "COMPLETED"}, "status: can't be given"),
        ({"name": "x", "error": "none"}, "error: can't be given"),
        ({"name": "x", "upstream_artifacts": [5]}, "upstream_artifacts: must be a list of paths, URLs, or artifacts"),
        ({"name": "x", "downstream_artifacts": [{"kind": "file", "url": "x"}]}, "downstream_artifacts: must be"),
        ({"name": "x", "cmds": "true"}, "cmds: must be a list"),
        ({"name": "x", "overwrite": "no"}, "overwrite: must be True or False"),
        ({"name": "x", "dryrun": 1}, "dryrun: must be True or False"),
        ({"name": "x", "creator": object()}, "creator: must be text"),
    ],
)
def test_what_is_refused(home: Home, given: dict[str, Any], said: str) -> None:
    with pytest.raises(RunConfigError, match=said):
        localrun.Run(**given)
    assert not home.path.exists()


def test_what_is_refused_of_a_run_that_exists(home: Home) -> None:
    with localrun.run(name="x"):
        pass
    for given in ({"status": "COMPLETED"}, {"overwrite": "no"}, {"cmds": "true"}, {"trace_files": 3}):
        with pytest.raises(RunConfigError, match=next(iter(given))):
            localrun.run(name="x", **given)  # type: ignore[arg-type]
    for name in ("x", "new"):
        with pytest.raises(TypeError, match=r"localrun\.run\(\) got an unexpected argument 'overwrit'"):
            localrun.run(name=name, overwrit=True)


def test_a_place_where_no_folder_can_be(home: Home) -> None:
    (home.place / "file").touch()
    for path, why in ((f"{home.place}/file/run", "File exists"), ("/proc/none/run", "No such file")):
        begun = localrun.run(name="run", path=path)
        with pytest.raises(localrun.SystemFailureError, match=f"run run could not be begun in {path}: {why}"), begun:
            pytest.fail("it was entered")
    for path, why in ((5, "must be a path, not of type int"), ("a\0b", "null byte")):
        with pytest.raises(RunConfigError, match=why):
            localrun.run(name="run", path=path)  # type: ignore[arg-type]


def test_a_block_that_is_run_again_has_what_is_given(home: Home) -> None:
    for creator in ("me", "you"):
        with localrun.run(name="x", cmds=["a"], creator=creator):
            pass
        run = localrun.get_run("x")
        assert (run.cmds, run.created_by) == (["a"], creator)


def test_fields_that_are_given(home: Home) -> None:
    artifact = {"kind": "file", "url": "/data/x", "size": 3, "digest": None, "time": "2026-01-01T00:00:00+00:00"}
    with localrun.Run(name="x", fn_name="prepare", cmds=["a"], creator="me", upstream_artifacts=[artifact]) as run:
        pass
    assert (run.fn_name, run.cmds, run.created_by, run.upstream_artifacts) == ("prepare", ["a"], "me", [artifact])
    assert run.result() == ""
    with localrun.Run(name="y", upstream_artifacts=["data", "s3://b/x"], run_type="CMD_RUN") as run:
        pass
    assert [each["url"] for each in run.upstream_artifacts] == [os.path.abspath("data"), "s3://b/x"]


def said(home: Home, name: str) -> str | None:
    return localrun.get_run(name).stdout() if (home.path / "runs" / name / "config.json").exists() else None


def test_stop_interrupts_the_block(home: Home) -> None:
    script = """
        import time, localrun
        with localrun.run(name="x"):
            print("ready", flush=True)
            time.sleep(60)
    """
    child = start_python(script)
    wait_until(
        lambda: (home.path / "runs/x/logs/0/rank_0.out").exists() and localrun.get_run("x").stdout() == "ready\n"
    )
    run = localrun.stop_run("x", reason="enough")
    assert (run.status, run.reason) == (RunStatus.STOPPED, "StoppedByUser") and "enough" in run.message
    assert child.wait(30) != 0
    child.communicate()
    localrun.delete_run("x")
    assert localrun.get_runs() == []


def test_ctrl_c_without_a_stop_is_a_failure(home: Home) -> None:
    child = start_python(
        "import time, localrun\nwith localrun.run(name='x'):\n  print('in', flush=True)\n  time.sleep(60)"
    )
    wait_until(lambda: (home.path / "runs/x/config.json").exists() and localrun.get_run("x").stdout() == "in\n")
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=30)
    record = home.record("x")
    assert (record["status"], record["reason"], record["exit_code"]) == ("FAILED", "Error", 130)


def test_a_block_is_not_started_or_cloned(home: Home) -> None:
    with localrun.run(name="x") as run:
        pass
    for act in (run.start, run.clone, lambda: localrun.start_run("x")):
        with pytest.raises(RunConfigError, match="is a block of a program"):
            act()
    assert run.refresh().status is RunStatus.COMPLETED


def test_it_can_be_saved_described_and_loaded_elsewhere(home: Home, tmp_path: Path) -> None:
    with localrun.run(name="x") as run:
        print("hello")
    before = record_of(run.path)
    run.save("y")
    after = record_of(run.path)
    changed = {key for key in before if before[key] != after[key]} - {"updated_at"}
    assert changed == {"name"} and home.status("y") == "COMPLETED"
    copy = shutil.copytree(run.path, tmp_path / "copy")
    shutil.rmtree(run.path)
    loaded = pickle.loads(pickle.dumps(localrun.run(path=copy)))
    assert (loaded.status, loaded.stdout(), loaded.name) == (RunStatus.COMPLETED, "hello\n", "y")


def test_forked_children_leave_the_block_but_not_the_run(home: Home) -> None:
    script = """
        import os, sys, localrun
        with localrun.run(name="x"):
            pid = os.fork()
            if pid == 0:
                print("child", flush=True)
                sys.exit(3)
            assert os.waitpid(pid, 0)[1] == 3 << 8
            assert localrun.get_run("x").status.value == "RUNNING"
            print("parent", flush=True)
        print("outside", flush=True)
    """
    child = start_python(script)
    output, errors = child.communicate(timeout=60)
    assert (output, errors) == ("child\nparent\noutside\n", "")
    assert home.status("x") == "COMPLETED" and localrun.get_run("x").stdout() == "child\nparent\n"


def test_a_forked_child_that_lives_on_does_not_hide_a_crash(home: Home) -> None:
    script = """
        import os, time, localrun
        with localrun.run(name="x"):
            if os.fork() == 0:
                time.sleep(60)
            os._exit(1)
    """
    child = start_python(script, start_new_session=True)
    child.wait(60)
    try:
        wait_until(lambda: localrun.get_run("x").status is RunStatus.FAILED)  # once the child came to its first step
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()


def test_blocks_in_generators_closed_late(home: Home) -> None:
    def rows(name: str) -> Any:
        with localrun.run(name=name):
            print(f"in {name}")
            yield 1
            print("never")

    first, second = rows("first"), rows("second")
    next(first), next(second)
    first.close()
    print("between")
    second.close()
    print("after")
    one, two = localrun.get_run("first"), localrun.get_run("second")
    assert (one.status, two.status) == (RunStatus.COMPLETED, RunStatus.COMPLETED)
    assert one.stdout() == "in first\nin second\n"
    assert two.stdout() == "in second\nbetween\n"


def test_a_generator_that_is_never_closed(home: Home) -> None:
    script = """
        import localrun
        def rows():
            with localrun.run(name="x"):
                print("inside", flush=True)
                yield 1
        it = rows()
        next(it)
        print("still", flush=True)
        {end}
    """
    child = start_python(script.format(end=""))
    assert child.communicate(timeout=60) == ("inside\nstill\n", "")
    assert localrun.get_run("x").status is RunStatus.COMPLETED
    child = start_python(script.format(end="1 / 0"))
    assert "ZeroDivisionError" in child.communicate(timeout=60)[1]
    assert localrun.get_run("x").error == "ZeroDivisionError: division by zero"


def test_threads_with_blocks_of_their_own(home: Home) -> None:
    entered, left = threading.Barrier(8), threading.Barrier(8)

    def work(number: int) -> None:
        with localrun.run(name=f"t{number}"):
            entered.wait(30)
            print(f"thread {number}")
            left.wait(30)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("after")
    for number in range(8):
        run = localrun.get_run(f"t{number}")
        assert run.status is RunStatus.COMPLETED
        assert set(run.stdout().splitlines()) >= {f"thread {n}" for n in range(8)}
        assert "after" not in run.stdout()


def test_many_blocks_one_after_another_leave_no_descriptor(home: Home) -> None:
    def descriptors() -> list[str]:
        return sorted(os.readlink(entry.path) for entry in os.scandir("/proc/self/fd") if os.path.lexists(entry.path))

    with localrun.run(name="warm"), localrun.run(name="warm-too"):
        pass  # each watches its log, and what watches is kept to be used again
    before, threads = descriptors(), threading.active_count()
    for number in range(20):
        with localrun.run(name=f"n{number}"), localrun.run(name=f"m{number}"):
            print(number)
    assert descriptors() == before
    assert threading.active_count() <= threads  # other tests leave some that end late


def test_a_run_that_waits_for_a_block(home: Home) -> None:
    with localrun.run(name="prep"):
        after = submit("after", "true", scheduling={"after": ["prep"]})
        assert after.refresh().status is RunStatus.QUEUED
    assert after.wait(60).status is RunStatus.COMPLETED
    with pytest.raises(ZeroDivisionError), localrun.run(name="bad"):
        after = submit("after-bad", "true", scheduling={"after": ["bad"]})
        print(1 / 0)
    assert (after.wait(60).status, after.reason) == (RunStatus.FAILED, "DependencyFailed")


def test_secrets_are_not_in_the_record(home: Home) -> None:
    localrun.create_secret(localrun.Secret("token", "environment", "hunter2secret", key="TOKEN"))
    with pytest.raises(ValueError), localrun.run(name="x") as run:
        raise ValueError("bad token hunter2secret")
    assert "hunter2secret" not in Path(run.path, "config.json").read_text()
    assert "***" in run.error


def test_a_record_that_cannot_be_written_is_said(home: Home) -> None:
    with pytest.raises(localrun.SystemFailureError, match="could not be written"), localrun.run(name="x") as run:
        shutil.rmtree(run.path)
    with pytest.raises(ValueError, match="mine") as caught, localrun.run(name="y") as run:
        shutil.rmtree(run.path)
        raise ValueError("mine")
    assert "could not be written" in caught.value.__notes__[0]
    print("the streams are back")


def test_what_was_half_made_by_a_killed_process_is_taken_over(home: Home) -> None:
    folder = home.path / "runs" / "x"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / ".lock").touch()
    assert localrun.get_runs() == []
    with localrun.run(name="x", load=False) as run:
        print("hello")
    assert run.stdout() == "hello\n"


def test_importing_localrun_and_a_block_load_nothing_heavy(home: Home) -> None:
    heavy = {"fsspec", "pynvml", "numpy", "cloudpickle", "asyncio"}
    script = """
        import json, sys, localrun
        with localrun.run(name="x"): pass
        print(json.dumps(sorted(sys.modules)))
    """
    assert not heavy & set(json.loads(run_python(script).stdout))


def test_artifacts_of_a_block(home: Home, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("1,2\n")
    with localrun.run(name="made") as made, localrun.open(tmp_path / "model.txt", "w") as file:
        file.write("model")
    with localrun.run(name="outer") as outer:
        with localrun.run(name="inner") as inner:
            with localrun.open(tmp_path / "data.csv") as file:
                assert file.read() == "1,2\n"
            made.result()
        with localrun.open(tmp_path / "model.txt") as file:
            assert file.read() == "model"
    urls = {str(tmp_path / name): name for name in ("data.csv", "model.txt")}

    def of(artifacts: list[Any]) -> list[str]:
        return sorted(urls.get(each["url"], each.get("name", "?")) for each in artifacts)

    assert of(made.downstream_artifacts) == ["model.txt"] and made.upstream_artifacts == []
    assert of(inner.upstream_artifacts) == ["data.csv", "made"]
    assert of(outer.upstream_artifacts) == ["data.csv", "made", "model.txt"]
    (artifact,) = made.downstream_artifacts
    assert artifact["size"] == 5 and artifact["digest"] == "sha256:" + hashlib.sha256(b"model").hexdigest()
    assert not (Path(made.path) / ".artifacts.jsonl").exists()


def test_trace_files(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("read.txt").write_text("given")
    with localrun.run(name="x", trace_files=True) as run:
        Path("written.txt").write_text(Path("read.txt").read_text())
    assert [each["url"] for each in run.upstream_artifacts] == [str(tmp_path / "read.txt")]
    assert [each["url"] for each in run.downstream_artifacts] == [str(tmp_path / "written.txt")]
    with localrun.run(name="y", trace_files=[tmp_path / "elsewhere"]) as run:
        Path("read.txt").read_text()
    assert run.upstream_artifacts == []
    for wrong in ("data", [1], None):
        with pytest.raises(RunConfigError, match="trace_files: must be True or a list of folders"):
            localrun.run(name="z", trace_files=wrong)  # type: ignore[arg-type]


def test_artifacts_of_a_block_whose_process_was_killed(home: Home, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("1,2\n")
    script = """
        import os, sys, localrun
        with localrun.run(name="x"):
            with localrun.open(sys.argv[1]) as file:
                file.read()
            os.kill(os.getpid(), 9)
    """
    run_python(script, tmp_path / "data.csv", ok=False)
    (artifact,) = localrun.get_run("x").upstream_artifacts
    assert artifact["url"] == str(tmp_path / "data.csv")
