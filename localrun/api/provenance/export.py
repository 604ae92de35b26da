"""A run as one file to take elsewhere: its folder, with the code of a command run inside it, as ``.tar.gz``.

    <name>/config.json, logs/, …     the run folder as it is, without what only this machine can use
    <name>/code/                     the tracked files that it was submitted from
    <name>/export.json               what was exported, the digest of every other file, and where links led; the
                                     last, so that an archive which breaks off is none

It has plain files and folders alone, and everything the run folder says: output, inputs, environment variables.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import tarfile
import time
from collections.abc import Mapping
from typing import Any, BinaryIO

from localrun import __version__, files
from localrun.api.moving.local import LocalPlace
from localrun.api.moving.manifest import Contents, Entry, is_copied, is_inside, recorded
from localrun.api.moving.progress import Progress
from localrun.api.provenance.code import Code, CodeUnavailableError
from localrun.api.run import Run
from localrun.api.runs import RunOrName, get_run
from localrun.errors import IllegalTransitionError, ResultUnavailableError, RunConfigError, SystemFailureError
from localrun.model import catalogue, times
from localrun.model import record as records
from localrun.model.folder import RunFolder, may_be_link
from localrun.model.names import validate_name

SCHEMA = 1
SUFFIX = ".localrun.tar.gz"
MANIFEST = "export.json"
CODE = "code"
_LEVEL = 1  # of numbers nearly as small as any other, and up to a hundred times as fast


def export_run(run: RunOrName, path: str | os.PathLike[str] | None = None) -> str:
    """Write a run that has ended into one archive, ``<name>.localrun.tar.gz`` here or ``path``; returns where it is.

    It has the run's folder, complete, and for a command run the code: the tracked files at the recorded commit with the
    recorded diff, if the repository still has them. What could not be taken along, its ``export.json`` says. An
    archive that was there is replaced, once the new one is complete.

    Raises:
        RunNotFoundError: there is no such run (404). IllegalTransitionError: it has not ended (409).
        ResultUnavailableError: what it was given or returned is cut short or altered (409).
        RunConfigError: ``path`` is in the run's folder (400). SystemFailureError: the archive can't be written (503).
    """
    return export(run, path)[0]


def export(run: RunOrName, path: str | os.PathLike[str] | None = None) -> tuple[str, dict[str, Any]]:
    """As `export_run`; where the archive is, and its manifest."""
    found = get_run(run).refresh()
    folder = RunFolder(found.path, found.run_uid)
    before = _ended(folder)
    catalogue.settle(folder)
    own = f"{validate_name(found.name)}{SUFFIX}"  # a record's, which others may have written
    target = files.absolute(own if path is None else path, "path")
    if os.path.isdir(target):
        target = f"{target}/{own}"
    if os.path.lexists(target) and (os.path.islink(target) or not os.path.isfile(target)):
        raise RunConfigError(f"path: {target} is no plain file: it is not replaced")
    place, base = os.path.split(target)
    if f"{os.path.realpath(place)}/".startswith(f"{os.path.realpath(folder.path)}/"):
        raise RunConfigError(f"path: {target} is in the run's own folder, which doesn't change: choose another place")
    temporary = f"{place}/.{base}.{os.urandom(6).hex()}.tmp"
    try:
        try:
            fd = files.create(temporary, b"")
            with os.fdopen(fd, "wb") as file, Progress() as progress:
                manifest = _Export(found, folder, progress).write(file)
                _check(found, manifest["files"])
                file.flush()
                os.fsync(fd)
            if _ended(folder) != before:
                raise IllegalTransitionError(f"run {found.name} was started again meanwhile: it was not exported")
            os.rename(temporary, target)
        except BaseException:
            files.remove(temporary)
            raise
    except OSError as error:
        where = target if error.filename in (None, temporary) else error.filename
        why = f"{error.strerror or error} ({where})"
        raise SystemFailureError(f"run {found.name} could not be exported: {why}") from error
    return target, manifest


def _check(run: Run, written: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse what isn't as the run's record says that it was."""
    for name, (size, digest) in recorded(run._record).items():
        if written.get(name) != {"size": size, "sha256": digest}:
            what = "cut short or altered" if name in written else "missing"
            raise ResultUnavailableError(f"{run.path}/{name} is {what}: the run was not exported")


def _ended(folder: RunFolder) -> int:
    """How often a run has started, if it has ended: what tells it from the same run after it was started again."""
    record = records.read(folder)
    if not records.status(record).is_terminal():
        name, status = record["name"], record["status"]
        raise IllegalTransitionError(f"run {name} is {status}: it can be exported when it has ended")
    return len(record["lifecycle"])


class _Export:
    """One archive in the making."""

    def __init__(self, run: Run, folder: RunFolder, progress: Progress) -> None:
        self._run = run
        self._folder = folder
        self._contents = _contents(LocalPlace(folder.path))
        self._digests: dict[str, dict[str, Any]] = {}
        self._progress = progress
        progress.begin(f"exporting run {run.name}", self._contents.size)

    def write(self, file: BinaryIO) -> dict[str, Any]:
        with tarfile.open(fileobj=file, mode="w:gz", compresslevel=_LEVEL, format=tarfile.PAX_FORMAT) as tar:
            for path in self._contents.folders:
                info = self._info(path, 0o700)
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
            for path in sorted(self._contents.files):
                with self._reading(path) as content:
                    about = os.fstat(content.fileno())
                    self._add(tar, path, about.st_mode, about.st_size, content, about.st_mtime)
            about_code = None if os.path.lexists(self._folder.code) else self._add_code(tar)
            manifest = {
                "schema": SCHEMA, "localrun": __version__, "name": self._run.name, "uid": self._run.run_uid,
                "exported_at": times.now(), "host": os.uname().nodename, "code": about_code,
                "left_out": self._contents.left_out, "links": self._contents.links, "files": self._digests,
            }  # fmt: skip
            data = json.dumps(manifest, indent=1).encode()
            self._add(tar, MANIFEST, 0o600, len(data), io.BytesIO(data))
        return manifest

    def _reading(self, path: str) -> BinaryIO:
        """A file of the run folder; none to which others, whose folder it may be, have since made a link."""
        root = os.path.realpath(self._folder.path)
        inside = os.path.relpath(os.path.realpath(f"{root}/{path}"), root)
        if not is_inside(inside):
            raise OSError(errno.ELOOP, "leads out of the run's folder", path)
        return LocalPlace(root).reading(inside)

    def _add_code(self, tar: tarfile.TarFile) -> dict[str, Any] | None:
        """Add the code of a run whose function doesn't bring it along; what became of that."""
        git = self._run.provenance.get("git")
        if os.path.exists(self._folder.function) or git is None or self._run.config.integrations:
            return None
        if not self._run.is_trusted:  # it would name any repository of ours, and git executes what some say
            return {"problem": "others can have written where it is", "left_out": [], "untracked": []}
        try:
            with Code(git) as code:
                for file in code.files():
                    mode = 0o700 if file.executable else 0o600
                    self._add(tar, f"{CODE}/{file.path}", mode, len(file.data), io.BytesIO(file.data), time.time())
                return {"problem": None, "left_out": code.left_out, "untracked": git.get("untracked") or []}
        except CodeUnavailableError as error:
            return {"problem": str(error), "left_out": [], "untracked": []}

    def _add(self, tar: tarfile.TarFile, path: str, mode: int, size: int, file: BinaryIO, changed: float = 0.0) -> None:
        info = self._info(path, 0o700 if mode & 0o100 else 0o600, changed)
        info.size = size
        reader = _Hashed(file, self._progress)
        tar.addfile(info, reader)
        if path != MANIFEST:
            self._digests[path] = {"size": size, "sha256": reader.digest.hexdigest()}

    def _info(self, path: str, mode: int, changed: float = 0.0) -> tarfile.TarInfo:
        info = tarfile.TarInfo(f"{self._run.name}/{path}")
        info.mode, info.mtime = mode, int(changed)
        return info


def _contents(place: LocalPlace) -> Contents:
    """What of a run folder is taken along; in place of a link that can't be one elsewhere, what it leads to."""
    there = place.contents()
    taken = {path: entry for path, entry in there.files.items() if path != MANIFEST}
    links, left_out = {}, [*there.left_out]
    for path, target in there.links.items():
        whole, leads_to = f"{place.folder}/{path}", os.path.normpath(f"{os.path.dirname(path)}/{target}").lstrip("/")
        if may_be_link(path) and is_copied(leads_to.partition("/")[0]):
            links[path] = target
        elif os.path.isfile(whole):
            taken[path] = Entry(os.path.getsize(whole))
        else:
            left_out.append(path)
    return Contents(taken, links, there.folders, tuple(sorted(left_out)))


class _Hashed(io.RawIOBase):
    """A file of which everything that is read is hashed, and counted."""

    def __init__(self, file: BinaryIO, progress: Progress) -> None:
        self._file = file
        self._progress = progress
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.digest.update(data)
        self._progress.add(len(data))
        return data
