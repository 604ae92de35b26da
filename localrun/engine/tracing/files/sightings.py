"""What becomes of the files that a program was seen to open: which it read, which it made, and what they are.

They are looked at some time after they were opened. Of a file that was read, and that the program has changed since,
or anybody when the program was done, it isn't known what it was; how a file was made only the end says. A file that the
program had made before it read it is none that it was given.
"""

from __future__ import annotations

import os
import stat

from localrun.engine.tracing.files.opened import MOVED, REMOVED, WENT
from localrun.model import artifacts, digests, times
from localrun.model.artifacts import DOWNSTREAM, UPSTREAM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeAlias

    from localrun.engine.tracing.files.opened import Event
    from localrun.engine.tracing.files.scope import Scope

    Note: TypeAlias = "Callable[[list[tuple[str, dict[str, Any]]]], None]"
    # A file as it was when it was looked at, and what there is to be noted of it. (A named tuple's import would take a
    # fifth of the time in which who looks at the files comes up.)
    Seen: TypeAlias = "tuple[os.stat_result, dict[str, Any]]"

_NO_FILE = os.O_DIRECTORY | os.O_PATH
_MADE_NEW = os.O_TRUNC | os.O_EXCL
_TICK_NS = 20_000_000  # of a file's time of modification, and more


class Sightings:
    """The files that a program opens, as far as they are in scope; ``note`` puts artifacts into the run's journal.

    ``cwd`` is where the program was before the first event, ``since`` when that was, in nanoseconds.
    """

    def __init__(self, note: Note, scope: Scope, cwd: str, since: int) -> None:
        self._note = note
        self._scope = scope
        self._cwd = cwd
        self._began = since
        self._since = since - _TICK_NS
        self._read: dict[str, Seen | None] = {}  # by path; None: not there, or not to be noted
        self._made: dict[str, Seen | None] = {}  # None: not looked at yet
        self._made_in: set[str] = set()  # these folders: few, where renaming a file is not to go through all made
        self._unsure: list[str] = []  # of those read, those changed meanwhile, by the program or by another
        self._new: list[str] = []  # of those made, the last ones: the program may be at them still
        self._removed: set[str] = set()
        self._replaced: set[str] = set()
        self._entries: list[tuple[str, dict[str, Any]]] = []
        self._folders: dict[str, tuple[str, bool]] = {}  # by path: the real one, and whether files in it count
        self._now = ""
        self._by = 0  # when what is looked at had happened, in nanoseconds

    def take(self, events: Sequence[Event], by: int) -> None:
        """Look at what the program opened, in this order; also, if they are small, at what it had made before.

        ``by`` is when all of that had happened, in nanoseconds: what was changed later is none that it opened.
        """
        made, self._new, self._now, self._by = self._new, [], times.now(), by
        for what, path, other in events:
            if what.isdecimal():
                self._opened(path, int(what))
            elif what == WENT:
                self._cwd = self._after(path)
            elif what in (REMOVED, MOVED):
                self._gone(what == REMOVED, self._path(path), self._path(other))
        for path in made:
            if path in self._made:  # it may have been moved
                self._made[path] = self._look(path)
        self._write()

    def finish(self) -> None:
        """Note all that has not been noted: what was made, as it is now."""
        self._now = times.now()
        for path in self._unsure:
            seen = self._read[path]
            if seen is not None and not self._was_looked_for_in_vain(path, seen[1]["url"]):
                is_another = self._has_made(path, seen[1]["url"]) or path in self._removed
                self._entries.append((UPSTREAM, _unknown(seen[1]) if is_another else seen[1]))
        for path in self._removed:
            if path in self._read and self._read[path] is None and path not in self._made:
                self._note_gone(path)  # before it was looked at
        for path, seen in self._made.items():
            self._conclude(path, seen)
        self._write()

    # -- events -----------------------------------------------------------------------------------------------------

    def _opened(self, name: str, flags: int) -> None:
        path = self._path(name)
        if path is None or flags & _NO_FILE:
            return
        writes = flags & (os.O_WRONLY | os.O_RDWR)
        if path not in self._made and path not in self._read and not (writes and flags & _MADE_NEW):
            self._read[path] = seen = self._look(path)
            if seen is None or seen[1]["url"] in self._made:
                self._read[path] = None  # by another name it is one that it had made
            elif seen[0].st_mtime_ns < self._since and seen[0].st_ctime_ns < self._began:
                self._entries.append((UPSTREAM, seen[1]))
            elif writes and flags & os.O_CREAT and not self._is_older(seen[1]["url"], self._since, if_unknown=False):
                self._read[path] = None
            else:
                self._unsure.append(path)
                if self._is_later(seen[0]):
                    self._read[path] = seen[0], _unknown(seen[1])
        if writes and path not in self._made:
            self._add_made(path, None)
            self._new.append(path)

    def _has_made(self, path: str, url: str) -> bool:
        return path in self._made or url in self._made

    def _was_looked_for_in_vain(self, path: str, url: str) -> bool:
        """True if the program made the file after it had tried to read it: in place, so it is as old as it says."""
        has_replaced = {path, url} & (self._replaced | self._removed)
        return self._has_made(path, url) and not has_replaced and not self._is_older(url, self._began, if_unknown=True)

    def _is_older(self, path: str, since: int, *, if_unknown: bool) -> bool:
        """True if a file was made before that."""
        from localrun.engine.tracing.files.birth import birth_ns  # rarely needed, and long to import

        birth = birth_ns(path)
        return if_unknown if birth is None else birth < since

    def _gone(self, is_removed: bool, path: str | None, to: str | None) -> None:
        if path is not None and is_removed:
            self._removed.add(path)
        elif path is not None and to is not None:
            self._replaced.add(to)
            self._add_made(to, self._made.pop(path, None))
            if any(f"{each}/".startswith(f"{path}/") for each in self._made_in):  # it is a folder
                for inside in [each for each in self._made if each.startswith(f"{path}/")]:
                    self._add_made(to + inside.removeprefix(path), self._made.pop(inside))

    def _add_made(self, path: str, seen: Seen | None) -> None:
        self._made[path] = seen
        self._made_in.add(path.rpartition("/")[0])

    def _path(self, name: str) -> str | None:
        """The absolute path that a program means by a name; None if it is none."""
        if not name:
            return None
        if name[0] == "/" and "//" not in name and "/." not in name and name[-1] != "/":
            return name  # as nearly all are
        return os.path.normpath(name if name[0] == "/" else f"{self._cwd}/{name}")

    def _after(self, name: str) -> str:
        """The working folder after it was to be changed, which may have failed."""
        path = self._path(name)
        return path if path is not None and os.path.isdir(path) else self._cwd

    # -- files ------------------------------------------------------------------------------------------------------

    def _look(self, path: str, *, large: bool = False) -> Seen | None:
        """A file as it is; None if it is none, or none that counts. A large one's digest may cost much."""
        real, counts, there = self._find(path)
        if there is None or not counts or not stat.S_ISREG(there.st_mode):
            return None
        try:
            there, digest = digests.look(real, large=large)
        except OSError:
            return None  # not there any more, or not to be read
        return there, artifacts.file(real, there.st_size, digest, self._now)

    def _conclude(self, path: str, seen: Seen | None) -> None:
        """Note what was made, as it is at the end."""
        real, _, there = self._find(path)
        if there is None or there.st_ctime_ns < self._since:
            return  # gone, or opened to be changed, and left as it was
        if seen is None or seen[1]["digest"] is None or not digests.is_same(seen[0], there):
            seen = self._look(path, large=True)
        if seen is not None and self._is_later(seen[0]):
            seen = seen[0], _unknown(seen[1])
        if seen is not None:
            self._entries.append((DOWNSTREAM, seen[1] | {"url": real}))

    def _is_later(self, there: os.stat_result) -> bool:
        """True if a file may be no longer what it was when the program had opened it."""
        return there.st_ctime_ns > self._by

    def _note_gone(self, path: str) -> None:
        real, counts, _ = self._find(path)
        if counts and os.path.isdir(os.path.dirname(real)):
            self._entries.append((UPSTREAM, artifacts.file(real, None, None, self._now)))

    def _find(self, path: str) -> tuple[str, bool, os.stat_result | None]:
        """The path with its links resolved, whether it counts, and what is there.

        What is known of folders is not asked for again.
        """
        folder, _, name = path.rpartition("/")
        known = self._folders.get(folder)
        if known is None:
            real = os.path.realpath(folder or "/").rstrip("/")
            known = self._folders[folder] = real, self._counts(f"{folder}/{name}", f"{real}/{name}")
        real, counts = f"{known[0]}/{name}", known[1]
        try:
            there = os.lstat(real)
            if stat.S_ISLNK(there.st_mode):
                real = os.path.realpath(real)
                counts = self._counts(path, real)
                there = os.lstat(real)
        except OSError:
            return real, counts, None
        return real, counts, there

    def _counts(self, path: str, real: str) -> bool:
        """True if a file is in scope under one of its names, and its real one isn't left out."""
        return real in self._scope or (path in self._scope and not self._scope.leaves_out(real))

    def _write(self) -> None:
        entries, self._entries = self._entries, []
        if entries:
            self._note(entries)


def _unknown(artifact: dict[str, Any]) -> dict[str, Any]:
    """The artifact of a file that nobody has looked at before it was changed."""
    return artifact | {"size": None, "digest": None}

