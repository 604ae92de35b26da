"""A traced block that opens so many files that it has ended before all of them were looked at."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from support import Home, kill, run_python, witness_at_work

import localrun
from localrun import files
from localrun.engine.tracing.files import audit
from localrun.model import artifacts, catalogue
from localrun.model.folder import RunFolder

COUNT = 1500


@pytest.fixture
def data(home: Home, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files of a project, which is the working folder."""
    project = home.place / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    paths = [project / f"{number}.txt" for number in range(COUNT)]
    for path in paths:
        path.write_text(path.name)
        os.utime(path, (1e9, 1e9))
    return paths


def _read_all(data: list[Path]) -> None:
    for path in data:
        path.read_text()


@contextmanager
def _held_up(home: Home, data: list[Path]) -> Iterator[localrun.Run]:
    """A block that has ended, while the process that looks at its files is stopped; that goes on afterwards."""
    with localrun.run(name="run", trace_files=True) as run:
        _read_all(data[: COUNT // 2])
        process = witness_at_work(home.path)
        os.kill(process.pid, signal.SIGSTOP)
        _read_all(data)
    try:
        yield run
    finally:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGCONT)


def _go_on_soon(home: Home) -> None:
    process = witness_at_work(home.path)
    threading.Timer(0.3, os.kill, (process.pid, signal.SIGCONT)).start()


def test_the_block_ends_and_who_asks_waits(home: Home, data: list[Path]) -> None:
    with _held_up(home, data) as run:
        assert run.status is localrun.RunStatus.COMPLETED
        assert home.record("run")["status"] == "COMPLETED"
        _go_on_soon(home)
        assert {each["url"] for each in run.upstream_artifacts} == set(map(str, data))
    assert all(each["digest"] for each in localrun.get_run("run").upstream_artifacts)
    assert len(localrun.lineage("run").nodes) > COUNT


def test_one_that_makes_way_for_another_of_its_name(home: Home, data: list[Path]) -> None:
    with localrun.run(name="run", trace_files=True) as first:
        _read_all(data)
    with localrun.run(name="run", trace_files=True) as second:
        _read_all(data[:1000])
        assert len(first.upstream_artifacts) == COUNT  # not those of the second, which holds its lock
    assert (len(first.upstream_artifacts), len(second.upstream_artifacts)) == (COUNT, 1000)


def test_threads_end_theirs_at_once(home: Home, data: list[Path]) -> None:
    def work(name: str) -> list[localrun.Run]:
        runs = []
        for number in range(4):
            with localrun.run(name=f"{name}-{number}", trace_files=True) as run:
                _read_all(data[:400])
            runs.append(run)
        return runs

    with ThreadPoolExecutor() as pool:
        for runs in pool.map(work, "abc"):
            assert all(len(run.upstream_artifacts) >= 400 for run in runs)


def test_a_block_that_the_end_of_the_program_leaves(home: Home, data: list[Path]) -> None:
    code = """
        import os, sys
        from pathlib import Path
        import localrun
        os.chdir(sys.argv[1])

        def work():
            with localrun.run(name="run", trace_files=True):
                for path in Path(".").iterdir():
                    path.read_text()
                yield

        generator = work()
        next(generator)
    """
    run_python(code, data[0].parent)
    assert not files.is_locked(RunFolder(home.runs / "run").artifacts)
    assert len(localrun.get_run("run").upstream_artifacts) == COUNT


def test_wherever_it_is_moved_meanwhile(home: Home, data: list[Path]) -> None:
    with _held_up(home, data) as run:
        run.save("elsewhere")
        other = localrun.run(name="run")  # has the name now
        with other:
            pass
        _go_on_soon(home)
        assert len(run.upstream_artifacts) == COUNT
        assert localrun.get_run("run").upstream_artifacts == []
    assert len(localrun.get_run("elsewhere").upstream_artifacts) == COUNT


def test_deleted_meanwhile(home: Home, data: list[Path]) -> None:
    with _held_up(home, data) as run:
        localrun.delete_run("run")
        _go_on_soon(home)
        assert len(run.refresh().upstream_artifacts) == COUNT


@pytest.mark.parametrize("way", ["to", "export"])
def test_a_copy_has_all(home: Home, data: list[Path], way: str) -> None:
    with _held_up(home, data) as run:
        _go_on_soon(home)
        if way == "to":
            other = run.to("here", path=home.place / "copy")
        else:
            archive = localrun.export_run("run", home.place / "run.tar.gz")
            other = localrun.import_run(archive, name="copy")
        assert len(other.upstream_artifacts) == COUNT


PROGRAM = """
    import os, sys
    from pathlib import Path
    import localrun
    os.chdir(sys.argv[1])
    with localrun.run(name="run", trace_files=True):
        for path in Path(".").iterdir():
            path.read_text()
    exec(sys.argv[2])
"""


@pytest.mark.parametrize("end", ["", "os._exit(0)", "os.kill(os.getpid(), 9)", "os.kill(0, 15)", "raise SystemExit"])
def test_the_program_ends_with_it(home: Home, data: list[Path], end: str) -> None:
    run_python(PROGRAM, data[0].parent, f"os.setsid(); {end}", ok=False)
    if end in ("", "raise SystemExit"):
        assert not files.is_locked(RunFolder(home.runs / "run").artifacts)
    assert len(localrun.get_run("run").upstream_artifacts) == COUNT


def test_in_a_run_of_the_queue(home: Home, data: list[Path]) -> None:
    @localrun.function
    def work(folder: str) -> None:
        os.chdir(folder)
        with localrun.run(name="inside", trace_files=True):
            for path in Path().iterdir():
                path.read_text()

    work.run(str(data[0].parent)).result(60)
    assert len(localrun.get_run("inside").upstream_artifacts) == COUNT


def test_one_that_is_killed_then_is_told_of(home: Home, data: list[Path]) -> None:
    with _held_up(home, data) as run:
        process = witness_at_work(home.path)
        kill(process.pid)
        assert len(run.upstream_artifacts) < COUNT
        with pytest.warns(RuntimeWarning, match="not all files that were opened are recorded"):
            audit.settle()  # as at the end of the program


def test_another_users_lock_is_waited_for_by_nobody(home: Home, tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("needs to be root, to make a file another user's")
    folder = RunFolder(tmp_path)
    lock = files.ByteLock.of_open(artifacts.open_journal(folder))
    os.chown(folder.artifacts, 1234, 1234)
    began = time.monotonic()
    catalogue.settle(folder)
    assert time.monotonic() - began < 10
    lock.release()


def test_a_limit_of_the_size_of_files(home: Home, data: list[Path]) -> None:
    code = """
        import os, resource, signal, sys
        import localrun
        os.chdir(sys.argv[1])
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
        with localrun.run(name="run", trace_files=True):
            for number in range(3000):
                open(f"{number}.{'x' * 100}", "a").close()
    """
    for limit, says in ((1 << 15, "opens can't be recorded"), (1 << 17, "not all files that were opened")):
        said = run_python(code, data[0].parent, limit)
        assert says in said.stderr
        assert localrun.get_run("run").status is localrun.RunStatus.COMPLETED
