"""The index of a runs folder: finds its newest runs, or those of a status, without reading every record.

It says which runs to look at, in which order; what they are, their records say. It is derived from the folders and made
by whoever lists runs, in a small database beside the runs. Before each use it takes in what has changed since:

- what the journal (`model.journal`) names: a record that changed, a run that came or went by localrun's own hand;
- if the folder was changed by another hand (``cp -r``, ``rm -rf``, a localrun killed on the way), every entry whose
  record is another file than it was. So too after a reboot, which may have lost the journal's end, and now and then;
- the unsettled, again each time: entries that are no run yet (a copy under way), records that can't be read or are
  being changed, other users' runs and links to elsewhere, whose changes no journal tells.

An index that is missing, damaged, or another folder's is made anew.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import NamedTuple

from localrun import files
from localrun.api.run import readable
from localrun.engine.processes import boot_id
from localrun.model import journal
from localrun.model.folder import RECORD_BYTE, RunFolder
from localrun.model.status import RunStatus


class Place(NamedTuple):
    """A run's place among others, the newest last: its time, and for those of one time its folder's own name."""

    created: str
    entry: bytes


_BUSY_S = 5.0  # how long another's update is waited for
_RECHECK_S = 600.0  # so often every entry is looked at even though nothing says that it changed
_JOURNAL_SIZE = 1 << 20  # a longer journal is started anew
_BATCH = 128
_FIRST = Place("\U0010ffff", b"")
_VERSION = 0x6C720001  # of the tables below, and nobody else's

_TABLES = """
    CREATE TABLE runs (entry BLOB PRIMARY KEY, created TEXT, status TEXT, name BLOB, settled INT, file TEXT)
        WITHOUT ROWID;
    CREATE INDEX by_time ON runs (created, entry);
    CREATE INDEX by_status ON runs (status, created, entry);
    CREATE INDEX unsettled ON runs (entry) WHERE NOT settled;
    CREATE TABLE origin (journal TEXT, boot TEXT, read INT, checked REAL);
"""


class _Origin(NamedTuple):
    """What the index was made from: which journal, how far that was read, in which boot, and when all was looked at."""

    journal: str = ""
    boot: str = ""
    read: int = 0
    checked: float = 0.0


class _Row(NamedTuple):
    """An entry of the runs folder; without a status it shows no run. ``file`` tells one record file from the next."""

    entry: bytes
    created: str | None
    status: str | None
    name: bytes | None
    settled: bool
    file: str


class UnusableError(Exception):
    """There can be no index here: a folder that is not ours, or can't be written, or is no place for a database."""


class Index:
    """The index of the runs in one folder; made on first use. Every method raises `UnusableError` where none can be."""

    def __init__(self, runs: str) -> None:
        self._runs = runs
        self._file = f"{runs}/{journal.FOLDER}/runs.sqlite"

    def exists(self) -> bool:
        """True if somebody has made one."""
        return os.path.exists(self._file)

    def update(self, *, recheck: bool = False) -> None:
        """Take in what has changed; with ``recheck`` look at every entry, whatever the journal says."""
        with self._usable():
            self._own_folder()
            self._update(recheck)

    def newest(
        self,
        statuses: Collection[str] | None = None,
        *,
        after: str | None = None,
        beyond: Place | None = None,
        named: Callable[[str], bool] | None = None,
    ) -> Iterator[str]:
        """The folders of the runs that are to be looked at, newest first: a superset as of the last `update`.

        Of these ``statuses``, or any; created at ``after`` or later; that come after the place ``beyond``; whose record
        has a name that is ``named``.
        """
        wanted = [None] if statuses is None else sorted(statuses)
        each = [self._ordered(status, after or "", beyond or _FIRST) for status in wanted]
        for row in heapq.merge(*each, key=lambda row: (row[0], row[1]), reverse=True):
            if named is None or named(row[2].decode("utf-8", "surrogatepass")):
                yield f"{self._runs}/{os.fsdecode(row[1])}"

    def _ordered(self, status: str | None, after: str, beyond: Place) -> Iterator[tuple[str, bytes, bytes]]:
        """The rows of one status or of all, in batches: no lock is held while somebody reads their records."""
        query = f"""
            SELECT created, entry, name FROM runs
            WHERE {"" if status is None else "status = ? AND"} created >= ? AND (created, entry) < (?, ?)
            ORDER BY created DESC, entry DESC LIMIT {_BATCH}
        """  # noqa: S608 - the parts are ours
        given = (after,) if status is None else (status, after)
        while True:
            with self._usable(), self._connection() as database:
                rows = database.execute(query, (*given, *beyond)).fetchall()
            yield from rows
            if len(rows) < _BATCH:
                return
            beyond = Place(*rows[-1][:2])

    # -- keeping it up to date --------------------------------------------------------------------------------------

    def _own_folder(self) -> None:
        """Have the index's folder, and refuse one that another user made: a database is code to whoever reads it."""
        folder = f"{self._runs}/{journal.FOLDER}"
        if not os.path.isdir(folder):
            os.makedirs(folder, mode=0o700, exist_ok=True)
        if os.stat(folder).st_uid != os.geteuid():
            raise PermissionError(f"{folder} is another user's")

    @contextlib.contextmanager
    def _usable(self) -> Iterator[None]:
        """Say it in one way if the index can't be used; a damaged one is removed, for the next use to make it anew."""
        try:
            yield
        except (OSError, sqlite3.OperationalError) as error:  # not ours, busy, a full disk
            raise UnusableError(f"{self._file}: {error}") from error
        except sqlite3.DatabaseError as error:
            for file in (self._file, f"{self._file}-journal"):
                files.remove(file)
            raise UnusableError(f"{self._file} was damaged: {error}") from error

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(self._file, timeout=_BUSY_S, isolation_level=None)) as database:
            yield database

    def _update(self, recheck: bool) -> None:
        with self._connection() as database:
            origin, state = _origin(database), journal.state(self._runs)
            is_read = origin is not None and state is not None and origin.read == state.size
            if is_read and not recheck and not _must_recheck(origin, state) and not _unsettled(database):
                return
            database.execute("BEGIN IMMEDIATE")  # one at a time: the next one finds it done
            with database:
                self._take_in(database, recheck)

    def _take_in(self, database: sqlite3.Connection, recheck: bool) -> None:
        origin, state = _origin(database), journal.state(self._runs)
        if origin is None or state is None or state.name != origin.journal or state.size < origin.read:
            _empty(database)
            journal.begin(self._runs)
            origin, state = _Origin(), journal.state(self._runs)
        if state is not None and (recheck or _must_recheck(origin, state)):
            # Stamped before it is read: what comes while it is read is then told by the journal, or by the stamp.
            state = journal.stamp(self._runs)
            self._look_at_all(database)
            origin = origin._replace(checked=time.time())
        if state is None:
            raise OSError("its journal went away")
        noted = journal.names(self._runs, max(origin.read, journal.START), state.size)
        self._look_at(database, {os.fsencode(name) for name in noted}.union(_unsettled(database)))
        if state.size > _JOURNAL_SIZE:
            state = journal.renew(self._runs, state)
        made = _Origin(state.name, boot_id(), state.size, origin.checked)
        database.execute("DELETE FROM origin")
        database.execute("INSERT INTO origin VALUES (?, ?, ?, ?)", made)

    def _look_at_all(self, database: sqlite3.Connection) -> None:
        """Bring every row up to date whose entry has another record file than it had, or is gone."""
        known = dict(database.execute("SELECT entry, file FROM runs"))
        there = set()
        changed = set()
        with os.scandir(self._runs) as entries:
            for each in entries:
                if each.name.startswith(".") or not each.is_dir():
                    continue
                entry = os.fsencode(each.name)
                there.add(entry)
                if known.get(entry) != _record_file(RunFolder(each.path)):
                    changed.add(entry)
        self._look_at(database, changed | (known.keys() - there))

    def _look_at(self, database: sqlite3.Connection, entries: Iterable[bytes]) -> None:
        """Make or remove the rows of these entries, as they are now."""
        for entry in entries:
            row = _look(self._runs, entry)
            if row is None:
                database.execute("DELETE FROM runs WHERE entry = ?", (entry,))
            else:
                database.execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?)", row)


def _look(runs: str, entry: bytes) -> _Row | None:
    """The row of an entry as it is now; None if it is gone."""
    folder = RunFolder(f"{runs}/{os.fsdecode(entry)}")
    if entry.startswith(b".") or not os.path.isdir(folder.path):
        return None
    # In this order: a change that begins after the lock was seen free is noted after what was read of the journal.
    can_settle = not os.path.islink(folder.path) and not _is_changing(folder)
    file = _record_file(folder)
    run = readable(folder.path)
    if run is None:
        return _Row(entry, None, None, None, False, file)
    created, name = str(run._record["created_at"]), str(run.name).encode("utf-8", "surrogatepass")
    can_settle = can_settle and run.status is not RunStatus.UNKNOWN and _is_ours(folder)
    return _Row(entry, created, run.status.value, name, can_settle, file)


def _record_file(folder: RunFolder) -> str:
    """What tells a run's record from any other that is put in its place; empty if there is none."""
    try:
        there = os.stat(folder.record)
    except OSError:
        return ""
    return f"{there.st_ino} {there.st_ctime_ns} {there.st_size}"


def _is_changing(folder: RunFolder) -> bool:
    try:
        return files.is_locked(folder.lock, RECORD_BYTE)
    except OSError:
        return True  # it can't be told


def _is_ours(folder: RunFolder) -> bool:
    """True if whoever changes the run could note it in our journal."""
    try:
        return os.stat(folder.record).st_uid == os.geteuid()
    except OSError:
        return False


def _origin(database: sqlite3.Connection) -> _Origin | None:
    """What the index was made from; None if it isn't made, or by another version."""
    if database.execute("PRAGMA user_version").fetchone() != (_VERSION,):
        return None
    row = database.execute("SELECT * FROM origin").fetchone()
    return None if row is None else _Origin(*row)


def _must_recheck(origin: _Origin | None, state: journal.State | None) -> bool:
    """True if something may have changed that the journal doesn't tell."""
    if origin is None or state is None:
        return True
    is_old = not 0 <= time.time() - origin.checked < _RECHECK_S
    return not state.is_clean or state.name != origin.journal or origin.boot != boot_id() or is_old


def _unsettled(database: sqlite3.Connection) -> list[bytes]:
    return [entry for (entry,) in database.execute("SELECT entry FROM runs WHERE NOT settled")]


def _empty(database: sqlite3.Connection) -> None:
    """Make the tables, in place of those there are. DatabaseError if those are not ours."""
    is_ours = database.execute("PRAGMA user_version").fetchone() == (_VERSION,)
    if not is_ours and database.execute("SELECT 1 FROM sqlite_master").fetchone():
        raise sqlite3.DatabaseError("it is no index, or another version's")
    for table in ("runs", "origin"):
        database.execute(f"DROP TABLE IF EXISTS {table}")
    for statement in filter(str.strip, _TABLES.split(";")):
        database.execute(statement)
    database.execute(f"PRAGMA user_version = {_VERSION}")
