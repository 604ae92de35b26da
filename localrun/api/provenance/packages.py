"""The installed distributions that this process can import, by name and version, without loading anything for it.

The folders' listings say it: a distribution is installed together with a ``*.dist-info`` or ``*.egg-info`` whose name
has both. A listing is kept as long as no folder has changed.
"""

from __future__ import annotations

import os
import sys
import time

from localrun import files

_TICK_NS = 100_000_000  # a change within that time before a listing may have been made behind it

_kept: tuple[tuple[object, ...], dict[str, str]] | None = None


def installed() -> dict[str, str]:
    """Versions by name, the name in lower case with ``-`` for ``_`` and ``.``; of two of a name, that which imports."""
    global _kept
    asked_at = time.time_ns()
    folders = {entry: _look(entry) for entry in _folders()}
    looks = tuple(folders.items())
    if _kept is not None and _kept[0] == looks:
        return _kept[1]
    found: dict[str, str] = {}
    for folder, look in folders.items():
        for entry in _entries(folder) if look else ():
            name, version = _distribution(folder, entry)
            found.setdefault(name, version)
    found = dict(sorted(found.items()))
    latest = max((look[0] for look in folders.values() if look is not None), default=0)
    _kept = (looks, found) if latest < asked_at - _TICK_NS else None
    return found


def _folders() -> list[str]:
    """Where installed things are imported from: the program's own folder, and the working folder, are none of these."""
    program = getattr(sys.modules.get("__main__"), "__file__", None)
    own = {"", ".", *([os.path.dirname(os.path.abspath(program))] if program else [])}
    try:
        own.add(os.getcwd())
    except FileNotFoundError:
        pass
    return [entry for entry in dict.fromkeys(sys.path) if isinstance(entry, str) and entry not in own]


def _look(folder: str) -> tuple[int, int] | None:
    try:
        seen = os.stat(folder)
    except OSError:
        return None
    return seen.st_mtime_ns, seen.st_ino


def _entries(folder: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if name.endswith((".dist-info", ".egg-info")))
    except OSError:  # an archive, say
        return []


def _distribution(folder: str, entry: str) -> tuple[str, str]:
    """Name and version by what a distribution's folder is called; one for development says its version inside."""
    stem, kind = os.path.splitext(entry)
    if kind == ".egg-info" and "-py" in stem:
        stem = stem.rpartition("-py")[0]
    name, dash, version = stem.rpartition("-")
    if not dash:
        name, version = stem, _version_inside(f"{folder}/{entry}/PKG-INFO")
    return name.lower().replace("_", "-").replace(".", "-"), version


def _version_inside(path: str) -> str:
    try:
        lines = files.read(path).decode(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("Version:")), "")
