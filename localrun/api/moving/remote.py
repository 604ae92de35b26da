"""A run folder that fsspec reaches, as a place that is copied from, or to.

Not every file system can rename a folder, or replace a file in one step. So a copy is complete when it has its
``config.json``, which is written last and removed first; and what an interrupted copy left is told from somebody's own
folder by a marker, which is there before the first file and goes after the last.
"""

from __future__ import annotations

import os
import posixpath
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from localrun.api.moving.manifest import MANIFEST, MARKER, RECORD, Contents, Entry, decode, is_copied, is_inside
from localrun.errors import LocalrunError, MissingPackageError, RunConfigError, SystemFailureError

# Where a name is all there is to a folder. Elsewhere one is made first.
_WITHOUT_FOLDERS = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci", "memory"})
WITH_RENAME = frozenset({"sftp", "ssh"})  # a folder's, in one step
_PATIENCE_S = 60.0  # with an SFTP server that says nothing


class RemotePlace:
    """The folder ``path`` on a file system of fsspec's, with ``options`` (the ``data_config``) for that.

    Connects when it is first used, and anew after an error, in a forked process and in another thread. Its methods
    raise SystemFailureError where the file system can't be reached or refuses.
    """

    def __init__(self, protocol: str, path: str, url: str, options: Mapping[str, Any]) -> None:
        self.protocol = protocol
        self.path = path
        self.url = url
        self.options = options
        self._connection: tuple[Any, tuple[int, int]] | None = None

    def beside(self, name: str) -> RemotePlace:
        """A place in the same folder as this one, over the same connection."""
        path, url = (f"{posixpath.dirname(each)}/{name}" for each in (self.path, self.url))
        there = RemotePlace(self.protocol, path.lstrip("/") if self.path[:1] != "/" else path, url, self.options)
        there._connection = self._connection
        return there

    # -- what there is ------------------------------------------------------------------------------------------------

    def record(self) -> bytes | None:
        """The run's record; None if there is none, and so no complete copy."""
        return self._content(RECORD)

    def marker(self) -> bytes | None:
        """What the marker of a copy that has not come to its end says."""
        return self._content(MARKER)

    def names(self) -> list[str]:
        """The files there, by their paths in the folder."""
        with self.connected() as fs:
            try:
                found = fs.find(self.path, detail=True)
            except (FileNotFoundError, NotADirectoryError):
                return []
        root = self.path.rstrip("/") + "/"
        there = {name: info for name, info in found.items() if name.startswith(root) and info["type"] == "file"}
        names = {name.removeprefix(root): info["size"] for name, info in there.items()}
        self._sizes = {name: size for name, size in names.items() if is_inside(name)}
        return list(self._sizes)

    def contents(self) -> Contents:
        """What the manifest names; where somebody put a run without one, what is there."""
        manifest = self._content(MANIFEST)
        if manifest is not None:
            return decode(manifest, self.url)
        names = filter(is_copied, self.names())
        return Contents({name: Entry(self._sizes[name]) for name in names})

    def _content(self, name: str) -> bytes | None:
        with self.connected() as fs:
            try:
                data: bytes = fs.cat_file(self._at(name))
            except FileNotFoundError:
                return None
            return data

    def is_taken(self) -> bool:
        """True if anything is there."""
        with self.connected() as fs:
            try:
                there = fs.ls(self.path, detail=True)
            except (FileNotFoundError, NotADirectoryError):
                return False
        # Some stores show an empty file for the folder itself.
        return any(info["name"].strip("/") != self.path.strip("/") or info["size"] for info in there)

    def reading(self, name: str) -> RemoteFile:
        """A file, open for reading."""
        with self.connected() as fs:
            file = fs.open(self._at(name), "rb")
            if hasattr(file, "prefetch"):  # SFTP: else each 32 KiB is asked for when the one before has come
                file.prefetch()
        return RemoteFile(self, file)

    # -- changing it --------------------------------------------------------------------------------------------------

    def writing(self, name: str, *, executable: bool = False) -> RemoteFile:
        """A file, open for writing, in place of one that was there; that it can be executed only the manifest says."""
        with self.connected() as fs:
            self._make_folder(fs, posixpath.dirname(self._at(name)))
            file = fs.open(self._at(name), "wb")
            if hasattr(file, "set_pipelined"):  # SFTP: else each 32 KiB waits until the one before has arrived
                file.set_pipelined(True)
        return RemoteFile(self, file)

    def put(self, name: str, data: bytes) -> None:
        """Write a small file."""
        with self.connected() as fs:
            self._make_folder(fs, posixpath.dirname(self._at(name)))
            fs.pipe_file(self._at(name), data)

    def remove(self, name: str) -> None:
        """Remove a file."""
        with self.connected() as fs:
            fs.rm_file(self._at(name))

    def clear(self) -> None:
        """Remove what is there: the record first, the marker last; killed on the way it is a leftover."""
        names = set(self.names())
        self.put(MARKER, b"being removed")
        for name in sorted(names - {MARKER}, key=lambda name: name != RECORD):
            self.remove(name)
        self.remove(MARKER)

    def move(self, target: RemotePlace) -> None:
        """Move a complete run to a free place. At each moment it is complete in one of the two, or in both."""
        if self.protocol in WITH_RENAME:
            with self.connected() as fs:
                self._make_folder(fs, posixpath.dirname(target.path))
                fs.mv(self.path, target.path)
            return
        names = sorted(set(self.names()) - {MARKER}, key=lambda name: name == RECORD)
        target.put(MARKER, b"being moved here")
        with self.connected() as fs:
            for name in names:
                fs.cp_file(self._at(name), target._at(name))
        target.remove(MARKER)
        self.clear()

    def _make_folder(self, fs: Any, folder: str) -> None:
        if self.protocol in WITH_RENAME:
            fs.makedirs(folder, exist_ok=True, mode=0o700)
        elif self.protocol not in _WITHOUT_FOLDERS:
            fs.makedirs(folder, exist_ok=True)

    def _at(self, name: str) -> str:
        return f"{self.path.rstrip('/')}/{name}"

    # -- the connection -----------------------------------------------------------------------------------------------

    @contextmanager
    def connected(self) -> Iterator[Any]:
        """The file system. What goes wrong inside is told in one way, but for a missing file; then it connects anew."""
        try:
            here = (os.getpid(), threading.get_ident())
            if self._connection is None or self._connection[1] != here:
                self._connection = (connect(self.protocol, self.options), here)
            self._connection[0].invalidate_cache()  # what it knew of folders
            yield self._connection[0]
        except (LocalrunError, FileNotFoundError, NotADirectoryError):
            raise
        except Exception as error:  # whatever the file system's library raises
            self._connection = None
            raise SystemFailureError(f"{self.url}: {type(error).__name__}: {' '.join(str(error).split())}") from error


class RemoteFile:
    """An open file of a place's: what goes wrong with it is told as the place's methods do."""

    def __init__(self, place: RemotePlace, file: Any) -> None:
        self._place = place
        self._file = file

    def read(self, size: int) -> bytes:
        """At most so many bytes; none at the end."""
        with self._place.connected():
            data: bytes = self._file.read(size)
            return data

    def write(self, data: bytes) -> None:
        """Write all of it."""
        with self._place.connected():
            self._file.write(data)

    def __enter__(self) -> RemoteFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        try:
            with self._place.connected():
                self._file.close()
        except (SystemFailureError, FileNotFoundError):
            if kind is None:
                raise  # else the first error says more


def connect(protocol: str, options: Mapping[str, Any]) -> Any:
    """A file system of fsspec's of our own: not one that it keeps, which may have lost its server.

    Raises:
        RunConfigError: the options are not what it takes. MissingPackageError: it needs a package.
    """
    kind = file_system(protocol)
    options = dict(options)
    if protocol in WITH_RENAME:
        options = {"timeout": _PATIENCE_S, "banner_timeout": _PATIENCE_S, **options}
    try:
        fs = kind(**options, skip_instance_cache=True)
    except TypeError as error:
        raise RunConfigError(f"data_config: {protocol} doesn't take it: {error}") from None
    if protocol in WITH_RENAME:
        fs.ftp.get_channel().settimeout(options["timeout"])
    return fs


def file_system(protocol: str) -> Any:
    """fsspec's class for a protocol. RunConfigError if it knows none, MissingPackageError if that needs a package."""
    import fsspec

    try:
        return fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        raise MissingPackageError(f"system: {protocol!r} needs a package that is not installed: {error}") from None
    except ValueError:
        raise RunConfigError(f"system: {protocol!r} is no file system that fsspec knows, such as s3 or sftp") from None
