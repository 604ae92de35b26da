"""The artifacts of a run: what it read (upstream) and what it made (downstream).

While a run is at work they are lines of a journal in its folder, which any of its processes may append to and none can
half write; its end takes them into the record. An artifact is a mapping with ``kind`` ("file" or "run"), ``url``,
``size`` in bytes, ``digest`` ("sha256:…") and ``time``; size and digest are None where they aren't known.
"""

from __future__ import annotations

import json
import os

from localrun import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from localrun.model.folder import RunFolder
    from localrun.model.record import Record

DIRECTIONS = UPSTREAM, DOWNSTREAM = "upstream", "downstream"


def append(folder: RunFolder, artifacts: Iterable[tuple[str, dict[str, Any]]]) -> None:
    """Note artifacts of a run that is at work, each with its direction; nothing if the run's folder is gone."""
    lines = b"".join(json.dumps([direction, artifact]).encode() + b"\n" for direction, artifact in artifacts)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(folder.artifacts, flags, 0o600)
    except FileNotFoundError:
        return
    try:
        files.write_all(fd, lines)
    finally:
        os.close(fd)


def take_in(folder: RunFolder, record: Record) -> None:
    """Put what the journal says into the record; again changes nothing. `forget` it when the record is written."""
    known = {direction: {_key(each) for each in record[f"{direction}_artifacts"]} for direction in DIRECTIONS}
    for direction, artifact in _journal(folder):
        if _key(artifact) not in known[direction]:
            known[direction].add(_key(artifact))
            record[f"{direction}_artifacts"].append(artifact)


def forget(folder: RunFolder) -> None:
    """Remove the journal: the record has it all."""
    files.remove(folder.artifacts)


def _journal(folder: RunFolder) -> list[tuple[str, dict[str, Any]]]:
    try:
        lines = files.read(folder.artifacts).splitlines()
    except FileNotFoundError:
        return []
    return [entry for entry in map(_entry, lines) if entry is not None]


def _entry(line: bytes) -> Any:
    """A line's entry; None if a full disk or a kill has cut it short."""
    try:
        return json.loads(line)
    except ValueError:
        return None


def _key(artifact: dict[str, Any]) -> tuple[Any, ...]:
    return artifact["kind"], artifact["url"], artifact["digest"]
