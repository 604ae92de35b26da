"""A waiter is woken by what it watches and by nothing else, with inotify and without."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import Home, run_python

from localrun import files
from localrun.engine.watch import CREATED, MODIFIED, REPLACED, Watch


@pytest.fixture
def watch() -> Iterator[Watch]:
    with Watch.borrow() as watch:
        yield watch


def test_a_replacement_wakes(watch: Watch, tmp_path: Path) -> None:
    assert watch.add(str(tmp_path), REPLACED)
    timer = threading.Timer(0.05, files.replace, (tmp_path / "config.json", b"{}"))
    timer.start()
    assert watch.wait(20) == [str(tmp_path)]
    timer.join()


def test_growth_wakes_and_other_files_do_not(watch: Watch, tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    assert watch.add(str(tmp_path / "log"), MODIFIED)
    (tmp_path / "other").write_text("x")
    assert watch.wait(0) == []
    with open(tmp_path / "log", "a") as file:
        file.write("x")
    assert watch.wait(20) == [str(tmp_path / "log")]


def test_changes_come_in_order_and_once_each(watch: Watch, tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in "abc"]
    for path in paths:
        Path(path).touch()
        watch.add(path, MODIFIED)
    for path in [paths[2], paths[0], paths[2]]:
        with open(path, "a") as file:
            file.write("x")
    assert watch.changes() == [paths[2], paths[0]]
    assert watch.changes() == []


def test_what_is_not_there_cannot_be_watched_until_it_is(watch: Watch, tmp_path: Path) -> None:
    assert not watch.add(str(tmp_path / "later"), MODIFIED)
    assert watch.add(str(tmp_path), CREATED)
    (tmp_path / "later").touch()
    assert watch.wait(20) == [str(tmp_path)]
    assert watch.add(str(tmp_path / "later"), MODIFIED)


def test_a_folder_that_goes_away_wakes(watch: Watch, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    watch.add(str(tmp_path / "run"), REPLACED)
    os.rename(tmp_path / "run", tmp_path / "gone")
    assert watch.wait(20) == [str(tmp_path / "run")]


def test_discarding_and_clearing(watch: Watch, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).touch()
        watch.add(str(tmp_path / name), MODIFIED)
    watch.discard(str(tmp_path / "a"))
    (tmp_path / "a").write_text("x")
    assert watch.changes() == []
    (tmp_path / "b").write_text("x")
    watch.clear()
    assert watch.changes() == []


def test_a_wait_ends_in_time(watch: Watch, tmp_path: Path) -> None:
    watch.add(str(tmp_path), REPLACED)
    start = time.monotonic()
    assert watch.wait(0.1) == []
    assert time.monotonic() - start >= 0.1
    assert watch.wait(-1) == []


def test_a_watch_is_given_back_clean(tmp_path: Path) -> None:
    with Watch.borrow() as one:
        one.add(str(tmp_path), REPLACED)
        fd = one.fd
    files.replace(tmp_path / "a", b"")
    with Watch.borrow() as again:
        assert again.fd == fd
        assert again.changes() == []


def test_many_threads_borrow_at_once() -> None:
    errors = []

    def work() -> None:
        try:
            for _ in range(300):
                with Watch.borrow():
                    pass
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_forked_child_has_watches_of_its_own() -> None:
    with Watch.borrow() as watch:
        idle = watch.fd
    child = os.fork()
    if child == 0:
        with Watch.borrow() as watch:
            os._exit(int(watch.fd == idle))
    assert os.waitpid(child, 0)[1] == 0


def test_where_the_kernel_has_no_instance_left_waiters_look_instead(home: Home) -> None:
    """128 instances a user are the default; here a process of its own uses up what it may open."""
    done = run_python(
        """
        import os, resource, threading
        from localrun import files
        from localrun.engine.watch import REPLACED, Watch
        resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
        used = []
        try:
            while True:
                used.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
        watch = Watch()
        assert watch.fd is None
        os.close(used.pop())
        folder = os.environ["LOCALRUN_HOME"]
        assert not watch.add(folder, REPLACED)
        os.mkdir(folder)
        assert watch.add(folder, REPLACED)
        assert watch.wait(0.001) == []
        assert watch.wait(-1) == []
        assert watch.changes() == []
        watch.discard(folder)
        watch.clear()
        """
    )
    assert done.stderr == ""
