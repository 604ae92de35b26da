"""Files made whole, and locks that are gone with their holder."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest
from support import Home, kill, run_python, start_python, wait_until

from localrun import files
from localrun.files import ByteLock, ProcessLock


class TestContent:
    def test_create_makes_a_private_file_and_never_replaces_one(self, tmp_path: Path) -> None:
        path = tmp_path / "a"
        fd = files.create(path, b"one")
        os.fsync(fd)
        os.close(fd)
        assert path.read_bytes() == b"one"
        assert path.stat().st_mode & 0o777 == 0o600
        with pytest.raises(FileExistsError):
            files.create(path, b"two")
        assert path.read_bytes() == b"one"

    def test_create_follows_no_link(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(tmp_path / "target")
        with pytest.raises(FileExistsError):
            files.create(tmp_path / "link", b"x")
        assert not (tmp_path / "target").exists()

    def test_replace_leaves_nothing_beside_it(self, tmp_path: Path) -> None:
        path = tmp_path / "a"
        files.replace(path, b"one")
        files.replace(path, b"two", sync=True)
        assert path.read_bytes() == b"two"
        assert os.listdir(tmp_path) == ["a"]

    def test_replace_uses_up_what_a_killed_writer_left(self, tmp_path: Path) -> None:
        (tmp_path / ".a.tmp").write_bytes(b"x" * 100)
        files.replace(tmp_path / "a", b"one")
        assert (tmp_path / "a").read_bytes() == b"one"
        assert os.listdir(tmp_path) == ["a"]

    @pytest.mark.parametrize("size", [0, 1, (1 << 16) - 1, 1 << 16, (1 << 16) + 1, 1 << 20])
    def test_read_gives_all(self, tmp_path: Path, size: int) -> None:
        data = os.urandom(size)
        (tmp_path / "a").write_bytes(data)
        assert files.read(tmp_path / "a") == data

    def test_a_reader_never_sees_a_mixture(self, tmp_path: Path) -> None:
        path = tmp_path / "a"
        versions = [bytes([65 + i]) * (200_000 + i) for i in range(4)]
        files.replace(path, versions[0])
        stop = threading.Event()

        def write() -> None:
            while not stop.is_set():
                for version in versions:
                    files.replace(path, version)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            assert all(files.read(path) in versions for _ in range(300))
        finally:
            stop.set()
            writer.join()

    def test_json_that_is_none_is_a_value_error(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"\xff{")
        with pytest.raises(ValueError):
            files.read_json(tmp_path / "a")

    def test_remove(self, tmp_path: Path) -> None:
        (tmp_path / "a").touch()
        assert files.remove(tmp_path / "a")
        assert not files.remove(tmp_path / "a")


HOLD = """
import sys, time
from localrun.files import ByteLock, ProcessLock
lock = ByteLock.acquire(sys.argv[2], 3) if sys.argv[1] == "byte" else ProcessLock.try_acquire(sys.argv[2])
print("held" if lock else "not held", flush=True)
sys.stdin.read()
"""


class TestByteLock:
    def test_bytes_are_locked_by_themselves(self, tmp_path: Path) -> None:
        with ByteLock.acquire(tmp_path / "lock", 0):
            assert files.is_locked(tmp_path / "lock", 0)
            assert not files.is_locked(tmp_path / "lock", 1)
            with ByteLock.acquire(tmp_path / "lock", 1):
                assert ByteLock.try_acquire(tmp_path / "lock", 0) is None
        assert not files.is_locked(tmp_path / "lock", 0)
        assert not files.is_locked(tmp_path / "lock", 1)

    def test_a_missing_file_is_not_locked_and_not_made(self, tmp_path: Path) -> None:
        assert not files.is_locked(tmp_path / "lock")
        assert not (tmp_path / "lock").exists()

    def test_threads_exclude_each_other(self, tmp_path: Path) -> None:
        inside, most = 0, 0
        guard = threading.Lock()

        def work() -> None:
            nonlocal inside, most
            for _ in range(50):
                with ByteLock.acquire(tmp_path / "lock"):
                    with guard:
                        inside += 1
                        most = max(most, inside)
                    with guard:
                        inside -= 1

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert most == 1

    def test_processes_exclude_each_other(self, home: Home, tmp_path: Path) -> None:
        code = """
            import sys
            from localrun.files import ByteLock
            for _ in range(200):
                with ByteLock.acquire(sys.argv[1]):
                    with open(sys.argv[2]) as file:
                        count = int(file.read())
                    with open(sys.argv[2], "w") as file:
                        file.write(str(count + 1))
        """
        (tmp_path / "count").write_text("0")
        children = [start_python(code, tmp_path / "lock", tmp_path / "count") for _ in range(4)]
        for child in children:
            assert child.communicate(timeout=60)[1] == ""
        assert (tmp_path / "count").read_text() == "800"

    def test_it_is_gone_with_its_holder(self, home: Home, tmp_path: Path) -> None:
        with start_python(HOLD, "byte", tmp_path / "lock", stdin=-1) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "held\n"
            assert files.is_locked(tmp_path / "lock", 3)
            assert ByteLock.try_acquire(tmp_path / "lock", 3) is None
            child.kill()
            child.wait()
            lock = ByteLock.try_acquire(tmp_path / "lock", 3)
            assert lock is not None
            lock.release()

    def test_a_forked_child_carries_it_on(self, tmp_path: Path) -> None:
        lock = ByteLock.acquire(tmp_path / "lock")
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
        os.close(reader)
        lock.disown()
        assert files.is_locked(tmp_path / "lock")
        assert ByteLock.try_acquire(tmp_path / "lock") is None
        os.close(writer)
        os.waitpid(child, 0)
        assert not files.is_locked(tmp_path / "lock")

    def test_release_frees_it_from_under_a_forked_copy(self, tmp_path: Path) -> None:
        lock = ByteLock.acquire(tmp_path / "lock")
        child = os.fork()
        if child == 0:
            signal.pause()
            os._exit(0)
        lock.release()
        assert not files.is_locked(tmp_path / "lock")
        kill(child)
        os.waitpid(child, 0)

    def test_an_executed_child_does_not_have_it(self, home: Home, tmp_path: Path) -> None:
        lock = ByteLock.acquire(tmp_path / "lock")
        with start_python("import sys; sys.stdin.read()", stdin=-1) as child:
            lock.disown()
            assert not files.is_locked(tmp_path / "lock")
            child.kill()

    def test_one_that_waits_gets_it(self, tmp_path: Path) -> None:
        lock = ByteLock.acquire(tmp_path / "lock")
        got = threading.Event()

        def wait() -> None:
            with ByteLock.acquire(tmp_path / "lock"):
                got.set()

        thread = threading.Thread(target=wait)
        thread.start()
        assert not got.is_set()
        lock.release()
        thread.join(10)
        assert got.is_set()

    def test_create_makes_a_file_that_is_locked_from_its_first_moment(self, tmp_path: Path) -> None:
        lock = ByteLock.create(tmp_path / "a", b"content")
        assert (tmp_path / "a").read_bytes() == b"content"
        assert files.is_locked(tmp_path / "a")
        os.rename(tmp_path / "a", tmp_path / "b")
        assert files.is_locked(tmp_path / "b")
        lock.release()
        assert not files.is_locked(tmp_path / "b")
        with pytest.raises(FileExistsError):
            ByteLock.create(tmp_path / "b", b"")

    def test_a_lock_file_that_is_a_link_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(OSError):
            ByteLock.acquire(tmp_path / "lock")
        assert not (tmp_path / "elsewhere").exists()


class TestProcessLock:
    def test_its_holder_can_be_asked_for(self, home: Home, tmp_path: Path) -> None:
        assert files.process_lock_holder(tmp_path / "lock") is None
        with start_python(HOLD, "process", tmp_path / "lock", stdin=-1) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "held\n"
            assert files.process_lock_holder(tmp_path / "lock") == child.pid
            assert ProcessLock.try_acquire(tmp_path / "lock") is None
            child.kill()
            child.wait()
        assert files.process_lock_holder(tmp_path / "lock") is None

    def test_a_forked_child_does_not_have_it(self, home: Home, tmp_path: Path) -> None:
        code = """
            import os, sys
            from localrun.files import ProcessLock, process_lock_holder
            lock = ProcessLock.try_acquire(sys.argv[1])
            child = os.fork()
            if child == 0:
                assert process_lock_holder(sys.argv[1]) == os.getppid()
                os.close(lock.fd)  # a fork that closes what it inherited takes nothing from its parent
                assert process_lock_holder(sys.argv[1]) == os.getppid()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            assert lock.is_at(sys.argv[1])
            child = os.fork()
            if child == 0:
                os.read(0, 1)
                os._exit(0)
            print(child, flush=True)
            os.kill(os.getpid(), 9)
        """
        with start_python(code, tmp_path / "lock", stdin=-1) as child:
            assert child.stdout is not None
            forked = int(child.stdout.readline())
            child.wait()
            assert files.process_lock_holder(tmp_path / "lock") is None
            kill(forked)

    def test_a_file_made_anew_is_another(self, tmp_path: Path) -> None:
        lock = ProcessLock.try_acquire(tmp_path / "lock")
        assert lock is not None
        assert lock.is_at(tmp_path / "lock")
        (tmp_path / "lock").unlink()
        assert not lock.is_at(tmp_path / "lock")
        (tmp_path / "lock").touch()
        assert not lock.is_at(tmp_path / "lock")
        lock.release()


def test_a_thousand_writers_killed_at_any_moment_leave_the_old_or_the_new(home: Home, tmp_path: Path) -> None:
    """Kill a writer that replaces all the time: what is there is always one whole version."""
    path = tmp_path / "a"
    code = """
        import sys
        from localrun import files
        print("up", flush=True)
        while True:
            for letter in b"ABCD":
                files.replace(sys.argv[1], bytes([letter]) * 100_000)
    """
    for _ in range(5):
        with start_python(code, path) as child:
            assert child.stdout is not None
            child.stdout.readline()
            wait_until(path.exists)
            child.kill()
        data = files.read(path)
        assert len(data) == 100_000
        assert len(set(data)) == 1


def test_who_holds_a_byte_is_no_process(home: Home, tmp_path: Path) -> None:
    done = run_python(
        """
        import sys
        from localrun import files
        lock = files.ByteLock.acquire(sys.argv[1], 1)
        assert files.is_locked(sys.argv[1], 1)
        assert not files.is_locked(sys.argv[1], 0)
        assert files.process_lock_holder(sys.argv[1]) is None
        lock.release()
        """,
        tmp_path / "lock",
    )
    assert done.stderr == ""
