"""Copies that are killed, or lose their server: nothing that looks complete, the run that was there is whole, and the
next copy works.
"""

from __future__ import annotations

import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from servers import S3, Server, Sftp, end
from support import Home, run_python, wait_until
from where import Where

import localrun
from localrun import LocalrunError, NotARunError, RunNotFoundError, SystemFailureError


@localrun.function
def work(x: int) -> dict[str, int]:
    return {"x": x}


def run_of(x: int, size: int) -> Any:
    """A run with a result, and a file of that size."""
    run = work.run(x, run_name=f"run-{x}").wait()
    run.write(bytes([x]) * size, "checkpoints/state")
    return run


# Everything is imported once; the copies are made, killed and looked at in forks, which share nothing.
KILLED = """
    import json, os, random, signal, sys, time
    import fsspec, localrun
    from localrun.api.moving import copy, mirror, places
    from localrun.model.pickles import payload
    system, path, archived, config, times = sys.argv[1], *map(json.loads, sys.argv[2:])
    fsspec.get_filesystem_class("file" if system == "here" else system)
    random.seed(times)

    def start(act):
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                said = act()
            except localrun.LocalrunError as error:
                said = type(error).__name__
            os.write(writer, json.dumps(said).encode())
            os._exit(0)
        os.close(writer)
        return pid, reader

    def answer(pid, reader):
        said = os.read(reader, 10000)
        os.close(reader)
        os.waitpid(pid, 0)
        return json.loads(said) if said else None

    def send(x, path, overwrite=False):
        run = localrun.get_run(f"run-{x}")
        return run.to(system, path, data_config=config, overwrite=overwrite).result()["x"]

    def seen(path):
        def look():
            run = localrun.run(path=path, system=system, data_config=config, trust=True)
            assert run.to("memory", "checked").result() == run.result()  # every file is there, as the manifest says
            return run.result()["x"]
        return answer(*start(look))

    def killed(act, within):
        pid, reader = start(act)
        time.sleep(random.uniform(0, within))
        os.kill(pid, signal.SIGKILL)
        return answer(pid, reader)

    began = time.monotonic()
    assert answer(*start(lambda: send(2, f"{path}/first"))) == 2
    takes = time.monotonic() - began
"""

FREE = """
    for number in range(times):
        target = f"{path}/{number}"
        said = killed(lambda: send(2, target), takes)
        found = seen(target)
        assert found in (2, "NotARunError", "RunNotFoundError", "SystemFailureError"), found
        assert said is None or found == 2, found
        assert answer(*start(lambda: send(2, target, found == 2))) == 2
        assert seen(target) == 2
"""

TAKEN = """
    target = f"{path}/taken"
    assert answer(*start(lambda: send(1, target))) == 1
    for _ in range(times):
        killed(lambda: send(2, target, True), 2 * takes)
        found = seen(target)
        assert found in (1, 2) or 1 in map(seen, archived), found  # the old one is whole, wherever it is
        assert answer(*start(lambda: send(1, target, found in (1, 2)))) == 1
    assert seen(target) == 1
"""


@pytest.mark.parametrize("code", [FREE, TAKEN], ids=["free", "taken"])
def test_a_killed_copy_never_looks_complete(durable: Where, home: Home, code: str, thorough: bool) -> None:
    runs = [run_of(x, 1 << 20) for x in (1, 2)]
    archived = [f"{durable.base}/.archive/taken.{runs[0].run_uid}"]
    given = (durable.base, archived, durable.data_config, 40 if thorough else 3)
    run_python(dedent(KILLED) + dedent(code), durable.system, *map(json.dumps, given), timeout=200)


def test_one_killed_copy_leaves_room_for_the_next(home: Home, tmp_path: Path) -> None:
    """Here, what it leaves is hidden, and used up by the next one."""
    run = run_of(1, 1 << 20)
    parent = tmp_path / "elsewhere"
    left = parent / f".copy.{run.run_uid}.copying"
    (left / "checkpoints").mkdir(parents=True)
    (left / "checkpoints/state").write_text("half")
    (left / "more").symlink_to("/etc")
    assert run.to("here", parent / "copy").result() == {"x": 1}
    assert [path.name for path in parent.iterdir()] == ["copy"]
    assert not (parent / "copy/more").exists()
    (parent / "copy").rename(parent / "kept")
    left.symlink_to(parent / "kept")
    with pytest.raises(SystemFailureError):
        run.to("here", parent / "copy")
    assert (parent / "kept/result.pkl").exists()


# -- servers that go away ---------------------------------------------------------------------------------------------


def lost(server: Server, where: Where, run: Any, number: int) -> BaseException:
    """Copy a run, and signal the server once the copy is under way: the error that comes of it."""
    fs = where.fs()

    def is_under_way() -> bool:
        fs.invalidate_cache()
        return any(name.endswith(".pkl") for name in fs.find(where.base))

    with ThreadPoolExecutor(1) as pool:
        copying = pool.submit(where.to, run)
        wait_until(lambda: is_under_way() or copying.done(), 30, "the copy is under way")
        if number == signal.SIGKILL:
            server.kill()
        else:
            server.signal(number)
        error = copying.exception(100)
    assert isinstance(error, LocalrunError), error
    return error


def test_an_sftp_server_that_dies(home: Home, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    run = run_of(1, 50 << 20)
    server = Sftp(tmp_path_factory.mktemp("sftp"))
    try:
        where = Where("sftp", str(tmp_path / "elsewhere"), server.config)
        assert isinstance(lost(server, where, run, signal.SIGKILL), SystemFailureError)
        with pytest.raises(SystemFailureError):
            where.load()
        server.start()
        with pytest.raises(NotARunError, match="interrupted"):
            where.load()
        copy = where.to(run)
        server.kill()
        with pytest.raises(SystemFailureError):
            copy.result()
        server.start()
        assert copy.result() == {"x": 1}  # the same handle, over a new connection
    finally:
        end(server)


def test_an_sftp_server_that_says_nothing(home: Home, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    run = run_of(1, 50 << 20)
    server = Sftp(tmp_path_factory.mktemp("sftp"))
    try:
        where = Where("sftp", str(tmp_path / "elsewhere"), server.config | {"timeout": 2})
        began = time.monotonic()
        error = lost(server, where, run, signal.SIGSTOP)
        assert isinstance(error, SystemFailureError) and time.monotonic() - began < 60
        server.signal(signal.SIGCONT)
        with pytest.raises((NotARunError, RunNotFoundError)):
            where.load()
        assert where.to(run).result() == {"x": 1}
    finally:
        end(server)


def test_an_s3_server_that_dies(home: Home, tmp_path_factory: pytest.TempPathFactory) -> None:
    run = run_of(1, 50 << 20)
    server = S3(tmp_path_factory.mktemp("s3"))
    try:
        server.make_bucket()
        where = Where("s3", "bucket/runs", server.config)
        assert isinstance(lost(server, where, run, signal.SIGKILL), SystemFailureError)
        with pytest.raises(SystemFailureError):
            where.load()
        server.start()
        server.make_bucket()
        with pytest.raises(RunNotFoundError):
            where.load()
        assert where.to(run).result() == {"x": 1}
    finally:
        end(server)
