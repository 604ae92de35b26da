"""Leases: at most one run has a GPU, whoever is killed, whoever else uses the machine, whatever lies in the folder."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support import REPOSITORY, is_locked, start_python, wait_until

from localrun.engine.gpus import leasefolder, leases
from localrun.engine.gpus.leases import Lease, acquire_all, holder
from localrun.errors import SystemFailureError

GPU, OTHER, THIRD = "GPU-1111-aaaa", "GPU-2222-bbbb", "GPU-3333-cccc"
NOBODY, SOMEBODY = 65534, 65533

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The lease folder that is set; it isn't there yet."""
    path = tmp_path / "leases"
    monkeypatch.setenv("LOCALRUN_LEASE_DIR", str(path))
    monkeypatch.setenv("LOCALRUN_HOME", str(tmp_path / "home"))
    return path


@pytest.fixture
def choices(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, Path]]:
    """The first and the second choice of this test's own, in folders in which anybody may make something."""
    monkeypatch.delenv("LOCALRUN_LEASE_DIR", raising=False)
    top = Path(tempfile.mkdtemp())
    top.chmod(0o755)
    for name in ("run", "tmp"):
        (top / name).mkdir()
        (top / name).chmod(0o1777)
    monkeypatch.setattr(leasefolder, "FIRST", str(top / "run/localrun"))
    monkeypatch.setattr(leasefolder, "SECOND", str(top / "tmp/localrun-leases"))
    yield top / "run/localrun", top / "tmp/localrun-leases"
    shutil.rmtree(top)


def take(uuid: str = GPU) -> Lease | None:
    return Lease.try_acquire(uuid, run="run", uid="uid")


def taken(uuid: str = GPU) -> Lease:
    lease = take(uuid)
    assert lease is not None
    return lease


def is_free(uuid: str = GPU) -> bool:
    """True if the lease can be had; asked by taking it."""
    lease = take(uuid)
    if lease is not None:
        lease.release()
    return lease is not None


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def in_child(act: Callable[[], Any], uid: int | None = None) -> Any:
    """What this gives in a forked child, which may be another user; the message of a SystemFailureError as text."""
    ours, its = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if uid is not None:
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
            try:
                answer: Any = act()
            except SystemFailureError as error:
                answer = f"refused: {error.message}"
            os.write(its, json.dumps(answer).encode())
        finally:
            os._exit(0)
    os.close(its)
    with open(ours, "rb") as file:
        text = file.read()
    os.waitpid(pid, 0)
    assert text, "the child failed"
    return json.loads(text)


@contextmanager
def other_holder(uuid: str = GPU, uid: int | None = None) -> Iterator[int]:
    """Another process, or user, that has the lease; its pid."""
    ours, its = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if uid is not None:
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
            os.write(its, b"1" if take(uuid) is not None else b"0")
            signal.pause()
        finally:
            os._exit(1)
    os.close(its)
    try:
        assert os.read(ours, 1) == b"1", "it did not get the lease"
        yield pid
    finally:
        os.close(ours)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


# -- one holder -------------------------------------------------------------------------------------------------------


def test_one_holder_at_a_time(folder: Path) -> None:
    lease = taken()
    assert take() is None
    assert in_child(is_free) is False
    assert is_free(OTHER)
    lease.release()
    assert in_child(is_free) is True


def test_the_file_says_who_has_it(folder: Path, tmp_path: Path) -> None:
    before = datetime.now(UTC)
    lease = Lease.try_acquire(GPU, run="lr-01", uid="u1")
    assert lease is not None
    found = holder(GPU)
    assert found is not None and found.since is not None
    assert before <= found.since <= datetime.now(UTC)
    import pwd

    user = pwd.getpwuid(os.geteuid()).pw_name
    assert found == (user, os.getpid(), found.since, "lr-01", "u1", str(tmp_path / "home"))
    said = json.loads((folder / f"{GPU}.lock").read_text())
    assert {"user", "pid", "since"} <= set(said)
    lease.release()
    assert holder(GPU) is None
    assert (folder / f"{GPU}.lock").read_text() == ""


def test_to_ask_makes_nothing_and_keeps_nobody_out(folder: Path) -> None:
    assert holder(GPU) is None
    assert not folder.exists()
    lease = taken()
    for _ in range(3):
        assert holder(GPU) is not None
    lease.release()
    assert is_free()


def test_a_shorter_content_leaves_nothing_of_a_longer_one(folder: Path) -> None:
    lease = Lease.try_acquire(GPU, run="r" * 100, uid="uid")
    assert lease is not None
    lease.disown()  # as if it was killed
    lease = taken()
    found = holder(GPU)
    assert found is not None and found.run == "run"
    lease.release()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 5000, b'{"since": 1, "pid": "x"}', b"x" * 100_000]
)
def test_content_that_says_nothing_is_no_matter(folder: Path, content: bytes) -> None:
    lease = taken()
    (folder / f"{GPU}.lock").write_bytes(content)
    assert holder(GPU) == leases.Holder()
    lease.release()
    (folder / f"{GPU}.lock").write_bytes(content)
    assert holder(GPU) is None
    lease = taken()
    assert json.loads((folder / f"{GPU}.lock").read_bytes())["run"] == "run"
    lease.release()


def test_long_words_are_cut_and_odd_ones_left_out(folder: Path) -> None:
    lease = taken()
    said = {"user": 7, "pid": 3, "since": "2030-01-01T00:00:00", "run": "r" * 9999, "uid": None, "home": {}}
    (folder / f"{GPU}.lock").write_text(json.dumps(said))
    assert holder(GPU) == leases.Holder(pid=3, since=datetime(2030, 1, 1, tzinfo=UTC), run="r" * 256)
    lease.release()


def test_a_full_disk_costs_no_lease(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    lease = taken()
    assert in_child(is_free) is False
    assert holder(GPU) == leases.Holder()
    lease.release()


def test_all_or_none(folder: Path) -> None:
    with other_holder(OTHER):
        assert acquire_all([THIRD, OTHER, GPU], run="run", uid="uid") is None
        assert [uuid for uuid in (GPU, OTHER, THIRD) if is_free(uuid)] == [GPU, THIRD]
    found = acquire_all([THIRD, OTHER, GPU, GPU], run="run", uid="uid")
    assert found is not None
    assert [lease.uuid for lease in found] == [GPU, OTHER, THIRD]
    for lease in found:
        lease.release()
    assert all(is_free(uuid) for uuid in (GPU, OTHER, THIRD))
    assert acquire_all([], run="run", uid="uid") == []


def test_none_are_taken_if_one_is_refused(folder: Path) -> None:
    assert is_free()
    (folder / f"{THIRD}.lock").mkdir()
    with pytest.raises(SystemFailureError, match="no plain file"):
        acquire_all([GPU, OTHER, THIRD], run="run", uid="uid")
    assert is_free(GPU) and is_free(OTHER)


@pytest.mark.parametrize("uuid", ["", ".", "../x", "a b", "GPU-\n", "GPU-é", "GPU\0"])
def test_what_is_no_uuid_is_refused(folder: Path, uuid: str) -> None:
    with pytest.raises(SystemFailureError, match="no uuid"):
        take(uuid)
    with pytest.raises(SystemFailureError, match="no uuid"):
        holder(uuid)


def test_an_old_instances_uuid_stays_in_the_folder(folder: Path) -> None:
    lease = taken("MIG-GPU-1111/1/0")
    assert os.listdir(folder) == ["MIG-GPU-1111_1_0.lock"]
    lease.release()


# -- who is killed ----------------------------------------------------------------------------------------------------

SUPERVISE = f"""
    import os, sys, time
    sys.path.insert(0, {str(REPOSITORY)!r})
    from localrun.engine.gpus.leases import acquire_all
    found = acquire_all(sys.argv[1:], run="run", uid="uid")
    kept = [(os.POSIX_SPAWN_DUP2, lease.fd, lease.fd) for lease in found]
    rank = os.posix_spawn("/bin/sleep", ["sleep", "600"], os.environ, file_actions=kept)
    other = os.posix_spawn("/bin/sleep", ["sleep", "600"], os.environ)
    print(rank, other, flush=True)
    time.sleep(600)
"""


def test_the_lease_lives_as_long_as_a_process_of_the_run(folder: Path) -> None:
    supervisor = start_python(SUPERVISE, GPU, OTHER)
    assert supervisor.stdout is not None and supervisor.stderr is not None
    rank, other = map(int, supervisor.stdout.readline().split())
    supervisor.stdout.close()
    supervisor.stderr.close()
    try:
        assert take() is None
        supervisor.kill()
        supervisor.wait()
        for _ in range(20):
            assert take(GPU) is None and take(OTHER) is None
        found = holder(GPU)
        assert found is not None and found.pid == supervisor.pid
        os.kill(rank, signal.SIGKILL)
        wait_until(lambda: holder(GPU) is None and holder(OTHER) is None, what="the other process has no copy")
        assert is_free(GPU) and is_free(OTHER)
    finally:
        for pid in (rank, other):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def test_a_killed_holder_holds_nothing(folder: Path) -> None:
    for _ in range(10):
        with other_holder() as pid:
            assert take() is None
            os.kill(pid, signal.SIGKILL)
            wait_until(is_free)


def test_release_counts_although_a_process_is_left(folder: Path) -> None:
    lease = taken()
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    lease.release()
    try:
        assert is_free()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_file_that_is_removed_on_release_is_locked_by_nobody_else(folder: Path) -> None:
    """Whoever opened it before finds another one in its place, and takes that."""
    first = taken()
    opened = leasefolder.open_to_lock(str(folder), GPU)
    first.release(remove=True)
    assert list(folder.iterdir()) == []
    second = taken()
    assert not leasefolder.is_at(str(folder), GPU, opened)
    assert take() is None
    os.close(opened)
    assert holder(GPU) is not None
    second.release()
    assert is_free()


def test_who_want_what_is_removed_on_release(folder: Path) -> None:
    """Two processes take turns; that a file is gone at any moment is no error, and they never have it both."""
    code = """
        import sys, time
        from localrun.engine.gpus.leases import Lease
        turns, deadline = 0, time.monotonic() + 20
        while turns < 300 and time.monotonic() < deadline:
            lease = Lease.try_acquire("port-1", run="run", uid="uid")
            if lease is not None:
                open(sys.argv[1], "x").close()
                import os; os.unlink(sys.argv[1])
                lease.release(remove=True)
                turns += 1
        print(turns)
    """
    children = [start_python(code, folder.parent / "alone") for _ in range(3)]
    for child in children:
        out, err = child.communicate(timeout=60)
        assert (child.returncode, err) == (0, "")
        assert int(out) > 0
    assert list(folder.iterdir()) == []


def test_disown_leaves_it_to_the_child(folder: Path) -> None:
    lease = taken()
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    lease.disown()
    try:
        assert not is_free()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert is_free()


RACE = f"""
    import os, random, sys, time
    sys.path.insert(0, {str(REPOSITORY)!r})
    from localrun.engine.gpus.leases import acquire_all
    folder, uuids = sys.argv[1], sys.argv[2:]
    got = 0
    end = time.monotonic() + 2
    while time.monotonic() < end:
        mine = random.sample(uuids, random.choice((1, 2, 4)))
        found = acquire_all(mine, run="run", uid="uid")
        if found is None:
            continue
        got += 1
        for lease in found:
            os.close(os.open(f"{{folder}}/{{lease.uuid}}", os.O_CREAT | os.O_EXCL))  # fails if somebody else has it
        time.sleep(random.random() / 1000)
        for lease in found:
            os.unlink(f"{{folder}}/{{lease.uuid}}")
        for lease in found:
            lease.release()
    print(got)
"""


def test_many_who_want_many(folder: Path, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    uuids = [f"GPU-{number}" for number in range(8)]
    children = [start_python(RACE, marks, *uuids) for _ in range(4)]
    for child in children:
        out, err = child.communicate(timeout=60)
        assert child.returncode == 0, err
        assert int(out) > 10
    assert os.listdir(marks) == []
    assert all(is_free(uuid) for uuid in uuids)


# -- what somebody else has put there ---------------------------------------------------------------------------------


def link(path: Path) -> None:
    (path.parent / "victim").write_text("precious")
    path.symlink_to("victim")


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def hard_link(path: Path) -> None:
    (path.parent / "victim").write_text("precious")
    os.link(path.parent / "victim", path)


@pytest.mark.parametrize("put", [link, dangling, hard_link, Path.mkdir, os.mkfifo])
def test_what_is_not_a_lock_file_is_refused(folder: Path, put: Callable[[Path], None]) -> None:
    assert is_free(OTHER)
    put(folder / f"{GPU}.lock")
    start = time.monotonic()
    with pytest.raises(SystemFailureError, match=f"GPU {GPU} can't be leased: {folder}/{GPU}.lock: it "):
        take()
    with pytest.raises(SystemFailureError, match=f"GPU {GPU} can't be leased"):
        holder(GPU)
    assert time.monotonic() - start < 1
    assert is_free(OTHER), "the other GPUs are no matter"
    assert not (folder / "nowhere").exists()
    if (folder / "victim").exists():
        assert (folder / "victim").read_text() == "precious"
        assert mode(folder / "victim") & 0o022 == 0


def test_a_lock_file_that_is_removed_is_made_anew(folder: Path) -> None:
    assert is_free()
    (folder / f"{GPU}.lock").unlink()
    assert is_free()


def test_a_file_that_is_replaced_while_it_is_locked_does_not_count(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_free()
    lock, times = leases._lock, []

    def replaced(fd: int) -> bool:
        got = lock(fd)
        if not times:
            times.append(1)
            (folder / f"{GPU}.lock").unlink()
        return got

    monkeypatch.setattr(leases, "_lock", replaced)
    lease = taken()
    assert is_locked(folder / f"{GPU}.lock", 0)
    lease.release()


# -- the folder -------------------------------------------------------------------------------------------------------


def test_what_is_made_is_for_all_whatever_the_umask(folder: Path) -> None:
    before = os.umask(0o077)
    try:
        assert is_free()
    finally:
        os.umask(before)
    assert mode(folder) == 0o1777
    assert mode(folder / f"{GPU}.lock") == 0o1666


def test_what_was_half_made_is_mended(choices: tuple[Path, Path]) -> None:
    first, second = choices
    first.mkdir(0o700)
    (first / f"{GPU}.lock").touch(0o600)
    assert is_free()
    assert mode(first) == 0o1777
    assert mode(first / f"{GPU}.lock") == 0o1666
    assert not second.exists()


def test_the_first_choice(choices: tuple[Path, Path]) -> None:
    first, second = choices
    assert leasefolder.folder() == (str(first), None)
    lease = taken()
    assert os.listdir(first) == [f"{GPU}.lock"]
    assert not second.exists()
    lease.release()


@pytest.mark.parametrize("obstacle", ["missing", "file", "link"])
def test_the_second_choice_with_a_message(choices: tuple[Path, Path], obstacle: str) -> None:
    first, second = choices
    if obstacle == "missing":
        first.parent.rmdir()
    elif obstacle == "file":
        first.touch()
    else:
        (first.parent / "elsewhere").mkdir()
        first.symlink_to("elsewhere")
    found = leasefolder.folder()
    assert found.path == str(second)
    assert found.notice is not None and f"GPU leases are in {second}: {first}: " in found.notice
    lease = taken()
    assert holder(GPU) is not None
    assert mode(second) == 0o1777
    lease.release()
    if obstacle == "missing":
        first.parent.mkdir()


def test_neither_choice(choices: tuple[Path, Path]) -> None:
    for path in choices:
        path.touch()
    with pytest.raises(SystemFailureError, match="Set LOCALRUN_LEASE_DIR for all users"):
        take()
    assert holder(GPU) is None


def test_a_lease_in_the_second_choice_counts_once_there_is_the_first(choices: tuple[Path, Path]) -> None:
    first, _ = choices
    first.touch()
    lease = taken()
    first.unlink()
    assert take() is None, "somebody has it where the others looked before"
    found = holder(GPU)
    assert found is not None and found.run == "run"
    lease.release()
    again = taken()
    assert is_locked(first / f"{GPU}.lock", 0)
    again.release()


@needs_root
def test_a_lease_in_the_first_choice_counts_for_those_who_may_not_use_that_any_more(choices: tuple[Path, Path]) -> None:
    first, second = choices
    lease = taken()
    first.chmod(0o755)
    assert in_child(lambda: leasefolder.folder().path, NOBODY) == str(second)
    assert in_child(is_free, NOBODY) is False
    lease.release()
    first.chmod(0o755)
    assert in_child(is_free, NOBODY) is True


def test_the_choice_that_changes_meanwhile_is_made_again(
    choices: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = choices
    first.touch()
    lock = leases._lock

    def appears(fd: int) -> bool:
        if first.is_file():
            first.unlink()
        return lock(fd)

    monkeypatch.setattr(leases, "_lock", appears)
    lease = taken()
    assert is_locked(first / f"{GPU}.lock", 0)
    lease.release()


def test_a_folder_that_is_set_is_the_only_one(folder: Path) -> None:
    folder.touch()
    with pytest.raises(SystemFailureError, match=r"GPUs and ports can't be leased: .*Not a directory"):
        take()
    folder.unlink()
    folder.symlink_to(tempfile.gettempdir())
    with pytest.raises(SystemFailureError, match="LOCALRUN_LEASE_DIR"):
        take()


def test_a_folder_that_anybody_could_clear_is_refused(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(SystemFailureError, match="without the sticky bit: chmod 1777"):
        take()
    folder.chmod(0o755)
    assert is_free()
    assert mode(folder) == 0o755, "somebody's own choice"


# -- two users --------------------------------------------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize("users", [(NOBODY, SOMEBODY), (NOBODY, 0), (0, NOBODY)])
def test_two_users_exclude_each_other(choices: tuple[Path, Path], users: tuple[int, int]) -> None:
    one, other = users
    for _ in range(3):
        with other_holder(uid=one):
            assert in_child(is_free, other) is False
            assert in_child(lambda: holder(GPU) is not None, other)
            assert in_child(lambda: is_free(OTHER), other) is True
        assert in_child(is_free, other) is True
        one, other = other, one


@needs_root
def test_two_users_where_the_kernel_protects_files_in_sticky_folders(choices: tuple[Path, Path]) -> None:
    setting = Path("/proc/sys/fs/protected_regular")
    before = setting.read_text()
    try:
        setting.write_text("2")
    except OSError:
        pytest.skip("that can't be set here")
    try:
        assert in_child(is_free, NOBODY) is True
        assert in_child(is_free, SOMEBODY) is True
        assert is_free()
    finally:
        setting.write_text(before)


@needs_root
def test_a_file_that_is_not_for_all_is_refused_to_others(choices: tuple[Path, Path]) -> None:
    first, _ = choices
    assert is_free(OTHER)
    path = first / f"{GPU}.lock"
    path.write_text("{}")
    path.chmod(0o600)
    assert "Permission denied" in in_child(is_free, NOBODY)
    assert in_child(lambda: is_free(OTHER), NOBODY) is True


@needs_root
@needs_root
def test_a_file_that_can_be_read_and_not_written_is_no_free_gpus(choices: tuple[Path, Path]) -> None:
    """Planted by another user, or left by one who was killed before he had opened it to all."""
    first, _ = choices
    in_child(lambda: is_free(OTHER), NOBODY)
    first.joinpath(f"{GPU}.lock").touch(mode=0o644)
    assert "must make it writable for all" in in_child(lambda: leases.check(GPU), NOBODY)
    assert in_child(lambda: leases.check(OTHER), NOBODY) is None
    assert in_child(lambda: leases.check(THIRD), NOBODY) is None
    assert not first.joinpath(f"{THIRD}.lock").exists()
    leases.check(GPU)  # root can


@needs_root
def test_one_users_private_folder_sends_all_others_to_the_same_one(choices: tuple[Path, Path]) -> None:
    first, second = choices
    first.mkdir(0o700)
    os.chown(first, NOBODY, NOBODY)

    def chosen() -> str:
        return leasefolder.folder().path

    assert in_child(chosen, SOMEBODY) == str(second)
    assert "Permission denied" in in_child(lambda: str(leasefolder.folder().notice), SOMEBODY)
    with other_holder(uid=SOMEBODY):
        # Its owner mends it, and sees whoever went elsewhere meanwhile.
        assert in_child(is_free, NOBODY) is False
        assert in_child(chosen, NOBODY) == str(first)
        assert in_child(chosen, SOMEBODY) == str(first)
        assert in_child(is_free, 0) is False
    assert in_child(is_free, NOBODY) is True


@needs_root
def test_a_folder_that_only_root_can_write_is_passed_over(choices: tuple[Path, Path]) -> None:
    first, second = choices
    first.parent.chmod(0o755)
    assert in_child(lambda: leasefolder.folder().path, NOBODY) == str(second)
    with other_holder(uid=NOBODY):
        assert not is_free(), "root makes the first choice, and looks into the second"
        assert first.exists()
    assert is_free()
    with other_holder(uid=SOMEBODY):
        assert is_locked(first / f"{GPU}.lock", 0), "now it is there for all"
        assert not is_free()
