"""Watching which files this process opens, by an audit hook, for the runs that record them: ``trace_files``.

An interpreter's hooks can't be taken out: there is one, which does no more than put by what it is told while somebody
watches. What has been put by is looked at when the watch ends; or, if it is much or some time goes by, meanwhile and by
a `witness`, a process that reads and digests on another core and writes into the run's journal itself. If it was much,
a watch's end waits no longer than until the witness is told of everything; who asks for the artifacts, and the end of
the program, wait until it has noted everything.

An event is three items of one long list, and no object of its own: a program's thousands would have the garbage
collector look through all that it has, again and again.
"""

from __future__ import annotations

import atexit
import functools
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from localrun import settings
from localrun.engine.tracing.files import scope, witness
from localrun.engine.tracing.files.reminder import Reminder
from localrun.engine.tracing.files.sightings import MOVED, REMOVED, WENT, Sightings
from localrun.errors import RunConfigError
from localrun.model import artifacts
from localrun.model.folder import RunFolder

if TYPE_CHECKING:
    from localrun.engine.tracing.files.sightings import Item

_ITEMS = 3  # of an event
# From so many items on they are not left to the end. Then they are told of in ever larger parts: waking the witness
# often takes the program's time, waking it seldom loses more with a program that is killed.
_MANY, _MOST = 256 * _ITEMS, 1024 * _ITEMS
_PATIENCE = 0.003  # the part of its time that a watch's end may take to wait for a witness that is about to be done
_MOST_PATIENCE_S = 0.1
_PATIENCE_WITH_FEW_S = 5.0  # it takes milliseconds, unless it is hung

_watches: tuple[Watch, ...] = ()  # replaced, never changed in place: hooks are going through it
_changing = threading.RLock()
_is_installed = False


class Watch:
    """The files that this process opens from `start` to `Watch.stop`."""

    def __init__(self, folder: RunFolder, files: scope.Scope) -> None:
        self.folder = folder
        self.pending: list[Item] = []
        self.many = _MANY
        self._scope = files
        self._cwd = os.getcwd()
        self._since = time.time_ns()
        self._began = time.monotonic()
        self._witness: witness.Witness | None = None
        self._sending = threading.Lock()
        self._sender: int | None = None  # the thread that does
        self._told = 0  # items
        self._is_to_end = False
        self._has_ended = False

    def send(self) -> None:
        """Let the witness look at what has been put by, unless another thread, or this one below, is at that."""
        if not self._sending.acquire(blocking=False):
            return
        self._sender = threading.get_ident()
        try:
            if self._has_ended:
                return  # a hook in another thread was late
            if self._witness is None:
                self._witness = witness.start(self.folder, self._scope, self._cwd, self._since)
            count = len(self.pending)
            if self._witness.tell(self.pending[:count]):
                del self.pending[:count]
                self._told += count
                if count >= self.many:
                    self.many = min(2 * self.many, _MOST)
            else:
                self.many = sys.maxsize
        except OSError:
            self.many = sys.maxsize  # no process, no descriptor: the rest is looked at in the end
        finally:
            self._sender = None
            self._sending.release()
        if self._is_to_end:
            self._end()

    def stop(self) -> None:
        """Stop recording; all of it is or comes into the run's journal. What can't be written is no error, but told."""
        if self not in _watches:
            return  # of the process that this one was forked from
        _change(lambda watches: tuple(each for each in watches if each is not self))
        if not _watches:
            _reminder.end()
        if self._sender == threading.get_ident():  # a block in a generator is closed in the midst of it
            self._is_to_end = True
        else:
            self._end()

    def _end(self) -> None:
        try:
            with self._sending:
                self._finish()
        except OSError as error:
            self.abandon()
            _warn(f"the files that were opened could not be recorded in {self.folder.path}: {error}")

    def _finish(self) -> None:
        self._has_ended = True
        was_there, events = self._witness is not None, self.pending[:]  # a hook in another thread may still add some
        if self._witness is not None and self._witness.tell(events) and self._witness.leave():
            is_much = self._told + len(events) >= _MANY
            patience = min(_PATIENCE * (time.monotonic() - self._began), _MOST_PATIENCE_S)
            self._witness.has_ended(within=patience if is_much else _PATIENCE_WITH_FEW_S)
            _leaving.append((self._witness, self.folder.path))
            return settle(wait=False)
        self.abandon()
        sightings = Sightings(functools.partial(artifacts.append, self.folder), self._scope, self._cwd, self._since)
        sightings.take(events)
        sightings.finish()
        if was_there:
            _warn_of_lost(self.folder.path)
        return None

    def abandon(self) -> None:
        """Have nothing to do with the witness any more: it was lost, or is that of the process we are a fork of."""
        if self._witness is not None:
            self._witness.close()


def start(folder: RunFolder, files: bool | Sequence[str | os.PathLike[str]]) -> Watch:
    """Record the files that this process opens, as artifacts of the run in that folder, until it is stopped.

    Those below the working folder and the home folder, or in a list of folders those; no hidden folders, no
    interpreters, no ``site-packages``, no folders of runs. What Python opens is seen, what C code opens for itself is
    not, nor what other processes do, forked ones included.

    Raises:
        RunConfigError: ``files`` is neither True nor a list of folders.
    """
    runs = [settings.home(), settings.runs_dir(), folder.path, *filter(None, [settings.current_run()])]
    if files is True:
        found = scope.of_user(runs)
    elif isinstance(files, list | tuple) and all(isinstance(each, str | os.PathLike) for each in files):
        found = scope.chosen(files, runs)
    else:
        raise RunConfigError(f"trace_files: must be True or a list of folders, not {files!r}")
    _install()
    watch = Watch(folder, found)
    _change(lambda watches: (*watches, watch))
    _reminder.begin()
    return watch


def _change(change: Callable[[tuple[Watch, ...]], tuple[Watch, ...]]) -> None:
    global _watches
    with _changing:
        while True:
            before = _watches
            after = change(before)
            if _watches is before:  # else a block in a generator was closed in the midst of it
                _watches = after
                return


def _install() -> None:
    global _is_installed
    if not _is_installed:
        _is_installed = True
        sys.addaudithook(_hook)
        os.register_at_fork(after_in_child=_abandon_all)


def _hook(event: str, args: Any) -> None:
    """Put by what is told. It is called for everything that Python is audited for: every instruction counts."""
    if event == "open":
        for watch in _watches:
            pending = watch.pending
            if len(args) == _ITEMS:  # else it is somebody else's event of that name
                pending += args
            if len(pending) >= watch.many:
                watch.send()
                _reminder.begin()  # again, if the program has forked
    elif event in _OTHERS:
        what, count = _OTHERS[event]
        if any(each != _WORKING_FOLDER for each in args[count:]):
            return  # the names are of another folder, which is not told
        items = [what, *map(_as_it_is, args[:count]), "", ""][:_ITEMS]
        for watch in _watches:
            watch.pending.extend(items)


_WORKING_FOLDER = -1  # in place of the descriptor of another
_OTHERS = {"os.rename": (MOVED, 2), "os.remove": (REMOVED, 1), "os.chdir": (WENT, 1)}  # with so many paths


def _remind() -> bool:
    """Let what has been put by be looked at; False if nobody watches any more."""
    for watch in _watches:
        if watch.pending and watch.many < sys.maxsize:
            watch.send()
    return bool(_watches)


_reminder = Reminder(_remind)


def _as_it_is(path: Any) -> Any:
    """A path as it is now; that of a descriptor is asked for, which is another one tomorrow."""
    try:
        return os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else os.fspath(path)
    except (OSError, TypeError):
        return None  # what is wrong with it the program is about to be told


_leaving: list[tuple[witness.Witness, str]] = []  # those still at work for watches that have ended, and their runs


def settle(*, wait: bool = True) -> None:
    """See to the witnesses that have come to their end; with ``wait``, once all have.

    The end of the program waits: in a container, say, a witness would not survive it.
    """
    for _ in range(len(_leaving)):
        try:
            found, path = _leaving.pop(0)
        except IndexError:
            return  # another thread has taken them
        if not wait and not found.has_ended():
            _leaving.append((found, path))
        elif not found.end():
            _warn_of_lost(path)


atexit.register(settle)


def _warn_of_lost(path: str) -> None:
    _warn(f"not all files that were opened are recorded in {path}: who looked at them was killed")


def _warn(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=2)


def _abandon_all() -> None:
    global _watches, _changing
    witness.close_journals()
    for watch in _watches:
        watch.abandon()
    _watches, _changing = (), threading.RLock()
    while _leaving:
        _leaving.pop()[0].close()
