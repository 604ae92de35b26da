"""What a copy or an archive consists of: every file with its size and digest, the links among them, the empty folders.

On a remote it lies beside the files, as ``.manifest.json``; what it names is what the copy is. A folder on this machine
has none: there runs go on changing, and what is there is looked at.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Container, Iterable, Mapping
from typing import Any, NamedTuple

from localrun.errors import NotARunError
from localrun.model.pickles import ledger

MANIFEST = ".manifest.json"
MARKER = ".copying"  # there from a remote copy's first file until its last is written
RECORD = "config.json"

_SCHEMA = 1
# Locks, pipes and marks mean something only where they are; an environment only where it was installed.
_OF_THIS_PLACE = frozenset({".lock", ".connected", ".artifacts.jsonl", ".untrusted", MANIFEST, MARKER, "venv"})
_WRITTEN_IN = frozenset({"", "logs", "telemetry"})  # where we replace files, by temporary ones


class Entry(NamedTuple):
    """A file: its size in bytes, its SHA-256 in hex if that is known, and whether it can be executed."""

    size: int
    sha256: str | None = None
    executable: bool = False


class Contents(NamedTuple):
    """The files of a run folder, the links to other parts of it, and its empty folders, by their paths inside it.

    ``left_out`` is what it can't have, where that was looked for: pipes, say, and links that lead elsewhere.
    """

    files: Mapping[str, Entry]
    links: Mapping[str, str] = {}
    folders: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return sum(entry.size or 0 for entry in self.files.values())  # not every server says

    @property
    def has_digests(self) -> bool:
        """True if it is a manifest's, and no mere listing."""
        return RECORD in self.files and self.files[RECORD].sha256 is not None

    def with_file(self, name: str, entry: Entry) -> Contents:
        """The same with a file added, or replaced."""
        return self._replace(files={**self.files, name: entry})

    def without(self, name: str) -> Contents:
        """The same without a file."""
        return self._replace(files={each: entry for each, entry in self.files.items() if each != name})

    def encode(self) -> bytes:
        """The manifest's text."""
        files = {name: entry._asdict() for name, entry in self.files.items()}
        fields = {"schema": _SCHEMA, "files": files, "links": dict(self.links), "folders": self.folders}
        return json.dumps(fields, indent=1).encode()


def decode(data: bytes, where: str) -> Contents:
    """The contents that a manifest names. NotARunError if it is damaged, or names anything outside the folder."""
    try:
        fields: Any = json.loads(data)
        files = {str(name): Entry(**entry) for name, entry in fields["files"].items()}
        links = {str(name): str(target) for name, target in fields["links"].items()}
        found = Contents(files, links, tuple(map(str, fields["folders"])))
        sizes = all(type(entry.size) is int and entry.size >= 0 for entry in files.values())
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise NotARunError(f"{where}: its manifest is damaged ({error})") from None
    outside = misplaced(files, links, found.folders)
    outside += [name for name in (*files, *links, *found.folders) if not is_copied(name)]
    if not sizes or outside:
        raise NotARunError(f"{where}: its manifest names what can't be there: {outside[:3]}")
    return found


def misplaced(files: Iterable[str], links: Mapping[str, str], folders: Iterable[str] = ()) -> list[str]:
    """What of these can't be in a folder: what leads out of it, or lies behind a link or a file."""
    no_folders = {*files, *links}
    names = [*no_folders, *folders]
    outside = [name for name in names if not is_inside(name) or _is_behind(name, no_folders)]
    return outside + [name for name, target in links.items() if not leads_inside(name, target)]


def is_inside(name: str) -> bool:
    """True if a path is one inside a folder, as written: relative, without ``..``."""
    parts = name.split("/")
    return "\0" not in name and all(part not in ("", ".", "..") for part in parts)


def leads_inside(name: str, target: str) -> bool:
    """True if a link of that name leads to a path inside the folder, as written: relative, ``..`` only at its start."""
    there = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
    return target == posixpath.normpath(target) and is_inside(there)


def _is_behind(name: str, others: Container[str]) -> bool:
    """True if one of the folders in a path is one of these."""
    return any(name[:end] in others for end, letter in enumerate(name) if letter == "/")


def is_copied(name: str) -> bool:
    """True if what has that path inside a run folder belongs to a copy: what of ours is being written, say, doesn't."""
    where, _, base = name.rpartition("/")
    is_temporary = where.partition("/")[0] in _WRITTEN_IN and base.startswith(".") and base.endswith(".tmp")
    return name.partition("/")[0] not in _OF_THIS_PLACE and not is_temporary


def recorded(record: Mapping[str, Any]) -> dict[str, tuple[int, str]]:
    """The sizes and digests that a run's record states of its files. NotARunError if it is damaged there."""
    try:
        return {name: (int(stored.size), str(stored.sha256)) for name, stored in ledger.entries(dict(record))}
    except (TypeError, KeyError, ValueError, AttributeError, IndexError):
        what = "what it was given or returned is damaged"
        raise NotARunError(f"config.json is not the record of a run: {what}") from None
