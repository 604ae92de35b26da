"""Copying a run to a place: complete at once or not at all, whatever is killed or goes away meanwhile.

On this machine a copy is assembled under a hidden name and gets its own by one rename. On a remote it is written where
it is to be, and complete when its record is, the last file (see `remote`); if a run is there already, it is written
beside that, and takes its place when it is complete. A run that makes way goes to the archive beside it, as everywhere.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from localrun import files, settings
from localrun.api.moving import places, transfer
from localrun.api.moving.local import LocalPlace
from localrun.api.moving.manifest import MANIFEST, MARKER, RECORD, Contents
from localrun.api.moving.progress import Progress
from localrun.api.moving.remote import RemotePlace
from localrun.engine.dispatch import submission
from localrun.engine.queue import Queue
from localrun.errors import (
    IllegalTransitionError,
    LocalrunError,
    NotARunError,
    RunConfigError,
    RunExistsError,
    SystemFailureError,
)
from localrun.model import catalogue, journal, trust
from localrun.model import record as records
from localrun.model.folder import ARCHIVE, RunFolder
from localrun.model.record import Record

if TYPE_CHECKING:
    from localrun.api.run import Run


def copy(
    run: Run,
    system: str,
    path: str | os.PathLike[str] | None,
    data_config: Mapping[str, Any] | None,
    *,
    overwrite: bool,
) -> Run:
    """Copy a run that has ended to a place, and return it as it is there; see `Run.to`."""
    from localrun.model.names import validate_name

    record = run.refresh()._record
    source, target = run._place(), places.find(system, path, data_config, run.name)
    _refuse_itself(source, target)
    if not transfer.UID.fullmatch(str(record["uid"])):
        raise NotARunError(f"{source.url} is not the record of a run: its uid is {record['uid']!r}")
    try:
        validate_name(record["name"])  # lists print it as it is
    except RunConfigError as error:
        raise NotARunError(f"{source.url} is not the record of a run: {error}") from None
    if not run.status.is_terminal():
        raise IllegalTransitionError(f"run {run.name} is {run.status}: it can be copied when it has ended")
    if isinstance(source, LocalPlace):
        catalogue.settle(RunFolder(source.folder))
    try:
        if isinstance(target, RemotePlace):
            return _to_remote(run, source, target, record, overwrite=overwrite)
        return _to_folder(run, source, target.folder, record, overwrite=overwrite)
    except OSError as error:
        text = f"{error.strerror or error} ({error.filename})" if error.filename else str(error)
        raise SystemFailureError(f"run {run.name} could not be copied to {target.url}: {text}") from error


def _refuse_itself(source: places.Place, target: places.Place) -> None:
    if type(source) is not type(target):
        return
    here, there = (each.folder if isinstance(each, LocalPlace) else each.url for each in (source, target))
    if isinstance(source, LocalPlace):
        here, there = os.path.realpath(here), os.path.realpath(there)
    if here == there:
        raise RunExistsError(f"path: {target.url} is where the run lies: choose another path")
    if there.startswith(f"{here}/"):
        raise RunConfigError(f"path: {target.url} is in the run's own folder: it can't be copied into itself")


# -- to a folder of this machine ------------------------------------------------------------------------------------


def _to_folder(run: Run, source: places.Place, path: str, record: Record, *, overwrite: bool) -> Run:
    """Assemble the copy beside where it is to be; give it its name under the queue's lock, as a submission does."""
    from localrun.api.run import Run as Local

    _existing(path, overwrite=overwrite)
    parent, base = os.path.split(path)
    building = f"{parent}/.{base}.{record['uid']}.copying"
    os.makedirs(parent, mode=0o700, exist_ok=True)
    with _Building(building), Progress() as progress:
        place = LocalPlace(building)
        made, text = transfer.copy_files(run, source, place, record, progress)
        if not run.is_trusted:
            trust.mark(RunFolder(building), source.url)
        with place.writing(RECORD) as file:
            file.write(text)
        place.finish(made)
        transfer.check(place, made, progress)
        queue = Queue(settings.home())
        queue.prepare()
        with queue.lock():
            there = _existing(path, overwrite=overwrite)
            if there is not None:
                submission.archive(path, there["uid"])
            with journal.Change(building, path):
                os.rename(building, path)
    return Local.load(path, trust=run.is_trusted)


def _existing(path: str, *, overwrite: bool) -> Record | None:
    """The record of the ended run that is to make way; None if nothing is there. RunExistsError if it must not."""
    if not os.path.lexists(path):
        return None
    try:
        there = records.read(RunFolder(path))
    except LocalrunError as error:
        raise RunExistsError(f"path: {path} exists and is no run: choose another path ({error})") from None
    if not overwrite or not records.status(there).is_terminal():
        way = "" if overwrite else ", or overwrite=True"
        raise RunExistsError(
            f"path: {path}: run {there['name']} is there already, {there['status']}: choose another path{way}"
        )
    return there


class _Building:
    """The folder in which a copy is assembled, empty but for its lock. What a killed process left goes first."""

    def __init__(self, path: str) -> None:
        self._folder = RunFolder(path)

    def __enter__(self) -> None:
        path = self._folder.path
        with journal.Change(path):
            try:
                os.mkdir(path, 0o700)
            except FileExistsError:
                if os.path.islink(path) or os.stat(path).st_uid != os.geteuid():
                    raise
        lock = files.ByteLock.try_acquire(self._folder.lock)
        if lock is None or os.fstat(lock.fd).st_ino != os.stat(self._folder.lock).st_ino:
            raise RunExistsError(f"another process is making this copy: {path}")
        self._lock = lock
        _empty(path)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            import shutil

            with journal.Change(self._folder.path):
                shutil.rmtree(self._folder.path, ignore_errors=True)
        self._lock.release()


def _empty(path: str) -> None:
    """Remove what a killed copy left, but for the lock."""
    import shutil

    with os.scandir(path) as entries:
        for each in entries:
            if each.is_dir(follow_symlinks=False):
                shutil.rmtree(each.path)
            elif each.name != os.path.basename(RunFolder(path).lock):
                os.unlink(each.path)


# -- to a remote ----------------------------------------------------------------------------------------------------


def _to_remote(run: Run, source: places.Place, target: RemotePlace, record: Record, *, overwrite: bool) -> Run:
    """Write the copy where it is to be, or, if a run is there, beside it until it is complete."""
    from localrun.api.moving.mirror import RemoteRun

    there = _existing_remote(target, overwrite=overwrite)
    base = posixpath.basename(target.path)
    place = target if there is None else target.beside(f".{base}.{record['uid']}.copying")
    mine = os.urandom(8).hex().encode()
    if place.is_taken():
        place.clear()
    place.put(MARKER, mine)
    with Progress() as progress:
        made, text = transfer.copy_files(run, source, place, record, progress)
        place.put(MANIFEST, made.encode())
        transfer.check(place, made.without(RECORD), progress)
        _check_is_mine(place, mine, target)
        place.put(RECORD, text)
        transfer.check(place, Contents({RECORD: made.files[RECORD]}), progress)
        try:
            _check_is_mine(place, mine, target)
        except RunExistsError:
            place.remove(RECORD)  # the other one had begun before it was there
            raise
        place.remove(MARKER)
    if there is not None:
        target.move(_free_archive(target, f"{base}.{there['uid']}"))
        place.move(target)
    return RemoteRun.at(target, trust=run.is_trusted)


def _check_is_mine(place: RemotePlace, mine: bytes, target: RemotePlace) -> None:
    if place.marker() != mine:
        raise RunExistsError(f"{target.url}: another process copies a run to the same place")


def _existing_remote(place: RemotePlace, *, overwrite: bool) -> Record | None:
    """The record of the run that is to make way; None if nothing, or what a broken-off copy left, is there."""
    data = place.record()
    record = None if data is None else transfer.parsed(data)
    if record is None:
        if place.is_taken() and place.marker() is None:
            raise RunExistsError(f"path: {place.url} exists and is no run: choose another path")
        return None
    if not overwrite:
        name = f"run {record['name']} is there already"
        raise RunExistsError(f"path: {place.url}: {name}: choose another path, or overwrite=True")
    return record


def _free_archive(target: RemotePlace, name: str) -> RemotePlace:
    place = target.beside(f"{ARCHIVE}/{name}")
    if place.is_taken() and place.record() is None and place.marker() is not None:
        place.clear()  # its move was broken off, and the run is still where it was
    return target.beside(f"{ARCHIVE}/{name}.{os.urandom(3).hex()}") if place.is_taken() else place
