"""What others can have written is not executed until somebody says so: with another user, with folders that others can
write, and with runs that came from elsewhere.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import Home, execute, run_python, submit, wait_until

import localrun
from localrun import PayloadError, ResultUnavailableError, RunFailedError, SystemFailureError
from localrun.api.provenance.replay import replay
from localrun.errors import UntrustedRunError
from localrun.model import trust
from localrun.model.folder import RunFolder

OTHER = 12345

if os.geteuid():
    pytest.skip("only root can give files to another user", allow_module_level=True)


class Evil:
    """A pickle that tells by a file that it was loaded."""

    def __init__(self, told: Path) -> None:
        self.told = told

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.told),)


@localrun.function
def work(x: int) -> int:
    return x


@localrun.function
def fail() -> None:
    raise ValueError("as it must be")


@pytest.fixture
def run(home: Home) -> Any:
    return work.run(3, run_name="run").wait()


def others_folder(path: Path) -> str:
    os.chown(path, OTHER, -1)
    return f"its folder belongs to uid {OTHER}"


def others_file(path: Path) -> str:
    for name in ("result.pkl", "inputs.pkl", "function.pkl"):
        os.chown(path / name, OTHER, -1)
    return f"belongs to uid {OTHER}"


def writable_by_all(path: Path) -> str:
    path.chmod(0o777)
    return "its folder can be written by others than root (mode 777)"


def writable_by_the_group(path: Path) -> str:
    path.chmod(0o770)
    return "its folder can be written by others than root"


def sticky(path: Path) -> str:
    path.chmod(0o1777)
    return "can be written by others"


def writable_files(path: Path) -> str:
    for name in ("result.pkl", "inputs.pkl", "function.pkl"):
        (path / name).chmod(0o660)
    return "can be written by others than root (mode 660)"


def came_from_elsewhere(path: Path) -> str:
    (path / ".untrusted").write_text("their-archive.tar.gz\n")
    return "it came from their-archive.tar.gz"


def marked_by_a_dangling_link(path: Path) -> str:
    (path / ".untrusted").symlink_to("/nowhere")
    return "it came from elsewhere"


WAYS = [others_folder, others_file, writable_by_all, writable_by_the_group, sticky, writable_files,
        came_from_elsewhere, marked_by_a_dangling_link]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_what_others_can_have_written_is_not_executed(run: Any, way: Callable[[Path], str], tmp_path: Path) -> None:
    assert run.is_trusted
    why = way(Path(run.path))
    told = tmp_path / "told"
    for name in ("result.pkl", "inputs.pkl", "function.pkl"):
        info = os.stat(f"{run.path}/{name}")
        with open(f"{run.path}/{name}", "wb") as file:  # the same file, so that it stays as it is
            pickle.dump(Evil(told), file)
        assert os.stat(f"{run.path}/{name}").st_uid == info.st_uid
    for each in (run, localrun.get_run("run"), localrun.run(path=run.path)):
        for execute_it in (each.result, each.inputs, each.start, each.clone):
            with pytest.raises(UntrustedRunError) as caught:
                execute_it()
            assert why in str(caught.value) and "trust=True" in str(caught.value)
            assert caught.value.status == 403
        assert not each.is_trusted
    assert not told.exists()
    assert str(localrun.get_run("run").status) == "COMPLETED"
    for execute_it in (run.result, run.inputs):
        with pytest.raises((ResultUnavailableError, PayloadError)):  # it is not what was stored
            execute_it(trust=True)
    assert not told.exists()


@pytest.mark.parametrize("mode", [None, 0o666])
def test_a_command_with_parameters_that_others_can_have_written(home: Home, mode: int | None) -> None:
    run = execute("run", "cat $PARAMETERS", parameters={"a": 1})
    parameters = Path(run.path, "parameters.yaml")
    if mode is None:
        os.chown(parameters, OTHER, -1)
    else:
        parameters.chmod(mode)
    for execute_it in (run.start, run.clone):
        with pytest.raises(UntrustedRunError, match=r"parameters\.yaml"):
            execute_it()


@pytest.mark.parametrize("name", ["provenance.json", "checkpoints", "code", "work"])
def test_what_a_start_reads_that_others_can_have_written(home: Home, name: str) -> None:
    run = execute("run", "true")
    for folder in ("code", "work"):
        (Path(run.path) / folder).mkdir(mode=0o700)
    Path(run.path).chmod(0o755)
    assert run.is_trusted
    (Path(run.path) / name).chmod(0o777)
    for execute_it in (run.start, run.clone, lambda: replay(run)):
        with pytest.raises(UntrustedRunError, match=rf"{name} can be written by others"):
            execute_it()


def test_checkpoints_on_another_disk(run: Any, tmp_path: Path) -> None:
    shutil.move(f"{run.path}/checkpoints", tmp_path / "large")
    os.symlink(tmp_path / "large", f"{run.path}/checkpoints")
    (tmp_path / "large").chmod(0o770)
    assert run.is_trusted and run.start().wait().result() == 3


def test_what_a_group_may_write_where_it_can_not_go(run: Any, home: Home) -> None:
    """As umask 002 has it, the default of many systems."""
    umask = os.umask(0o002)
    try:
        shutil.rmtree(f"{run.path}/checkpoints")
        os.makedirs(f"{run.path}/checkpoints/step-1")
        Path(run.path, "checkpoints/step-1/weights").write_text("w")
        assert os.stat(f"{run.path}/checkpoints").st_mode & 0o777 == 0o775
        assert run.is_trusted and run.start().wait().result() == 3
        archive = localrun.export_run(run, home.place / "archive.tar.gz")
        run.to("here", home.runs / "copy")
        for copy in (localrun.get_run("copy"), localrun.import_run(archive, "back", trust=True)):
            Path(copy.path).chmod(0o755)
            assert copy.is_trusted
    finally:
        os.umask(umask)


@pytest.mark.parametrize("way", WAYS)
def test_what_is_trusted_is_executed(run: Any, way: Callable[[Path], str]) -> None:
    way(Path(run.path))
    assert run.result(trust=True) == 3 and run.inputs(trust=True) == {"args": [3], "kwargs": {}}
    trusted = localrun.run(path=run.path, trust=True)
    assert trusted.is_trusted and trusted.result() == 3 and trusted.refresh().inputs()["args"] == [3]
    assert localrun.get_run(trusted).result() == 3
    assert localrun.run("run", trust=True).result() == 3
    assert trusted.clone(name="clone").wait().result() == 3
    assert trusted.start().wait().resumption_count == 1


def test_a_link_is_not_followed(run: Any, tmp_path: Path) -> None:
    shutil.move(f"{run.path}/result.pkl", tmp_path / "elsewhere.pkl")
    os.symlink(tmp_path / "elsewhere.pkl", f"{run.path}/result.pkl")
    for said in (False, True):
        with pytest.raises(ResultUnavailableError, match="symbolic link"):
            run.result(trust=said)
    shutil.move(f"{run.path}/function.pkl", tmp_path / "function.pkl")
    os.symlink(tmp_path / "function.pkl", f"{run.path}/function.pkl")
    with pytest.raises(UntrustedRunError, match=r"function\.pkl is a symbolic link"):
        run.start()


def test_an_exception_is_told_in_words(home: Home) -> None:
    run = fail.run(run_name="run").wait()
    assert type(run.exception()) is ValueError
    os.chown(run.path, OTHER, -1)
    error = run.exception()
    assert type(error) is RunFailedError and "as it must be" in str(error)
    with pytest.raises(RunFailedError):
        run.result()
    with pytest.raises(ValueError, match="as it must be"):
        run.result(trust=True)
    assert type(localrun.run(path=run.path, trust=True).exception()) is ValueError


def test_commands_of_an_untrusted_run_are_shown_and_not_executed(home: Home) -> None:
    run = execute("run", "echo x")
    came_from_elsewhere(Path(run.path))
    assert run.result() == run.stdout() == "x\n" and str(run.logs()) == "x\n" and run.config.command == "echo x"
    for execute_it in (run.start, run.clone):
        with pytest.raises(UntrustedRunError, match="is not executed"):
            execute_it()


AS_ANOTHER = """
    import os, sys
    import localrun
    from localrun.errors import UntrustedRunError
    run = localrun.get_run("run")
    run.result()  # imports what a user other than root may not be allowed to read
    os.chown(run.path, 1, -1)
    assert run.exception() is None and not run.is_trusted
    os.chown(run.path, 0, -1)
    os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
    os.environ["LOCALRUN_HOME"] = f"{sys.argv[2]}/home"
    run = localrun.run(path=sys.argv[2])
    try:
        print(run.result())
    except UntrustedRunError as error:
        print(str(error))
"""


def test_another_user_trusts_root_and_himself_alone(run: Any, home: Home) -> None:
    """Under /var/tmp: another user can't reach below pytest's folders."""
    place = Path("/var/tmp", f"localrun-test-{os.getpid()}")
    shutil.copytree(run.path, place)

    def seen(uid: int) -> str:
        return str(run_python(AS_ANOTHER, uid, place).stdout.strip())

    try:
        for path in (place, *place.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        assert seen(OTHER) == "3"
        for path in (place, *place.rglob("*")):
            os.chown(path, OTHER, OTHER)
        assert seen(OTHER) == "3"
        assert f"its folder belongs to uid {OTHER}" in seen(OTHER + 1)
        place.chmod(0o775)
        assert "can be written by others" in seen(OTHER)
    finally:
        shutil.rmtree(place)


def test_what_came_from_elsewhere_stays_so_when_it_is_moved(run: Any, home: Home) -> None:
    came_from_elsewhere(Path(run.path))
    for copy in (run.to("here", home.runs / "copy"), run.to("memory", f"{home.path}/x"),
                 run.to("memory", f"{home.path}/y").to("here", home.runs / "again")):  # fmt: skip
        assert not copy.is_trusted
        with pytest.raises(UntrustedRunError, match="it came from"):
            copy.result()
    assert (home.runs / "copy/.untrusted").read_text() == run.path
    trusted = localrun.run("run", trust=True)
    assert trusted.to("here", home.runs / "trusted").result() == 3
    assert localrun.get_run("trusted").result() == 3


def test_what_came_as_if_it_waited_is_not_queued(run: Any, home: Home) -> None:
    """A record that names this machine and this folder is somebody's word."""
    record = json.loads(Path(run.path, "config.json").read_bytes())
    for status in ("QUEUED", "RUNNING"):
        lifecycle = [record["lifecycle"][0], {**record["lifecycle"][1], "status": status, "ended_at": None}]
        Path(run.path, "config.json").write_text(json.dumps(record | {"status": status, "lifecycle": lifecycle}))
        came_from_elsewhere(Path(run.path)) if status == "QUEUED" else others_folder(Path(run.path))
        for path in (run.path, shutil.copytree(run.path, home.runs / f"copy-{status}")):
            found = localrun.run(path=path)
            assert str(found.refresh().status) == status
            with pytest.raises(SystemFailureError, match="nothing looks after it"):
                found.wait(10)
        assert home.tickets() == []
    for path in home.runs.iterdir():
        shutil.rmtree(path)


def test_no_dispatcher_starts_in_another_users_home(run: Any, home: Home, tmp_path: Path) -> None:
    """His tickets are commands, and a run that is copied from him names his home."""
    theirs = tmp_path / "theirs"
    (theirs / "queue/waiting").mkdir(parents=True)
    (theirs / "queue/waiting/1-0-x").write_text("{}")
    for path in (theirs, *theirs.rglob("*")):
        os.chown(path, OTHER, -1)
        path.chmod(0o777)
    record = json.loads(Path(run.path, "config.json").read_bytes()) | {"home": str(theirs)}
    Path(run.path, "config.json").write_text(json.dumps(record))
    found = localrun.run(path=run.path).refresh()
    found.wait(1)
    assert found.result() == 3
    assert not (theirs / "dispatcher.log").exists() and not (theirs / "queue/dispatcher.lock").exists()
    shutil.copytree(run.path, home.runs / "theirs")
    assert localrun.get_run("theirs").start().wait().resumption_count == 1  # in our own queue
    wait_until(lambda: not home.tickets())


def test_the_reason_names_who(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    os.mkdir(folder.path, 0o700)
    assert trust.refusal(folder) is None
    os.chown(folder.path, 1, -1)
    assert trust.refusal(folder) == "its folder belongs to daemon"
    trust.mark(folder, "s3://theirs/run")
    assert trust.refusal(folder) == "it came from s3://theirs/run"


def test_a_queue_that_came_with_a_run_is_nobodys(run: Any, home: Home) -> None:
    """A record may name as its home a folder in a run's own, which is ours once it was copied here."""
    came_along = home.runs / "copy/home"
    record = json.loads(Path(run.path, "config.json").read_bytes()) | {"home": str(came_along)}
    Path(run.path, "config.json").write_text(json.dumps(record))
    (Path(run.path) / "home/queue/waiting").mkdir(parents=True)
    (Path(run.path) / "home/queue/waiting/1-0-x").write_text("{}")
    came_from_elsewhere(Path(run.path))
    copy = run.to("here", home.runs / "copy")
    localrun.get_run("copy").save("copy-2").save("copy")  # these prepare the queue of the run
    assert copy.refresh().wait(1).result(trust=True) == 3
    localrun.get_run("copy").delete()
    left = home.runs / f".archive/copy.{run.run_uid}/home"
    there = {str(path.relative_to(left)) for path in left.rglob("*")}
    assert there == {"queue", "queue/waiting", "queue/waiting/1-0-x"}
    shutil.rmtree(run.path)


def test_connecting_executes_what_a_record_says(home: Home, tmp_path: Path) -> None:
    """Of a container's the engine's program, of any other's what its process has in its environment."""
    run = submit("run", "sleep 100")
    wait_until(lambda: home.status("run") == "RUNNING")
    Path(run.path).chmod(0o777)
    with pytest.raises(UntrustedRunError, match="can be written by others"):
        localrun.connect("run", "true")
    told = tmp_path / "told"
    assert run_python(CONNECT, run.path, f"touch {told}").returncode == 0 and told.exists()
    run.stop()


CONNECT = """
    import sys, localrun
    sys.exit(localrun.connect(localrun.run(path=sys.argv[1], trust=True), sys.argv[2]))
"""


def test_another_users_lost_block_is_left_as_it_is(home: Home, tmp_path: Path) -> None:
    """What there is to be completed may be links to our files; and what we write he can't read."""
    (tmp_path / "secret").write_text("ours")
    with localrun.run(name="block") as block:
        pass
    folder = Path(block.path)
    record = json.loads((folder / "config.json").read_bytes())
    lifecycle = [phase for phase in record["lifecycle"] if phase["status"] != "COMPLETED"]
    (folder / "config.json").write_text(json.dumps(record | {"status": "RUNNING", "lifecycle": lifecycle}))
    source = folder / "source/logs/0"
    source.mkdir(parents=True)
    (source / "rank_0.out").symlink_to(tmp_path / "secret")
    (source / "rank_0.err").touch()
    (folder / "logs/0/rank_0.source").write_text(f"0 0 {folder}/source")
    for path in (folder, *folder.rglob("*")):
        os.chown(path, OTHER, OTHER, follow_symlinks=False)
    before = (folder / "config.json").read_bytes()
    found = localrun.run(path=folder)
    assert str(found.refresh().status) == "RUNNING"
    with pytest.raises(SystemFailureError, match="nothing looks after it"):
        found.wait(10)
    assert (folder / "config.json").read_bytes() == before and (folder / "logs/0/rank_0.out").read_text() == ""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, os.geteuid(), -1, follow_symlinks=False)
    assert str(found.refresh().status) == "FAILED" and found.reason == "SystemFailure"
