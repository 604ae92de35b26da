"""The bytes of a copy: every file read once, hashed as it is read, compared with what is stated, and read back."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

from localrun.api.moving.manifest import RECORD, Contents, Entry, recorded
from localrun.errors import IllegalTransitionError, ResultUnavailableError, SystemFailureError

if TYPE_CHECKING:
    from localrun.api.moving.places import Place
    from localrun.api.moving.progress import Progress
    from localrun.api.run import Run
    from localrun.model.record import Record

_CHUNK = 4 << 20
UID = re.compile(r"[A-Za-z0-9_-]{1,64}")  # it becomes part of a path, and may be anybody's


def copy_files(run: Run, source: Place, target: Place, record: Record, progress: Progress) -> tuple[Contents, bytes]:
    """Copy every file but the record; returns the contents with all digests, and the record as it is to be written."""
    contents = source.contents()
    progress.begin(f"copying run {run.name}", contents.size)
    stated = recorded(record)
    missing = stated.keys() - contents.files.keys()
    if missing:
        raise ResultUnavailableError(f"run {run.name}: {sorted(missing)[0]} is missing: it was not copied")
    made = {
        name: _copy_file(source, target, name, entry, stated.get(name), progress)
        for name, entry in contents.files.items()
        if name != RECORD
    }
    data = _content(source, RECORD)
    as_is = parsed(data)
    if as_is is None or as_is.get("lifecycle") != record["lifecycle"]:
        raise IllegalTransitionError(f"run {run.name} was started again meanwhile: it was not copied")
    made[RECORD] = Entry(len(data), hashlib.sha256(data).hexdigest())
    return contents._replace(files=made), data


def _copy_file(
    source: Place,
    target: Place,
    name: str,
    entry: Entry,
    stated: tuple[int, str] | None,
    progress: Progress,
) -> Entry:
    digest, size = hashlib.sha256(), 0
    with source.reading(name) as reading, target.writing(name, executable=entry.executable) as writing:
        while chunk := reading.read(_CHUNK):
            digest.update(chunk)
            writing.write(chunk)
            size += len(chunk)
            progress.add(len(chunk))
    found = Entry(size, digest.hexdigest(), entry.executable)
    for expected in (stated, (entry.size, entry.sha256) if entry.sha256 else None):
        if expected not in (None, (found.size, found.sha256)):
            what = f"{size} of {expected[0]} bytes" if expected and size != expected[0] else "its digest is another"
            raise ResultUnavailableError(f"{source.url}/{name} is cut short or altered ({what}): it was not copied")
    return found


def check(target: Place, made: Contents, progress: Progress) -> None:
    """Read back what was written. SystemFailureError if it is anything else."""
    progress.begin("reading back what was copied", made.size)
    for name, entry in made.files.items():
        digest, size = hashlib.sha256(), 0
        with target.reading(name) as reading:
            while chunk := reading.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
                progress.add(len(chunk))
        if (size, digest.hexdigest()) != (entry.size, entry.sha256):
            raise SystemFailureError(f"{target.url}/{name} reads otherwise than it was written: the copy was given up")


def _content(place: Place, name: str) -> bytes:
    pieces = []
    with place.reading(name) as file:
        while chunk := file.read(_CHUNK):
            pieces.append(chunk)
    return b"".join(pieces)


def parsed(data: bytes) -> Record | None:
    """A record from its text; None if it is none, or cut short."""
    try:
        record: Any = json.loads(data)
        return record if {"name", "uid"} <= record.keys() and UID.fullmatch(str(record["uid"])) else None
    except (ValueError, AttributeError):
        return None
