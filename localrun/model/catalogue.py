"""The artifacts that a run has noted: those in its record, and those in the journal beside it.

The end of a run takes the journal into the record, unless there are so many that every reader of the record would feel
it, or somebody still looks at what the run has opened, and holds the journal's lock for that: then they stay beside
it, and `of` gives both.
"""

from __future__ import annotations

import json
import os
import time

from localrun import files
from localrun.model.artifacts import DIRECTIONS, is_one, thing
from localrun.model.status import RunStatus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from localrun.model.folder import RunFolder

_MOST_IN_RECORD = 1 << 18  # bytes of the journal, about a thousand artifacts


def take_in(folder: RunFolder, record: dict[str, Any]) -> bool:
    """Put what the journal says into the record; again changes nothing.

    True if the record has it all then: `forget` the journal when that is written.
    """
    if not _is_to_be_taken_in(folder):
        return False
    journal = _journal(folder)
    for direction in DIRECTIONS:
        field = f"{direction}_artifacts"
        record[field] = _each_once([*record[field], *journal[direction]])
    return True


def forget(folder: RunFolder) -> None:
    """Remove the journal, of which the record has all."""
    try:
        os.unlink(folder.artifacts)
    except OSError:
        pass  # what it says is in the record; that it stays changes nothing


def settle(folder: RunFolder, within: float = float("inf")) -> bool:
    """Wait until nobody looks any more at what an ended run has opened; False if that takes longer, in seconds.

    What others may hold for ever isn't waited for.
    """
    deadline, pause = time.monotonic() + within, 0.001
    while _is_looked_at(folder):
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause)
        pause = min(2 * pause, 0.05)
    return True


def of(folder: RunFolder, record: Mapping[str, Any], direction: str, within: float = 60.0) -> list[dict[str, Any]]:
    """All artifacts of a run in this direction, each once: of one that is at work those so far.

    Those of an ended run are waited for, so many seconds at most.
    """
    known = record.get(f"{direction}_artifacts") or []
    there = _with_journal(folder, record.get("uid"))
    if there is None:
        return list(known)
    if RunStatus.from_string(record.get("status", "")).is_terminal() and not settle(there, within):
        import warnings

        text = f"the files that run {record.get('name')} opened are still being looked at: these are those so far"
        warnings.warn(text, RuntimeWarning, stacklevel=2)
    return _each_once([*known, *_journal(there)[direction]])


def _with_journal(folder: RunFolder, uid: str | None) -> RunFolder | None:
    """Where the run's journal is, if it has one: in its place, or, if another run has taken that, in the archive."""
    places = folder, folder.archived(str(uid))
    return next((each for each in places if os.path.exists(each.artifacts) and _is_of(each, uid)), None)


def _is_of(folder: RunFolder, uid: str | None) -> bool:
    try:
        return uid in (None, files.read_json(folder.record)["uid"])
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return True  # without a record that can be read it is nobody else's


def _is_looked_at(folder: RunFolder) -> bool:
    try:
        return os.stat(folder.artifacts).st_uid == os.geteuid() and files.is_locked(folder.artifacts)
    except OSError:
        return False


def _is_to_be_taken_in(folder: RunFolder) -> bool:
    try:
        return os.stat(folder.artifacts).st_size <= _MOST_IN_RECORD and not files.is_locked(folder.artifacts)
    except OSError:
        return False


def _each_once(artifacts: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every version of every thing once; one without a digest says nothing that one with it doesn't.

    What is no artifact, which a record from elsewhere may have, is left out: it must not keep a run from its end.
    """
    things: dict[tuple[str, str], dict[str | None, dict[str, Any]]] = {}
    for artifact in filter(is_one, artifacts):
        versions = things.setdefault(thing(artifact), {})
        if versions.setdefault(artifact["digest"], artifact)["size"] is None:
            versions[artifact["digest"]] = artifact
    return [
        artifact
        for versions in things.values()
        for digest, artifact in versions.items()
        if digest is not None or len(versions) == 1
    ]


def _journal(folder: RunFolder) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {direction: [] for direction in DIRECTIONS}
    try:
        lines = files.read(folder.artifacts).splitlines()
    except OSError:
        return found  # whatever else lies there doesn't keep a run from its end
    for line in lines:
        for direction, artifact in _entries(line):
            found[direction].append(artifact)
    return found


def _entries(line: bytes) -> list[tuple[str, dict[str, Any]]]:
    """What a line says; nothing if it is empty, or cut short by a full disk or a kill."""
    try:
        return [(direction, artifact) for direction, artifact in json.loads(line) if _is_entry(direction, artifact)]
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return []


def _is_entry(direction: Any, artifact: Any) -> bool:
    return direction in DIRECTIONS and is_one(artifact)
