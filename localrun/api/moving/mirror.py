"""A run that lies on a remote: a `Run` that reads from there, and changes nothing there but by `write`.

Its folder is a mirror of the remote one: a private folder of this process, in which a file is when its path is asked
for. So whatever reads a run's folder reads this one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from typing import Any, NoReturn, Self

from localrun.api import control
from localrun.api.moving import cache
from localrun.api.moving.manifest import MANIFEST, RECORD, Contents, Entry
from localrun.api.moving.remote import RemotePlace
from localrun.api.run import Run
from localrun.errors import (
    IllegalTransitionError,
    NotARunError,
    ResultUnavailableError,
    RunConfigError,
    RunNotFoundError,
    SystemFailureError,
)
from localrun.model import record as records
from localrun.model import trust
from localrun.model.folder import RunFolder
from localrun.model.record import Record

_CHUNK = 4 << 20


def _fetched(path: Any) -> Any:
    """The same path, a property or a method, its file fetched first."""
    if isinstance(path, property):
        return property(lambda mirror: mirror.fetch(path.__get__(mirror)), doc=path.__doc__)
    return lambda mirror, *which: mirror.fetch(path(mirror, *which))


class Mirror(RunFolder):
    """The layout of a remote run folder, in a folder of this process's."""

    __slots__ = ("_contents", "place")

    def __init__(self, place: RemotePlace) -> None:
        super().__init__(cache.folder())
        trust.mark(self, place.url)
        self.place = place
        self._contents: Contents | None = None

    record, function, inputs = map(_fetched, (RunFolder.record, RunFolder.function, RunFolder.inputs))
    stored, provenance, artifacts = map(_fetched, (RunFolder.stored, RunFolder.provenance, RunFolder.artifacts))
    parameters, exception = _fetched(RunFolder.parameters), _fetched(RunFolder.exception)
    telemetry, commands = _fetched(RunFolder.telemetry), _fetched(RunFolder.commands)
    stdout, stderr, log_times = map(_fetched, (RunFolder.stdout, RunFolder.stderr, RunFolder.log_times))

    def result(self, rank: int | None = None) -> str:
        """A result's path, the result fetched first with all that lies beside it under its name."""
        path = super().result(rank)
        stem = os.path.basename(path).removesuffix("pkl")
        for name in self.contents().files:
            if name.startswith(stem) and not name.endswith(".pkl"):
                self.fetch(f"{self.path}/{name}")
        return self.fetch(path)

    def resumption_logs(self, resumption: int) -> str:
        """The folder of a resumption's logs: every file is there, those nobody has asked for without content."""
        path = super().resumption_logs(resumption)
        inside = f"{path.removeprefix(self.path + '/')}/"
        for name in self.contents().files:
            if name.startswith(inside):
                os.makedirs(os.path.dirname(f"{self.path}/{name}"), mode=0o700, exist_ok=True)
                os.close(os.open(f"{self.path}/{name}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        return path

    def contents(self) -> Contents:
        """What is on the remote."""
        if self._contents is None:
            self._contents = self.place.contents()
        return self._contents

    def renew(self) -> None:
        """Look at the remote anew, and forget what was fetched unless it is known to be the same.

        Raises:
            RunNotFoundError: nothing is there. NotARunError: no run is, or not all of one.
        """
        if self.place.record() is None:
            if self.place.marker() is not None:
                raise NotARunError(f"{self.place.url} is a copy that was interrupted: copy the run again")
            if self.place.is_taken():
                raise NotARunError(f"{self.place.url} is not a run folder: it has no {RECORD}")
            raise RunNotFoundError(f"no run at {self.place.url}")
        before, self._contents = self._contents, self.place.contents()
        if self._contents != before or not self._contents.has_digests:
            shutil.rmtree(self.path, ignore_errors=True)
            os.makedirs(self.path, mode=0o700)
            trust.mark(self, self.place.url)

    def fetch(self, path: str) -> str:
        """Have the file of that path, if there is one on the remote; returns the path."""
        name = path.removeprefix(f"{self.path}/")
        entry = self.contents().files.get(name)
        try:
            is_here = entry is None or os.stat(path).st_size == entry.size
        except FileNotFoundError:
            is_here = False
        if not is_here and entry is not None:
            self._download(name, path, entry)
        return path

    def _download(self, name: str, path: str, entry: Entry) -> None:
        """Get a file, whole and as its manifest says, or not at all."""
        folder, base = os.path.split(path)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        temporary = f"{folder}/.{base}.{os.urandom(6).hex()}.tmp"
        digest, size = hashlib.sha256(), 0
        with self.place.reading(name) as source, open(temporary, "xb") as target:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
                target.write(chunk)
        if entry.sha256 is not None and (size, digest.hexdigest()) != (entry.size, entry.sha256):
            os.unlink(temporary)
            raise ResultUnavailableError(f"{self.place.url}/{name} is cut short or altered; it was not loaded")
        os.rename(temporary, path)


class RemoteRun(Run):
    """A `Run` on a remote. It can be read, copied and written to; what else would change it is refused."""

    _mirror: Mirror

    @classmethod
    def at(cls, place: RemotePlace, *, trust: bool) -> Self:
        """The run at that place. RunNotFoundError if there is none, NotARunError if it isn't all there."""
        return cls._mirrored({}, Mirror(place), trust).refresh()

    @classmethod
    def _mirrored(cls, record: Record, mirror: Mirror, trusted: bool) -> Self:
        run = cls._of(record, mirror)
        run._mirror = run._folder = mirror
        run._trusted = trusted
        return run

    path = property(lambda self: self._mirror.place.url, doc="The URL of the run's folder.")
    is_remote = True

    @property
    def is_trusted(self) -> bool:
        """True if somebody said so: what others can write is nobody's."""
        return self._trusted

    def _place(self) -> RemotePlace:
        return self._mirror.place

    def refresh(self) -> Self:
        """Read anew, in place. Returns self."""
        self._mirror.renew()
        try:
            self._record = records.read(self._mirror)
        except SystemFailureError as error:
            raise SystemFailureError(str(error).replace(self._mirror.path, self.path)) from None
        self._mirror.uid = self._record["uid"]
        return self

    def write(self, data: Any, path: str) -> None:
        """Write a file of the user's own into the run's folder: text as UTF-8, bytes as they are, else pickled."""
        name, content = control.checked_name(path), control.as_bytes(data)
        place = self._mirror.place
        contents = place.contents()
        if contents.has_digests and name in contents.files:  # first: it must not say what is no longer so
            place.put(MANIFEST, contents.without(name).encode())
        place.put(name, content)
        if contents.has_digests:
            entry = Entry(len(content), hashlib.sha256(content).hexdigest())
            place.put(MANIFEST, contents.with_file(name, entry).encode())
        self._mirror.renew()

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        """It can't be changed there."""
        raise IllegalTransitionError(
            f"run {self.name} lies at {self.path}, where it can only be read: copy it here first, by to('here')"
        )

    stop = cancel = withdraw = start = delete = update = update_metadata = save = _refuse

    def __enter__(self) -> NoReturn:
        self._refuse()

    def __reduce__(self) -> tuple[Any, ...]:
        place = self._mirror.place
        where = (place.protocol, place.path, place.url, bool(place.options))
        return _unpickled, (where, self._record, self._trusted)


def _unpickled(where: tuple[str, str, str, bool], record: Record, trusted: bool) -> RemoteRun:
    protocol, path, url, had_options = where
    kind = _Undisclosed if had_options else RemotePlace
    return RemoteRun._mirrored(record, Mirror(kind(protocol, path, url, {})), trusted)


class _Undisclosed(RemotePlace):
    """A place whose ``data_config`` stayed where its handle was pickled: it may hold secrets."""

    def connected(self) -> NoReturn:
        raise RunConfigError(
            f"data_config: the handle on {self.url} was pickled without it: load the run again, by "
            f"localrun.run(path={self.url!r}, data_config=...)"
        )
