"""The artifacts of a run: what it read (upstream) and what it made (downstream).

While a run is at work they are in a journal in its folder, which any of its processes may append lines to: what becomes
of it, and how it is read, is in `catalogue`. An artifact is a mapping with ``kind`` ("file" or "run"), ``url``,
``size`` in bytes, ``digest`` ("sha256:…") and ``time``; a run's has its ``name`` and ``uid`` too. Size and digest are
None where they aren't known.
"""

from __future__ import annotations

import os

from localrun import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from localrun.model.folder import RunFolder

DIRECTIONS = UPSTREAM, DOWNSTREAM = "upstream", "downstream"
FILE, RUN = "file", "run"

_FIELDS = {"kind", "url", "size", "digest", "time"}


def file(url: str, size: int | None, digest: str | None, time: str) -> dict[str, Any]:
    """A file as an artifact; the ``time`` is that of its reading or making."""
    return {"kind": FILE, "url": url, "size": size, "digest": digest, "time": time}


def append(folder: RunFolder, artifacts: Iterable[tuple[str, dict[str, Any]]]) -> None:
    """Note artifacts of a run that is at work, each with its direction; nothing if the run's folder is gone."""
    try:
        fd = open_journal(folder)
    except FileNotFoundError:
        return
    try:
        append_to(fd, artifacts)
    finally:
        os.close(fd)


def open_journal(folder: RunFolder) -> int:
    """The descriptor of a run's journal, to append to; FileNotFoundError if the run's folder is gone."""
    return os.open(folder.artifacts, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def append_to(journal: int, artifacts: Iterable[tuple[str, dict[str, Any]]]) -> None:
    """The same as `append`, into a journal that is open, wherever the run's folder has been moved since."""
    # On a line of its own whatever a full disk has left of the last one.
    entries = ", ".join([_encoded(direction, artifact) for direction, artifact in artifacts])
    files.write_all(journal, f"\n[{entries}]\n".encode())


def is_one(artifact: Any) -> bool:
    """True for what has the fields of an artifact, whoever wrote it."""
    if not isinstance(artifact, dict) or not artifact.keys() >= _FIELDS:
        return False
    texts = [artifact["kind"], artifact["url"], artifact["time"], artifact["digest"] or ""]
    if artifact["kind"] == RUN:
        texts += [artifact.get("name"), artifact.get("uid")]
    return all(isinstance(text, str) for text in texts) and isinstance(artifact["size"], int | None)


def thing(artifact: Mapping[str, Any]) -> tuple[str, str]:
    """What an artifact is a version of: a file's place, or a run, wherever that has moved to."""
    return artifact["kind"], artifact.get("uid") or artifact["url"]


def _encoded(direction: str, artifact: Mapping[str, Any]) -> str:
    """An entry as JSON. A plain file needs no encoder, whose import is a third of a short process's start."""
    url, size, digest = artifact["url"], artifact["size"], artifact["digest"]
    is_ordinary = url.isascii() and url.isprintable() and '"' not in url and "\\" not in url
    if artifact.keys() != _FIELDS or artifact["kind"] != FILE or type(size) is not int or not digest or not is_ordinary:
        import json

        return json.dumps([direction, artifact])
    what = f'"kind": "file", "url": "{url}", "size": {size}, "digest": "{digest}", "time": "{artifact["time"]}"'
    return f'["{direction}", {{{what}}}]'
