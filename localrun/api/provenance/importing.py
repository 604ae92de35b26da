"""A run out of an archive that `export` made, or that claims so: nothing in it is believed, executed or followed.

Only plain files and folders below one name are taken, into a folder of our own out of sight; then every file has to be
as the manifest says, which also says what links there were among them, and the record one that can be read; and then
the folder gets its name by one rename. What a killed import leaves is cleared away by the next one.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from typing import Any

from localrun import files, settings
from localrun.api.moving.local import LocalPlace
from localrun.api.moving.manifest import Contents, is_copied, is_inside, misplaced, recorded
from localrun.api.moving.progress import Progress
from localrun.api.provenance.export import MANIFEST, SCHEMA
from localrun.api.provenance.wellformed import PROVENANCE, RECORD, misfit
from localrun.api.recorded import Recorded
from localrun.api.run import Run
from localrun.engine.queue import Queue
from localrun.errors import RunConfigError, RunExistsError, RunNotFoundError, SystemFailureError
from localrun.model import artifacts, journal
from localrun.model import record as records
from localrun.model.folder import RunFolder, is_misshapen, may_be_link
from localrun.model.names import validate_name
from localrun.model.record import Record
from localrun.model.trust import mark

_BUILDING = ".import"  # in the runs folder; one import at a time
_READ_WHOLE = {MANIFEST, "config.json", "provenance.json"}
_LARGEST_READ_WHOLE = 256 << 20
_LARGEST_HEADER = 1 << 20
_DEEPEST = 200  # far from where removing them again would fail
# What a name can be wrong about; None is gzip's own.
_OF_NAMES = {None, errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.EILSEQ}
_LONGEST, _LONGEST_PATH = 255, 1023  # bytes of a name, and of what a link says on any file system
_LATEST = 1 << 33  # a time that every file system can write down
_PIECE = 1 << 20
_MOST_TOLD = 500


def import_run(path: str | os.PathLike[str], name: str | None = None, trust: bool = False) -> Run:
    """Bring a run back from the archive that `export_run` wrote, under its name or ``name``; its uid stays.

    It is this user's then. What is pickled in it (function, inputs, result) is code, and is not loaded unless
    ``trust`` says that it comes from somebody whose code may run here.

    Raises:
        RunNotFoundError: there is no such file (404).
        RunConfigError: the file is no whole archive of a run, or was altered (400). Nothing was made.
        RunExistsError: the name is taken (409). SystemFailureError: the runs folder can't be written (503).
    """
    source = files.absolute(path, "path")
    if name is not None:
        validate_name(name)
    if not os.path.isfile(source):
        what = "is no file, as `localrun export` writes one" if os.path.exists(source) else "does not exist"
        raise RunNotFoundError(f"{source} {what}")
    runs, queue = settings.runs_dir(), Queue(settings.home())
    queue.prepare()
    try:
        os.makedirs(runs, exist_ok=True)
        with files.ByteLock.acquire(f"{runs}/{_BUILDING}.lock"):
            building = RunFolder(f"{runs}/{_BUILDING}")
            _clear(building)
            with journal.Change(building.path):
                os.mkdir(building.path, 0o700)
            try:
                return _import(source, building, queue, name, trust)
            finally:
                _clear(building)
    except OSError as error:
        where = error.filename or runs
        raise SystemFailureError(f"{source} could not be imported: {error.strerror or error} ({where})") from error


def _clear(building: RunFolder) -> None:
    """Remove what is there of a folder in the making. What is none, a link say, nobody here has made: an OSError."""
    if os.path.lexists(building.path):
        with journal.Change(building.path):
            shutil.rmtree(building.path)


def _import(source: str, building: RunFolder, queue: Queue, name: str | None, trust: bool) -> Run:
    archive = _Archive(source, building, name)
    archive.unpack()
    archive.verify()
    record = _checked(source, building)
    target = RunFolder(f"{settings.runs_dir()}/{name or record['name']}", record["uid"])
    record |= {"name": name or record["name"], "home": queue.home}
    record["submission"] = {**(record.get("submission") or {}), "folder": target.path}
    files.replace(building.record, records.encode(record))
    os.close(files.create(building.lock, b""))
    if not trust:
        mark(building, source)
    LocalPlace(building.path).finish(Contents({}, archive.links))
    with queue.lock():
        _check_free(record["name"])
        with journal.Change(building.path, target.path):
            os.rename(building.path, target.path)
    return Run.load(target.path)


def _check_free(name: str) -> None:
    path = f"{settings.runs_dir()}/{name}"
    if os.path.lexists(path):
        raise RunExistsError(f"{path} exists already: import it under another name (--name)")


class _Header(tarfile.TarInfo):
    """A member's header. What belongs to one, a long name say, is read whole: so it must not be large."""

    def _proc_member(self, tar: tarfile.TarFile) -> Any:
        if not (self.isreg() or self.isdir()) and self.size > _LARGEST_HEADER:
            raise tarfile.ReadError(f"a header of {self.size} bytes")
        return super()._proc_member(tar)  # type: ignore[misc]

    def _refuse_sparse(self, *_: object) -> None:
        """Where a file has holes would be read into memory, however long that is."""
        raise tarfile.ReadError("a file with holes")

    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _refuse_sparse


class _Counted(io.FileIO):
    """A file of which all that is read is counted."""

    def __init__(self, path: str, progress: Progress) -> None:
        super().__init__(path)
        self._progress = progress
        progress.begin(f"importing {os.path.basename(path)}", os.fstat(self.fileno()).st_size)

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self._progress.add(len(data))
        return data


class _Archive:
    """An archive on its way into the folder that is being made."""

    def __init__(self, source: str, building: RunFolder, name: str | None) -> None:
        self._source = source
        self._building = building
        self._name = name
        self._top: str | None = None
        self._found: dict[str, dict[str, Any]] = {}
        self.links: dict[str, str] = {}
        self._manifest: bytes | None = None

    def unpack(self) -> None:
        """Write what is in it, as long as it is what may be in it."""
        try:
            with (
                Progress() as progress,
                _Counted(self._source, progress) as packed,
                gzip.open(packed) as file,
                tarfile.open(fileobj=file, mode="r|", tarinfo=_Header) as tar,
            ):
                for info in tar:
                    self._take(tar, info)
                    tar.members.clear()  # type: ignore[attr-defined]
                while file.read(_PIECE):  # to the end, where its checksum is
                    pass
        except RunConfigError:
            raise  # it is a ValueError, too
        except (tarfile.TarError, EOFError, zlib.error, ValueError, RecursionError) as error:
            raise self._refused(f"it is damaged or no archive ({error})") from None
        except OSError as error:
            if error.errno not in _OF_NAMES:
                raise
            raise self._refused(f"it is damaged or no archive ({error.strerror or error})") from None

    def _take(self, tar: tarfile.TarFile, info: tarfile.TarInfo) -> None:
        path = self._inside(info)
        if self._manifest is not None:
            raise self._refused(f"something follows its {MANIFEST}")
        if info.isdir():
            files.make_folders(f"{self._building.path}/{path}")
            return
        piece = tar.extractfile(info)
        assert piece is not None, "it is a plain file"
        if path in _READ_WHOLE and info.size > _LARGEST_READ_WHOLE:
            raise self._refused(f"its {path} has {info.size} bytes")
        if path == MANIFEST:
            self._manifest = piece.read()
            return
        left = os.statvfs(self._building.path)
        if info.size > left.f_bavail * left.f_frsize:
            raise self._refused(f"{info.name!r} has {info.size} bytes, and there is no room for that")
        self._found[path] = self._write(path, iter(lambda: piece.read(_PIECE), b""), info)

    def _inside(self, info: tarfile.TarInfo) -> str:
        """The path of a member in the run's folder."""
        parts = info.name.rstrip("/").split("/")
        if not all(part not in ("", ".", "..") and "\0" not in part for part in parts):
            raise self._refused(f"{info.name!r} leads out of it")
        if info.issparse() or info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE):
            raise self._refused(f"{info.name!r} is no plain file or folder")
        if len(parts) > _DEEPEST:
            raise self._refused(f"{'/'.join(parts[:3])!r} has folders in folders, {len(parts)} of them")
        if self._top is None:
            self._top = parts[0]
            _check_free(self._name or self._top)  # before all of it is unpacked
        path = "/".join(parts[1:])
        is_strange = not path or not is_copied(parts[1]) or is_misshapen(path, is_folder=info.isdir())
        if parts[0] != self._top or is_strange:
            raise self._refused(f"{info.name!r} is none of a run's")
        return path

    def _write(self, path: str, pieces: Iterator[bytes], info: tarfile.TarInfo) -> dict[str, Any]:
        """A file that wasn't there; what its digest is."""
        whole, digest, size = f"{self._building.path}/{path}", hashlib.sha256(), 0
        files.make_folders(os.path.dirname(whole))
        try:
            fd = files.create(whole, b"", mode=0o700 if info.mode & 0o100 else 0o600)
        except FileExistsError:
            raise self._refused(f"{info.name!r} is there twice") from None
        with os.fdopen(fd, "wb") as file:
            for piece in pieces:
                file.write(piece)
                digest.update(piece)
                size += len(piece)
        changed = min(max(info.mtime, 0), _LATEST)
        os.utime(whole, (changed, changed))
        return {"size": size, "sha256": digest.hexdigest()}

    def verify(self) -> None:
        """Hold what was unpacked against what the manifest says; keep the latter."""
        if self._manifest is None:
            raise self._refused("it breaks off, or isn't one that 'localrun export' made")
        manifest: dict[str, Any] = {}
        try:
            manifest |= json.loads(self._manifest)
            is_ours = manifest["schema"] == SCHEMA
            expected = dict(manifest["files"].items()) if is_ours else {}
            links = manifest.get("links", {}) if is_ours else {}
            self.links = {name: os.path.normpath(target) for name, target in links.items()}
            odd = self._misplaced()
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise self._refused(f"its {MANIFEST} can't be read") from None
        if not is_ours:
            raise self._refused(f"it was made by another localrun ({str(manifest.get('localrun'))[:_MOST_TOLD]})")
        if expected != self._found:
            wrong = sorted({*expected, *self._found}, key=lambda path: expected.get(path) == self._found.get(path))
            raise self._refused(f"{wrong[0]!r} is not as it was exported")
        if odd:
            raise self._refused(f"{odd[0][:_MOST_TOLD]!r} can't be there, by the links that it names")
        os.close(files.create(self._building.export, self._manifest))

    def _misplaced(self) -> list[str]:
        """What can't be there: links that are none of a program's, are a folder, or lead out; what is behind them."""
        odd = [name for name in (*self.links, *self.links.values()) if not _can_be(name)]
        odd += [name for name in self.links if not may_be_link(name)]
        odd = odd or misplaced(self._found, self.links)
        return odd or [name for name in self.links if os.path.lexists(f"{self._building.path}/{name}")]

    def _refused(self, why: str) -> RunConfigError:
        return RunConfigError(f"{self._source} was not imported: {why}")


def _can_be(name: str) -> bool:
    """True if a link can be called so, or lead there, as far as that is no question of where it is."""
    data = os.fsencode(name)
    parts = data.split(b"/")
    if len(data) > _LONGEST_PATH or len(parts) > _DEEPEST:
        return False
    return b"" not in parts and max(map(len, parts)) <= _LONGEST


def _checked(source: str, building: RunFolder) -> Record:
    """The record, if all that is to be read of it later can be."""
    try:
        record = records.read(building)
        validate_name(record["name"])
        if re.fullmatch(r"[0-9a-f]{16}", record["uid"]) is None:
            raise ValueError("its uid is none")
        if not records.status(record).is_terminal():
            raise ValueError("it had not ended")
        run = Run._of(record, building)
        for field, value in vars(Recorded).items():
            if isinstance(value, property) and field not in ("config", "submitted_config"):
                getattr(run, field)
        for field, usual in records.new(uid="", name="", run_type="").items():
            if isinstance(usual, list | dict) and type(record[field]) is not type(usual):
                raise TypeError(f"its {field} is none")
        wrong = misfit(record, RECORD) or misfit(run.provenance, PROVENANCE)
        if wrong is not None:
            raise TypeError(f"its {wrong} is none")
        if not all(map(is_inside, recorded(record))):
            raise TypeError("what it was given or returned lies elsewhere")
        if not all(map(artifacts.is_one, [*run.upstream_artifacts, *run.downstream_artifacts])):
            raise TypeError("an artifact is none")
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 - it may be wrong in any way
        why = " ".join(str(error).split())[:_MOST_TOLD]
        raise RunConfigError(f"{source} was not imported: its record is none of an ended run ({why})") from None
    return record
