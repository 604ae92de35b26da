"""Watching which files this process opens, by an audit hook, for the runs that record them: ``trace_files``.

An interpreter's hooks can't be taken out: there is one, which does no more than write down what it is told, while
somebody watches. What was written down a `witness` looks at, a process that reads and digests and writes into the run's
journal itself; if it is little, the watch's end does. If it is much, a watch's end doesn't wait for the witness: who
asks for the artifacts, and the end of the program, wait until it has noted everything.
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
from typing import Any

from localrun import settings
from localrun.engine.tracing.files import scope, witness, witnessprogram
from localrun.engine.tracing.files.opened import MOVED, RECORD, REMOVED, WENT, Opened
from localrun.errors import RunConfigError
from localrun.model import artifacts
from localrun.model.folder import RunFolder

_FEW = 1 << 14  # bytes of what was written down: some hundred files
_PATIENCE = 0.003  # the part of its time that a watch's end may take to wait for a witness that is about to be done
_MOST_PATIENCE_S = 0.1
_PATIENCE_WITH_FEW_S = 5.0  # it takes milliseconds, unless it is hung

_watches: tuple[Watch, ...] = ()  # replaced, never changed in place: hooks are going through it
_beginning: list[Watch] = []  # not among them yet
_changing = threading.RLock()
_forking: set[int] = set()  # the threads that are about to: a child has the parent's memory, and must not write into it
_is_installed = False


class Watch:
    """The files that this process opens from `start` to `Watch.stop`. OSError if they can't be written down."""

    def __init__(self, folder: RunFolder, files: scope.Folders) -> None:
        self.folder = folder
        self._files = files
        self._cwd = os.getcwd()
        self._since = time.time_ns()
        self._began = time.monotonic()
        self._opened = Opened(folder)
        self.write = self._opened.write
        self._error: Exception | None = None
        self._witness: witness.Witness | None = None
        _beginning.append(self)
        try:
            self._start_witness()
            _change(lambda watches: (*watches, self))
        except BaseException:  # that of a signal's handler
            self.abandon()
            raise
        finally:
            _beginning.remove(self)

    def _start_witness(self) -> None:
        words = witnessprogram.words(self._files, self._cwd, self._since)
        try:
            self._witness = witness.start(self.folder, self._opened.fd, words)
        except OSError:
            pass  # no process, no descriptor: it is looked at in the end

    def put(self, what: Any, path: Any, other: Any = "") -> None:
        """Write down any event."""
        try:
            if self._error is None:
                self._opened.put(what, path, other)
        except (OSError, ValueError) as error:
            self._error = error

    def stop(self) -> None:
        """Stop recording; all of it is or comes into the run's journal. What can't be written is no error, but told."""
        if self not in _watches:
            return  # of the process that this one was forked from
        _change(lambda watches: tuple(each for each in watches if each is not self))
        try:
            is_all = self._finish()
        finally:
            self._opened.close()
        if self._error is not None:
            _warn(f"not all files that were opened could be recorded in {self.folder.path}: {self._error}")
        if not is_all:
            _warn_of_lost(self.folder.path)
        settle(wait=False)

    def _finish(self) -> bool:
        ended, took = time.time_ns(), time.monotonic() - self._began
        is_much = self._opened.size > _FEW
        if self._witness is None:
            return self._look(ended)
        if self._witness.has_ended():  # it was killed
            self._witness.close()
            return self._look(ended)
        if not is_much and took < witness.SURELY_ASLEEP_S:
            self._witness.dismiss()
            return self._look(ended)
        self._witness.leave(ended)
        if took > witness.SURELY_ASLEEP_S:
            self._witness.has_ended(min(_PATIENCE * took, _MOST_PATIENCE_S) if is_much else _PATIENCE_WITH_FEW_S)
        _leaving.append((self._witness, self.folder.path))
        return True

    def _look(self, ended: int) -> bool:
        """Look at what was written down, and note it; False if part of it isn't known any more."""
        from localrun.engine.tracing.files.opened import Reader
        from localrun.engine.tracing.files.sightings import Sightings

        note, reader = functools.partial(artifacts.append, self.folder), Reader(self._opened.fd)
        sightings = Sightings(note, scope.Scope(*self._files), self._cwd, self._since)
        is_all = not reader.skip_given_back()
        try:
            while events := reader.read(is_all=True):
                sightings.take(events, ended)
            sightings.finish()
        except OSError as error:
            self._error = error
        return is_all

    def abandon(self) -> None:
        """Have nothing to do with it: it is that of the process we are a fork of."""
        self._opened.close()
        if self._witness is not None:
            self._witness.close()


def start(folder: RunFolder, files: bool | Sequence[str | os.PathLike[str]]) -> Watch:
    """Record the files that this process opens, as artifacts of the run in that folder, until it is stopped.

    Those below the working folder and the home folder, or in a list of folders those; no hidden folders, no
    interpreters, no ``site-packages``, no folders of runs. What Python opens is seen, what C code opens for itself is
    not, nor what other processes do, forked ones included. A name in an open folder (``dir_fd``) is taken for one in
    the working folder: the hook isn't told which.

    Raises:
        RunConfigError: ``files`` is neither True nor a list of folders. OSError: there is no room for that.
    """
    runs = [settings.home(), settings.runs_dir(), folder.path, *filter(None, [settings.current_run()])]
    if files is True:
        found = scope.of_user(runs)
    elif isinstance(files, list | tuple) and all(isinstance(each, str | os.PathLike) for each in files):
        found = scope.chosen(files, runs)
    else:
        raise RunConfigError(f"trace_files: must be True or a list of folders, not {files!r}")
    _install()
    settle(wait=False)
    return Watch(folder, found)


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
        os.register_at_fork(before=_begin_fork, after_in_parent=_end_fork, after_in_child=_abandon_all)


def _hook(event: str, args: Any) -> None:
    """Write down what is told. It is called for everything that Python is audited for: every instruction counts."""
    if event == "open":
        if _forking and threading.get_ident() in _forking:
            return
        for watch in _watches:
            try:
                path, _, flags = args
                watch.write(RECORD % (flags, _encoded(path), b""))
            except (ValueError, TypeError):  # it is no text, or there must be more room
                if len(args) == _OF_OPEN:  # else it is somebody else's event of that name
                    watch.put(args[2], args[0])
    elif event in _OTHERS and threading.get_ident() not in _forking:
        what, count = _OTHERS[event]
        if len(args) < count or any(each != _WORKING_FOLDER for each in args[count:]):
            return  # the names are of another folder, which is not told; or it is somebody else's event
        for watch in _watches:
            watch.put(what, *map(_as_it_is, args[:count]))


_encoded = str.encode  # of a type of the program's own, too
_OF_OPEN = 3  # a path, a mode, flags
_WORKING_FOLDER = -1  # in place of the descriptor of another
_OTHERS = {"os.rename": (MOVED, 2), "os.remove": (REMOVED, 1), "os.chdir": (WENT, 1)}  # with so many paths


def _as_it_is(path: Any) -> Any:
    """A path as it is now; that of a descriptor is asked for, which is another one tomorrow."""
    try:
        return os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else path
    except OSError:
        return path  # what is wrong with it the program is about to be told


_leaving: list[tuple[witness.Witness, str]] = []  # those still at work for watches that have ended, and their runs


def settle(*, wait: bool = True) -> None:
    """See to the witnesses that have come to their end; with ``wait``, once all have.

    The end of the program waits: in a container, say, a witness would not survive it.
    """
    lost = []
    for _ in range(len(_leaving)):
        try:
            found, path = _leaving.pop(0)
        except IndexError:
            break  # another thread has taken them
        if not wait and not found.has_ended():
            _leaving.append((found, path))
        elif not found.end():
            lost.append(path)
    for path in lost:
        _warn_of_lost(path)


atexit.register(settle)


def _warn_of_lost(path: str) -> None:
    _warn(f"not all files that were opened are recorded in {path}: who looked at them was killed")


def _warn(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=2)


def _begin_fork() -> None:
    _forking.add(threading.get_ident())


def _end_fork() -> None:
    _forking.discard(threading.get_ident())


def _abandon_all() -> None:
    global _watches, _changing
    witness.close_being_made()
    for watch in (*_watches, *_beginning):
        watch.abandon()
    _watches, _changing = (), threading.RLock()
    _beginning.clear()
    _forking.clear()
    while _leaving:
        _leaving.pop()[0].close()
