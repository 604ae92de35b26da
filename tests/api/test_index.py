"""The index of a runs folder: always what reading all records would give, whatever is done to the folder or to it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import Home, execute, run_python, submit

import localrun
from localrun.api.listing import find as listing
from localrun.api.listing import index as indexes
from localrun.api.listing.index import Index, Place, UnusableError
from localrun.model import journal, times
from localrun.model import record as records
from localrun.model.folder import RunFolder
from localrun.model.status import RunStatus

START = 1_700_000_000.0


class Runs:
    """A runs folder made by hand, and what the index finds in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True)
        self.index = Index(str(path))

    def put(self, name: str, status: str = "COMPLETED", at: float = 0.0, into: str | None = None) -> None:
        """A run folder, as another hand than localrun's would put it there."""
        folder = self.path / (into or name)
        folder.mkdir()
        (folder / ".lock").touch()
        (folder / "config.json").write_bytes(records.encode(record(name, status, at)))

    def found(self, *statuses: str, **options: Any) -> list[str]:
        """The folders' names, newest first, after an update."""
        self.index.update()
        return [os.path.basename(path) for path in self.index.newest(statuses or None, **options)]

    def truth(self, *statuses: str) -> list[str]:
        """What reading all records gives."""
        read = []
        for name in os.listdir(self.path):
            if name.startswith("."):
                continue
            try:
                found = json.loads((self.path / name / "config.json").read_bytes())
            except (OSError, ValueError):
                continue
            read.append((found["created_at"], name, found["status"]))
        return [name for _, name, status in sorted(read, reverse=True) if status in statuses or not statuses]

    def check(self) -> None:
        """The index finds what there is, of each status and of all."""
        assert self.found() == self.truth()
        for status in ("COMPLETED", "FAILED", "RUNNING", "QUEUED"):
            assert self.found(status) == self.truth(status), status

    def advance(self, name: str, *path: RunStatus) -> None:
        """Change a run by the door."""
        for status in path:
            records.update(RunFolder(self.path / name), lambda record, to=status: records.advance(record, to))


def record(name: str, status: str, at: float) -> dict[str, Any]:
    made = records.new(uid=f"{name}-uid", name=name, run_type="COMMAND", created_at=times.iso(START + at))
    made["lifecycle"][-1]["status"] = made["status"] = status
    if status in ("STARTING", "RUNNING", "TERMINATING"):
        records_of = {"index": 0, "status": None, "started_at": times.iso(START), "ended_at": None}
        made["resumptions"].append(records_of)
    return made


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    runs = Runs(tmp_path / "runs")
    for number, status in enumerate(["COMPLETED", "FAILED", "RUNNING", "COMPLETED", "QUEUED"]):
        runs.put(f"r{number}", status, number)
    runs.check()
    return runs


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The records that are read for the index."""
    read: list[str] = []
    readable = indexes.readable

    def counted(path: str) -> Any:
        read.append(os.path.basename(path))
        return readable(path)

    monkeypatch.setattr(indexes, "readable", counted)
    return read


class TestQuery:
    def test_newest_first_and_ties_by_folder(self, runs: Runs) -> None:
        runs.put("a", at=100)
        runs.put("c", at=100)
        runs.put("b", at=100)
        assert runs.found() == ["c", "b", "a", "r4", "r3", "r2", "r1", "r0"]

    def test_by_status(self, runs: Runs) -> None:
        assert runs.found("COMPLETED") == ["r3", "r0"]
        assert runs.found("FAILED", "COMPLETED", "QUEUED") == ["r4", "r3", "r1", "r0"]
        assert runs.found("STOPPED") == []

    def test_after_and_beyond(self, runs: Runs) -> None:
        assert runs.found(after=times.iso(START + 2)) == ["r4", "r3", "r2"]
        assert runs.found(beyond=Place(times.iso(START + 2), b"r2")) == ["r1", "r0"]
        assert runs.found(beyond=Place(times.iso(START + 2), b"r2a")) == ["r2", "r1", "r0"]
        assert runs.found("FAILED", "COMPLETED", beyond=Place(times.iso(START + 1), b"r1")) == ["r0"]

    def test_by_name_the_records_not_the_folders(self, runs: Runs) -> None:
        runs.put("r9", at=9, into="copy")
        assert runs.found(named=lambda name: name == "r9") == ["copy"]

    def test_more_than_a_batch(self, tmp_path: Path) -> None:
        many = Runs(tmp_path / "many")
        for number in range(2 * indexes._BATCH + 1):
            many.put(f"r{number}", "FAILED" if number % 2 else "COMPLETED", number % 7)
        many.check()

    def test_names_that_are_no_text(self, runs: Runs) -> None:
        for name in ("new\nline", "sp ace", "é", os.fsdecode(b"\xff")):
            runs.put("odd", "FAILED", 50, into=name)
        runs.check()
        shutil.rmtree(runs.path / "new\nline")
        runs.check()

    def test_the_queries_go_by_their_indices(self, runs: Runs) -> None:
        with sqlite3.connect(runs.index._file) as database:
            for where in ("", "status = 'x' AND"):
                plan = database.execute(
                    f"EXPLAIN QUERY PLAN SELECT entry FROM runs WHERE {where} created >= 'a' "
                    "AND (created, entry) < ('b', 'c') ORDER BY created DESC, entry DESC LIMIT 3"
                ).fetchall()
                assert [row for row in plan if "USING" in row[-1] and "INDEX by_" in row[-1]], plan
                assert not [row for row in plan if "TEMP B-TREE" in row[-1]], plan
        database.close()


BY_HAND: dict[str, Callable[[Runs], object]] = {
    "put": lambda runs: runs.put("new", "FAILED", 50),
    "remove": lambda runs: shutil.rmtree(runs.path / "r1"),
    "remove all": lambda runs: [shutil.rmtree(runs.path / f"r{number}") for number in range(5)],
    "copy": lambda runs: shutil.copytree(runs.path / "r1", runs.path / "copy"),
    "rename": lambda runs: os.rename(runs.path / "r1", runs.path / "other"),
    "swap": lambda runs: [
        os.rename(runs.path / one, runs.path / other) for one, other in (("r0", "x"), ("r1", "r0"), ("x", "r1"))
    ],
    "replace": lambda runs: [shutil.rmtree(runs.path / "r0"), runs.put("r0", "FAILED", 60)],
    "a file": lambda runs: (runs.path / "notes.txt").write_text("mine"),
    "a folder of one's own": lambda runs: (runs.path / "mine").mkdir(),
    "a link": lambda runs: os.symlink(runs.path / "r1", runs.path / "link"),
}


class TestOtherHands:
    @pytest.mark.parametrize("change", BY_HAND.values(), ids=BY_HAND)
    def test_a_change_is_seen_at_once(self, runs: Runs, change: Callable[[Runs], object]) -> None:
        change(runs)
        runs.check()
        runs.check()

    def test_a_change_in_the_same_tick_as_the_index(self, runs: Runs) -> None:
        for number in range(50):  # no pause between: file systems' clocks tick in milliseconds
            runs.put(f"new{number}", "FAILED", number)
            assert f"new{number}" in runs.found("FAILED")

    def test_a_copy_that_is_not_yet_complete(self, runs: Runs) -> None:
        (runs.path / "copy").mkdir()
        runs.check()
        text = (runs.path / "r1" / "config.json").read_bytes()
        (runs.path / "copy" / "config.json").write_bytes(text[:100])
        assert "copy" in runs.found("UNKNOWN")
        (runs.path / "copy" / "config.json").write_bytes(text)
        assert "copy" in runs.found("FAILED")
        runs.check()

    def test_what_is_behind_a_link_is_looked_at_each_time(self, runs: Runs, tmp_path: Path) -> None:
        other = Runs(tmp_path / "other")
        other.put("there", "QUEUED", 70)
        os.symlink(other.path / "there", runs.path / "link")
        assert "link" in runs.found("QUEUED")
        other.advance("there", RunStatus.STOPPED)
        assert "link" in runs.found("STOPPED")

    def test_another_users_run_is_looked_at_each_time(self, runs: Runs) -> None:
        """Its changes are noted by whoever may not write our journal."""
        if os.geteuid() != 0:
            pytest.skip("needs root, to give a file away")
        os.chown(runs.path / "r2" / "config.json", 12345, 12345)
        runs.index.update(recheck=True)
        os.remove(runs.path / "r2" / "config.json")
        (runs.path / "r2" / "config.json").write_bytes(records.encode(record("r2", "FAILED", 2)))
        assert "r2" in runs.found("FAILED")

    def test_all_is_looked_at_again_now_and_then(self, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
        """An edit by hand inside a run's folder shows nowhere outside it."""
        (runs.path / "r0" / "config.json").write_bytes(records.encode(record("r0", "FAILED", 0)))
        monkeypatch.setattr(indexes, "_RECHECK_S", 0.0)
        runs.check()


class TestOwnHand:
    def test_every_change_of_status_is_told(self, runs: Runs, looks: list[str]) -> None:
        runs.advance("r4", RunStatus.STARTING)
        assert runs.found("STARTING") == ["r4"]
        runs.advance("r4", RunStatus.RUNNING)
        assert runs.found("RUNNING") == ["r4", "r2"]
        runs.advance("r4", RunStatus.TERMINATING, RunStatus.QUEUED)
        assert runs.found("QUEUED") == ["r4"]
        runs.advance("r4", RunStatus.STARTING, RunStatus.TERMINATING, RunStatus.FAILED)
        assert runs.found("FAILED") == ["r4", "r1"]
        runs.advance("r1", RunStatus.PENDING, RunStatus.QUEUED)
        assert runs.found("QUEUED") == ["r1"]
        runs.check()
        assert set(looks) == {"r4", "r1"}  # and nothing else was read again

    def test_what_stays_is_not_read_again(self, runs: Runs, looks: list[str]) -> None:
        for _ in range(3):
            runs.check()
        runs.put("new", at=9)
        runs.check()
        assert looks == ["new"]

    def test_entries_that_come_and_go_are_told_without_looking_at_all(
        self, runs: Runs, looks: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Index, "_look_at_all", lambda *_: pytest.fail("all were looked at"))
        with journal.Change(str(runs.path / ".new.uid.new")):
            runs.put("new", at=9, into=".new.uid.new")
        runs.check()
        with journal.Change(str(runs.path / "new")):
            os.rename(runs.path / ".new.uid.new", runs.path / "new")
        runs.check()
        with journal.Change(str(runs.path / "new"), str(runs.path / "newer")):
            os.rename(runs.path / "new", runs.path / "newer")
        runs.check()
        with journal.Change(str(runs.path / "newer")):
            shutil.rmtree(runs.path / "newer")
        runs.check()
        assert set(looks) == {"new", "newer"}

    def test_a_change_by_another_hand_before_one_of_ours_is_not_lost(self, runs: Runs) -> None:
        runs.put("theirs", "FAILED", 80)
        with journal.Change(str(runs.path / "ours")):
            runs.put("ours", "FAILED", 81)
        assert runs.found("FAILED") == ["ours", "theirs", "r1"]

    def test_a_change_under_way_is_looked_at_until_it_is_made(self, runs: Runs) -> None:
        """The note comes first: who reads it and the old record must not be satisfied."""
        folder = RunFolder(runs.path / "r4")
        changed = record("r4", "FAILED", 4)
        with records.held(folder):
            journal.note(folder)
            assert runs.found("QUEUED") == ["r4"]
            (runs.path / "r4" / "config.json").write_bytes(records.encode(changed))
        runs.check()

    def test_a_change_that_breaks_off_changes_nothing(self, runs: Runs) -> None:
        def fail(_: object) -> None:
            raise RuntimeError

        with pytest.raises(RuntimeError):
            records.update(RunFolder(runs.path / "r4"), fail)
        with pytest.raises(RuntimeError), journal.Change(str(runs.path / "r4")):
            raise RuntimeError
        runs.check()

    def test_without_an_index_nothing_is_left_anywhere(self, tmp_path: Path) -> None:
        runs = Runs(tmp_path / "alone")
        runs.put("run", "QUEUED")
        runs.advance("run", RunStatus.STARTING)
        with journal.Change(str(runs.path / "run")):
            pass
        assert os.listdir(runs.path) == ["run"]


DAMAGE: dict[str, Callable[[Runs, Path], object]] = {
    "all of it removed": lambda runs, _: shutil.rmtree(runs.path / ".index"),
    "no database": lambda runs, _: os.remove(runs.path / ".index/runs.sqlite"),
    "no journal": lambda runs, _: os.remove(runs.path / ".index/journal"),
    "an empty database": lambda runs, _: os.truncate(runs.path / ".index/runs.sqlite", 0),
    "half a database": lambda runs, _: os.truncate(
        runs.path / ".index/runs.sqlite", os.path.getsize(runs.path / ".index/runs.sqlite") // 2
    ),
    "no database at all": lambda runs, _: (runs.path / ".index/runs.sqlite").write_bytes(b"nonsense" * 1000),
    "pages of noise": lambda runs, _: noise(runs.path / ".index/runs.sqlite", 4096),
    "an empty journal": lambda runs, _: os.truncate(runs.path / ".index/journal", 0),
    "a journal cut short": lambda runs, _: os.truncate(runs.path / ".index/journal", journal.START + 1),
    "a journal of noise": lambda runs, _: (runs.path / ".index/journal").write_bytes(os.urandom(500)),
    "another's database": lambda runs, other: shutil.copy(other / ".index/runs.sqlite", runs.path / ".index"),
    "another's journal": lambda runs, other: shutil.copy(other / ".index/journal", runs.path / ".index"),
    "another's both": lambda runs, other: shutil.copytree(other / ".index", runs.path / ".index", dirs_exist_ok=True),
    "another database": lambda runs, _: another_database(runs.path / ".index/runs.sqlite"),
}


def noise(path: Path, start: int) -> None:
    with open(path, "r+b") as file:
        file.seek(start)
        file.write(os.urandom(path.stat().st_size - start))


def another_database(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE runs (something TEXT)")
        database.execute("CREATE VIEW origin AS SELECT 1")
    database.close()


class TestDamage:
    @pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
    @pytest.mark.parametrize("and_a_change", [False, True])
    def test_it_is_made_anew(
        self, runs: Runs, tmp_path: Path, damage: Callable[[Runs, Path], object], and_a_change: bool
    ) -> None:
        other = Runs(tmp_path / "other")
        for number in range(9):
            other.put(f"r{number}", "QUEUED", number)
        other.check()
        runs.advance("r4", RunStatus.STARTING)
        damage(runs, other.path)
        if and_a_change:
            runs.advance("r4", RunStatus.RUNNING)
            runs.put("new", at=9)
        try:
            runs.check()
        except UnusableError:  # that is how it is noticed; whoever asked reads the records instead
            pass
        runs.check()
        runs.advance("r1", RunStatus.PENDING)
        runs.check()

    def test_a_copy_of_the_whole_folder_has_an_index_of_its_own(self, runs: Runs, tmp_path: Path) -> None:
        shutil.copytree(runs.path, tmp_path / "copy", copy_function=shutil.copy2)  # times too, as cp -a
        copy = Runs.__new__(Runs)
        copy.path, copy.index = tmp_path / "copy", Index(str(tmp_path / "copy"))
        runs.advance("r4", RunStatus.STARTING)
        copy.check()
        copy.put("new", at=9)
        copy.check()
        runs.check()

    def test_another_boot(self, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
        """A power cut takes the journal's end with it; the record was synced."""
        size = os.path.getsize(runs.path / ".index/journal")
        runs.advance("r4", RunStatus.STARTING)
        os.truncate(runs.path / ".index/journal", size)
        monkeypatch.setattr(indexes, "boot_id", lambda: "another")
        runs.check()

    def test_a_long_journal_is_started_anew(
        self, runs: Runs, monkeypatch: pytest.MonkeyPatch, looks: list[str]
    ) -> None:
        monkeypatch.setattr(indexes, "_JOURNAL_SIZE", journal.START + 20)
        for number in range(30):
            runs.advance("r4", RunStatus.STARTING, RunStatus.TERMINATING, RunStatus.QUEUED)
            assert runs.found("QUEUED") == ["r4"], number
            assert os.path.getsize(runs.path / ".index/journal") <= journal.START + 20
        runs.check()
        assert set(looks) == {"r4"}  # the stamp is carried on

    def test_a_folder_that_is_not_ours(self, runs: Runs) -> None:
        if os.geteuid() != 0:
            pytest.skip("needs root, to give a folder away")
        os.chown(runs.path / ".index", 12345, 12345)
        with pytest.raises(UnusableError, match="another user"):
            runs.index.update()

    def test_busy(self, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(indexes, "_BUSY_S", 0.05)
        holder = sqlite3.connect(runs.index._file, isolation_level=None)
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UnusableError, match="locked"):
            runs.found()
        holder.execute("ROLLBACK")
        holder.close()
        runs.check()


KILLED = """
    import os, signal, sys
    from localrun.model import journal, record as records
    from localrun.model.folder import RunFolder
    from localrun.model.status import RunStatus

    runs, step, work = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    count = 0

    def hook(event, args):
        global count
        if event in ("os.rename", "os.utime", "fcntl.fcntl", "open", "os.mkdir", "os.remove"):
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)

    def counted(call):
        def counting(*args):
            hook("open", args)
            return call(*args)
        return counting

    os.write, os.pwrite, os.lseek = map(counted, (os.write, os.pwrite, os.lseek))
    folder = RunFolder(f"{runs}/r4")
    import localrun.files
    from localrun.api.listing.index import Index
    sys.addaudithook(hook)
    if work == "update":
        records.update(folder, lambda record: records.advance(record, RunStatus.STARTING))
    elif work == "rename":
        with journal.Change(f"{runs}/r4", f"{runs}/r5"):
            os.rename(f"{runs}/r4", f"{runs}/r5")
    elif work == "index":
        Index(runs).update(recheck=True)
    else:
        with journal.Change(f"{runs}/new"):
            os.rename(f"{runs}/.new", f"{runs}/new")
"""


class TestKilled:
    @pytest.mark.parametrize("work", ["update", "rename", "arrive", "index"])
    def test_kill_9_before_each_step(self, tmp_path: Path, work: str) -> None:
        for step in range(1, 60):
            runs = Runs(tmp_path / f"runs{step}")
            runs.put("r4", "QUEUED", 4)
            runs.put("r1", "FAILED", 1)
            runs.put("new", "FAILED", 9, into=".new")
            runs.found()
            if work == "index":
                runs.advance("r1", RunStatus.PENDING)
                runs.put("theirs", "FAILED", 20)
            done = run_python(KILLED, runs.path, step, work, ok=False)
            assert done.returncode in (0, -signal.SIGKILL), done.stderr
            shutil.rmtree(runs.path / ".new", ignore_errors=True)
            runs.check()
            runs.advance("r1", RunStatus.PENDING if work != "index" else RunStatus.QUEUED)
            runs.check()
            if done.returncode == 0:
                break
        assert step > 4
        assert done.returncode == 0


class TestTogether:
    def test_many_change_while_many_list(self, runs: Runs) -> None:
        """Threads, each with files of its own: locks are between descriptors, so they are as good as processes."""
        stop, problems = threading.Event(), []

        def change(number: int) -> None:
            for turn in range(15):
                runs_name = f"w{number}-{turn}"
                with journal.Change(str(runs.path / runs_name)):
                    runs.put(runs_name, "QUEUED", 100 + turn)
                runs.advance(runs_name, RunStatus.STARTING, RunStatus.RUNNING, RunStatus.TERMINATING)
                runs.advance(runs_name, RunStatus.FAILED)

        def read() -> None:
            try:
                while not stop.is_set():
                    seen = runs.found("COMPLETED")
                    assert seen == ["r3", "r0"], seen
            except BaseException as error:
                problems.append(error)

        readers = [threading.Thread(target=read) for _ in range(2)]
        writers = [threading.Thread(target=change, args=(number,)) for number in range(3)]
        for thread in (*readers, *writers):
            thread.start()
        for thread in writers:
            thread.join()
        stop.set()
        for thread in readers:
            thread.join()
        assert not problems
        runs.check()
        assert len(runs.found("FAILED")) == 46


@pytest.fixture
def indexed(home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """A home whose runs have an index, however few they are."""
    monkeypatch.setattr(listing, "_WORTH_AN_INDEX", 0)
    yield home
    assert (home.runs / ".index/runs.sqlite").exists()


def truth(home: Home) -> dict[str, str]:
    return {name: home.record(name)["status"] for name in os.listdir(home.runs) if not name.startswith(".")}


def listed(**filters: Any) -> dict[str, str]:
    return {run.name: run.status.value for run in localrun.get_runs(**filters)}


class TestGetRuns:
    def test_a_runs_life(self, indexed: Home) -> None:
        assert listed() == {}
        execute("good", "true")
        assert listed() == listed(statuses=["COMPLETED"]) == truth(indexed) == {"good": "COMPLETED"}
        execute("bad", "exit 1")
        assert listed(statuses=["FAILED"]) == {"bad": "FAILED"}
        run = submit("long", "sleep 1000")
        assert "long" in listed()
        localrun.wait_for_run_status("long", "RUNNING", timeout=30)
        assert listed(statuses=["RUNNING"]) == {"long": "RUNNING"}
        run.stop()
        assert listed(statuses=["STOPPED"]) == {"long": "STOPPED"}
        localrun.start_run("bad").wait(30)
        assert listed(statuses=["FAILED"]) == {"bad": "FAILED"}
        localrun.get_run("good").save("better")
        assert listed(statuses=["COMPLETED"]) == {"better": "COMPLETED"}
        localrun.delete_run("better")
        assert listed(statuses=["COMPLETED"]) == {}
        assert listed(statuses=["COMPLETED"], include_deleted=True) == {"better": "COMPLETED"}
        assert listed() == truth(indexed)

    def test_submissions_leave_the_folder_clean(self, indexed: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        """What localrun does itself never makes a listing look at every run."""
        execute("first", "true")
        assert listed() == truth(indexed)
        monkeypatch.setattr(Index, "_look_at_all", lambda *_: pytest.fail("all were looked at"))
        for number in range(3):
            execute(f"run-{number}", "true")
            assert listed(statuses=["COMPLETED"]) == truth(indexed)
        localrun.get_run("run-0").save("renamed")
        localrun.delete_run("run-1")
        assert listed(statuses=["COMPLETED"]) == truth(indexed)

    def test_a_damaged_record(self, indexed: Home) -> None:
        run = execute("run", "true")
        assert listed(statuses=["COMPLETED"]) == {"run": "COMPLETED"}
        Path(run.path, "config.json").write_text("{")
        assert listed(statuses=["COMPLETED"]) == {}
        assert listed() == listed(statuses=["UNKNOWN"]) == {"run": "UNKNOWN"}

    def test_an_edit_by_hand_of_what_is_shown(self, indexed: Home) -> None:
        """A hit is what its record says; the index learns it from that."""
        run = execute("run", "exit 1")
        assert listed(statuses=["FAILED"]) == {"run": "FAILED"}
        record = Path(run.path, "config.json")
        record.write_text(record.read_text().replace('"FAILED"', '"STOPPED"'))
        assert listed() == {"run": "STOPPED"}
        assert listed(statuses=["FAILED"]) == {}
        assert listed(statuses=["STOPPED"]) == {"run": "STOPPED"}

    def test_where_there_can_be_no_index(self, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(listing, "_WORTH_AN_INDEX", 0)
        execute("good", "true")
        execute("bad", "exit 1")
        (home.runs / ".index").write_text("in the way")
        assert listed() == truth(home)
        assert listed(statuses=["FAILED"]) == {"bad": "FAILED"}

    def test_an_index_lost_while_it_is_read(self, indexed: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in "abcd":
            execute(name, "true")
        monkeypatch.setattr(indexes, "_BATCH", 2)
        pages = Index._connection
        turns = []

        def lost(index: Index) -> Any:
            turns.append(1)
            if len(turns) == 3:  # the update, a batch, and then
                raise sqlite3.OperationalError("gone")
            return pages(index)

        assert [run.name for run in localrun.get_runs()] == ["d", "c", "b", "a"]
        monkeypatch.setattr(Index, "_connection", lost)
        assert [run.name for run in localrun.get_runs()] == ["d", "c", "b", "a"]
        assert len(turns) == 3

    def test_a_few_runs_have_none(self, home: Home) -> None:
        execute("run", "true")
        assert listed() == {"run": "COMPLETED"}
        assert not (home.runs / ".index").exists()
