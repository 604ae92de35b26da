"""``localrun.open``: a file of any place, which the runs that open it have among their artifacts.

Owns how a file is opened and what is noted of it; what passes through it `watched` sees.
"""

from __future__ import annotations

import atexit
import builtins
import io
import os
import re
import stat
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from localrun.api.tracing import current
from localrun.api.tracing.noting import note
from localrun.api.tracing.watched import BUFFER, Bytes, Watched
from localrun.model import artifacts, digests, times, urls
from localrun.model.artifacts import DOWNSTREAM, UPSTREAM
from localrun.model.folder import RunFolder

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(://|::)")
_LOCAL = re.compile(r"(file|local)://(?=/)")


class _Written(NamedTuple):
    """A file that is being written: in which runs, and under which name."""

    folders: Sequence[RunFolder]
    path: str


_unclosed: weakref.WeakKeyDictionary[Any, _Written] = weakref.WeakKeyDictionary()


def open(  # noqa: A001 - that is what it is
    url: str | bytes | int | os.PathLike[Any],
    mode: str = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    **options: Any,
) -> Any:
    """Open a file as the built-in ``open`` does, by its path or any fsspec URL, and note it with the runs around.

    Read, it is an upstream artifact of every run that this code is part of: of the traced blocks around it, and of the
    function or command run that its process works for. Written, it is a downstream one when it is closed, also when an
    exception closes it: the file is there. One that keeps what it finds (``"a"``, ``"r+"``) is both. Outside of runs
    nothing is noted. ``options`` are fsspec's, as in ``localrun.open("s3://…", anon=True)``.

    The artifact's ``url`` is the absolute path of a local file, links resolved, or the URL without its password. The
    digest is made as the file is read or written from its start to its end. One that is read otherwise is read again
    for its digest, or has none if it is larger than 64 MiB and not known from before.

    Raises:
        OSError, ValueError: as ``open``, or the URL's file system, has it.
    """
    if options or _is_url(url):
        text = os.fsdecode(url) if isinstance(url, bytes | os.PathLike) else str(url)
        return _open_url(text, mode, buffering, encoding, errors, newline, options)
    local = _without_scheme(url)
    file = builtins.open(local, mode, buffering, encoding, errors, newline)  # noqa: SIM115 - the caller's
    folders = current.folders()
    if not folders or isinstance(local, int):
        return file
    try:
        return _noted(file, folders, os.path.realpath(os.fsdecode(local)), mode, buffering, newline)
    except BaseException:
        file.close()
        raise


def left(folder: RunFolder) -> None:
    """Note the files that a block, which ends now, has begun to write and not closed, as they are."""
    for file, written in list(_unclosed.items()):
        if file.closed or folder.uid not in [each.uid for each in written.folders]:
            continue
        try:
            file.flush()
            size = os.stat(written.path).st_size
        except OSError:
            size = None  # gone, or a full disk: that is for its close to say
        note([folder], DOWNSTREAM, artifacts.file(written.path, size, None, times.now()))


current.before_leaving.append(left)


@atexit.register
def _close_all() -> None:
    """Close what the program leaves to be closed by its end, while there is still all that it takes to note it."""
    for file in list(_unclosed):
        file.close()


# -- files of this machine --------------------------------------------------------------------------------------------


def _is_url(url: Any) -> bool:
    """True of what names a file of another place."""
    return isinstance(url, str) and _URL.match(_without_scheme(url)) is not None


def _without_scheme(url: Any) -> Any:
    """The path of a file on this machine, as ``open`` takes it."""
    return _LOCAL.sub("", url) if isinstance(url, str) else url


def _noted(file: Any, folders: list[RunFolder], path: str, mode: str, buffering: int, newline: str | None) -> Any:
    """The same file, noted and watched as far as there is something to see."""
    there = os.fstat(file.fileno())
    if not stat.S_ISREG(there.st_mode):
        return file
    writes = not set(mode).isdisjoint("wax+")
    digest = digests.known(there)
    if not writes and there.st_size < digests.WORTH_KEEPING:
        digest = digests.of_open(file.fileno(), there)  # as quick as watching it
    if writes and there.st_size:
        digest = digests.of_file(path)[1]  # it may be gone as soon as something is written
    if not writes or there.st_size:
        note(folders, UPSTREAM, artifacts.file(path, there.st_size, digest, times.now()))
    if not writes and digest is not None:
        return file
    return _watched(file, folders, _Local(folders, path, there, writes), mode, buffering, newline)


class _Local(NamedTuple):
    """What a local file is closed with: it is noted as it is then."""

    folders: list[RunFolder]
    path: str
    opened: os.stat_result
    writes: bool

    def look(self, watched: Watched) -> Callable[[], None]:
        """Find out what is to be noted, while the file is still open; the noting is left to be done."""
        there = os.fstat(watched.fileno())
        if self.writes:
            if there.st_size and not watched.is_written and digests.is_same(there, self.opened):
                return lambda: None  # opened to be changed, and left as it was
            return lambda: self._note(DOWNSTREAM, there, self._digest(watched, there))
        if not digests.is_same(there, self.opened):
            return lambda: None  # somebody has changed it meanwhile: nobody knows what was read
        digest = watched.digest(there.st_size)
        if digest is not None:
            digests.keep(watched.fileno(), there, digest)
        return lambda: self._note(UPSTREAM, there, digest or self._read_again(there, large=False))

    def _digest(self, watched: Watched, there: os.stat_result) -> str | None:
        return watched.digest(there.st_size) or self._read_again(there, large=True)

    def _read_again(self, there: os.stat_result, *, large: bool) -> str | None:
        """The digest of the file, if it is still the one that was closed."""
        try:
            if digests.is_same(there, os.stat(self.path)):
                return digests.of_file(self.path, large=large)[1]
        except OSError:
            pass  # gone, or not to be read
        return None

    def _note(self, direction: str, there: os.stat_result, digest: str | None) -> None:
        if direction == DOWNSTREAM or digest is not None:
            note(self.folders, direction, artifacts.file(self.path, there.st_size, digest, times.now()))


def _watched(file: Any, folders: list[RunFolder], local: _Local, mode: str, buffering: int, newline: str | None) -> Any:
    """Put a watched layer below the layers of a file as ``open`` made it."""
    text = file if isinstance(file, io.TextIOWrapper) else None
    encoding = None if text is None else (text.encoding, text.errors, newline, text.line_buffering)
    buffered = file if text is None else text.detach()
    inner = buffered if isinstance(buffered, io.RawIOBase) else buffered.detach()
    made: Any = Watched(inner, inner.close, local.look)
    if buffered is not inner:
        made = type(buffered)(made, buffering if buffering > 1 else BUFFER)
    if encoding is not None:
        made = io.TextIOWrapper(made, *encoding)
        made.mode = mode
    elif buffered is not inner:
        made = Bytes(made)
    if local.writes:
        _unclosed[made] = _Written(folders, local.path)
    return made


# -- files elsewhere --------------------------------------------------------------------------------------------------


def _open_url(
    url: str,
    mode: str,
    buffering: int,
    encoding: str | None,
    errors: str | None,
    newline: str | None,
    options: dict[str, Any],
) -> Any:
    import fsspec

    opened = fsspec.open(url, mode.replace("t", "").replace("b", "") + "b", **options)
    remote = _Remote(current.folders(), _name(url, opened), opened, not set(mode).isdisjoint("wax+"))
    made: Any = Watched(opened.open(), opened.close, remote.look)
    if not remote.writes:
        note(remote.folders, UPSTREAM, artifacts.file(remote.url, None, None, times.now()))
    kind = io.BufferedRandom if "+" in mode else io.BufferedWriter if remote.writes else io.BufferedReader
    made = kind(made, buffering if buffering > 1 else BUFFER)
    return made if "b" in mode else io.TextIOWrapper(made, encoding or "utf-8", errors, newline, buffering == 1)


class _Remote(NamedTuple):
    """The same of a file elsewhere, which nobody fetches twice for its digest."""

    folders: list[RunFolder]
    url: str
    opened: Any
    writes: bool

    def look(self, watched: Watched) -> Callable[[], None]:
        """Nothing can be said before the file is closed: then it is there."""
        return lambda: self._note(watched) if self.folders else None

    def _note(self, watched: Watched) -> None:
        size = self._size()
        if os.path.isabs(self.url) and os.path.isfile(self.url):
            digest = digests.of_file(self.url, large=self.writes)[1]
        else:
            digest = None if size is None or self.opened.compression else watched.digest(size)
        artifact = artifacts.file(self.url, size, digest, times.now())
        note(self.folders, DOWNSTREAM if self.writes else UPSTREAM, artifact)

    def _size(self) -> int | None:
        try:
            size: int | None = self.opened.fs.info(self.opened.path)["size"]
        except Exception:  # noqa: BLE001 - a file system's own: it doesn't say, or the file is gone
            return None
        return size


def _name(url: str, opened: Any) -> str:
    """A URL as it is shown, without what is nobody's business; of a file of this machine the path."""
    protocol = opened.fs.protocol
    if "file" in ((protocol,) if isinstance(protocol, str) else protocol):
        return os.path.realpath(str(opened.path))
    return urls.shown(url)
