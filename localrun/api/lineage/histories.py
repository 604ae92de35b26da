"""What all runs have read, made and used, from one look at their records; and who made exactly what another one read.

Most runs of a large folder have no artifacts: of those nothing is decoded.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from localrun import files, settings
from localrun.errors import LocalrunError
from localrun.model import artifacts, catalogue
from localrun.model import record as records
from localrun.model.folder import ARCHIVE, RunFolder
from localrun.model.record import Record

_WAIT_S = 1.0  # for each run whose files are still being looked at
_NOTHING = (b'"upstream_artifacts": [],', b'"downstream_artifacts": [],')
_UID = b'"uid": "'

Artifact = dict[str, Any]


class History(NamedTuple):
    """A run with its artifacts."""

    uid: str
    name: str
    status: str
    path: str
    read: list[Artifact]
    made: list[Artifact]
    used: list[Artifact]


class Made(NamedTuple):
    """A run that made what is asked for, or, if ``changed``, another version of it."""

    run: History
    changed: bool


class Histories:
    """The histories of the runs in the runs folder and its archive, and of the run ``besides`` them."""

    def __init__(self, besides: RunFolder) -> None:
        self._places: dict[str, str] = {}
        self._known: dict[str, History] = {}
        for run in [*_all(self._places), _history(besides)]:
            if run is not None:
                self._known[run.uid] = run
                self._places[run.uid] = run.path
        self._made: dict[str, list[tuple[Artifact, History]]] = {}
        self._read: dict[str, list[tuple[Artifact, History]]] = {}
        self._users: dict[str, list[History]] = {}
        for run in self._known.values():
            for artifact in run.made:
                self._made.setdefault(artifact["url"], []).append((artifact, run))
            for artifact in run.read:
                self._read.setdefault(artifact["url"], []).append((artifact, run))
            for artifact in run.used:
                self._users.setdefault(artifact["uid"], []).append(run)

    def of(self, uid: str) -> History | None:
        """The history of the run with that uid."""
        if uid not in self._known and uid in self._places:
            found = _history(RunFolder(self._places[uid], uid))
            if found is not None:
                self._known[uid] = found
        return self._known.get(uid)

    def used_by(self, artifact: Artifact) -> History:
        """The run that another one has used; if there is none any more, what is known of it."""
        found = self.of(artifact["uid"]) or _history(RunFolder(artifact["url"], artifact["uid"]))
        return found or History(artifact["uid"], artifact["name"], "", artifact["url"], [], [], [])

    def users_of(self, run: History) -> list[History]:
        """The runs that have used a run."""
        return self._users.get(run.uid, [])

    def makers_of(self, read: Artifact) -> list[Made]:
        """The runs that made exactly the file that was read, before that; or the last that made another version."""
        before = [(made, run) for made, run in self._made.get(read["url"], []) if made["time"] <= read["time"]]
        exact = [Made(run, False) for made, run in before if _is_same(made, read)]
        if exact or not before:
            return exact
        _, last = max(before, key=lambda each: str(each[0]["time"]))
        return [Made(last, True)]

    def readings_of(self, run: History) -> Iterator[tuple[Artifact, History]]:
        """What runs have read that this one made, if only another version of it, and which runs."""
        for url in dict.fromkeys(made["url"] for made in run.made):
            for read, reader in self._read.get(url, []):
                if any(maker.run.uid == run.uid for maker in self.makers_of(read)):
                    yield read, reader

    def version(self, artifact: Artifact) -> Artifact:
        """The artifact; one without a digest with that of the only file of its place and size that has one."""
        if artifact["digest"] is not None:
            return artifact
        there = [*self._made.get(artifact["url"], []), *self._read.get(artifact["url"], [])]
        found = {each["digest"] for each, _ in there if each["digest"] and each["size"] == artifact["size"]}
        return artifact | {"digest": found.pop()} if len(found) == 1 else artifact


def _is_same(made: Artifact, read: Artifact) -> bool:
    if made["digest"] is None or read["digest"] is None:
        return None in (made["size"], read["size"]) or bool(made["size"] == read["size"])
    return bool(made["digest"] == read["digest"])


def _all(places: dict[str, str]) -> Iterator[History | None]:
    """The runs with artifacts in the runs folder and in its archive; ``places`` gets where each of the others is."""
    runs = settings.runs_dir()
    for parent in (f"{runs}/{ARCHIVE}", runs):  # a run that is archived meanwhile is seen once at least
        try:
            names = os.listdir(parent)
        except OSError:
            continue
        for name in names:
            if name.startswith("."):
                continue
            folder = RunFolder(f"{parent}/{name}")
            try:
                data = files.read(folder.record)
            except OSError:
                continue
            if all(each in data for each in _NOTHING) and not os.path.exists(folder.artifacts):
                start = data.find(_UID) + len(_UID)
                places[data[start : data.find(b'"', start)].decode(errors="replace")] = folder.path
                continue
            yield _decoded(folder, data)


def _decoded(folder: RunFolder, data: bytes) -> History | None:
    try:
        return _made_of(folder, json.loads(data))
    except (ValueError, RecursionError, TypeError, LookupError, AttributeError):
        return None  # whose record can't be read, has no history


def _history(folder: RunFolder) -> History | None:
    try:
        return _made_of(folder, records.read(folder))
    except (LocalrunError, OSError, TypeError, LookupError, AttributeError):
        return None


def _made_of(folder: RunFolder, record: Record) -> History:
    # One record that says nonsense, which came from elsewhere, say, is not to spoil the lineage of all others.
    upstream, downstream = (
        [each for each in catalogue.of(folder, record, direction, _WAIT_S) if artifacts.is_one(each)]
        for direction in artifacts.DIRECTIONS
    )
    return History(
        str(record["uid"]), str(record["name"]), records.status(record).value, folder.path,
        read=[each for each in upstream if each["kind"] == artifacts.FILE],
        made=[each for each in downstream if each["kind"] == artifacts.FILE],
        used=[each for each in upstream if each["kind"] == artifacts.RUN],
    )  # fmt: skip
