"""What becomes an artifact of the runs that the asking code is part of: the files it opens, the runs it uses.

Owns what is noted and when; where it is kept is `model.artifacts`'.
"""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from localrun import files
from localrun.api.tracing import current
from localrun.errors import IllegalTransitionError, RunConfigError
from localrun.model import artifacts, digests, times, urls
from localrun.model import record as records
from localrun.model.folder import RunFolder
from localrun.model.record import Record

_used: set[tuple[str, str, bool]] = set()  # run, run that it used, whether with its result: noted by this process


def note(folders: Iterable[RunFolder], direction: str, artifact: dict[str, Any]) -> None:
    """Note an artifact of those of these runs that are still open here. What can't be written is no error, but told."""
    for folder in folders:
        if not current.is_open(folder):
            continue
        try:
            artifacts.append(folder, [(direction, artifact)])
        except OSError as error:
            text = f"{artifact['url']} could not be noted as an artifact of the run in {folder.path}: {error}"
            warnings.warn(text, RuntimeWarning, stacklevel=2)


def note_use(folders: Sequence[RunFolder], used: RunFolder, record: Record) -> None:
    """Note that code in these runs has asked another run for what came of it; a run that asks itself uses nothing."""
    stored, uid = record.get("result"), str(record["uid"])
    for folder in folders:
        key = (folder.uid or folder.path, uid, stored is not None)
        if key in _used or uid == folder.uid or used.path == folder.path:
            continue
        artifact = artifacts.file(used.path, *_result(stored), times.now())
        note([folder], artifacts.UPSTREAM, artifact | {"kind": artifacts.RUN, "name": record["name"], "uid": uid})
        _used.add(key)


def _result(stored: Any) -> tuple[int | None, str | None]:
    """Size and digest of a result, as the record has it; of several ranks' results there is no one digest."""
    if isinstance(stored, list):
        return sum(each["size"] for each in stored), None
    return (None, None) if stored is None else (stored["size"], f"sha256:{stored['sha256']}")


def log(folder: RunFolder, path: str | os.PathLike[str]) -> None:
    """Note a file that a run has made, or every file in a folder; the run has not ended.

    Raises:
        IllegalTransitionError: it has. OSError: there is nothing at ``path``, or it can't be read. RunConfigError: it
        is no path of this machine's.
    """
    place = os.path.realpath(files.absolute(path, "path"))
    if not os.path.exists(place) and "://" in os.fsdecode(path):
        url = urls.shown(os.fsdecode(path))
        raise RunConfigError(f"path: {url} is a URL: write the file through localrun.open, which notes it")
    is_folder = stat.S_ISDIR(os.stat(place).st_mode)
    found = [_made(file) for file in (_inside(place) if is_folder else [place])]
    with records.held(folder):  # its end would have to wait, and takes it in
        record = records.read(folder)
        if records.status(record).is_terminal():
            raise IllegalTransitionError(f"run {record['name']} has ended {record['status']}: its files don't change")
        artifacts.append(folder, [(artifacts.DOWNSTREAM, artifact) for artifact in found])


def _made(path: str) -> dict[str, Any]:
    return artifacts.file(path, *digests.of_file(path, large=True), times.now())


def _inside(folder: str) -> list[str]:
    """The regular files in a folder and its folders; links are not followed."""
    found = [os.path.join(where, name) for where, _, names in os.walk(folder) for name in sorted(names)]
    return sorted(path for path in found if stat.S_ISREG(os.lstat(path).st_mode))
