"""What is not the same about two provenances: of two runs, or of a run and of what is here."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

_PYTHON = {"python": "version", "implementation": "implementation"}
_PYTHONS = re.compile(r"python(3(\.\d+)?)?")
_MACHINE = ("host", "kernel", "architecture", "cpu", "cpus", "usable_cpus", "memory")


class Difference(NamedTuple):
    """A field, and what it is for the one and for the other; None is not known, or none."""

    field: str
    one: Any
    other: Any


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[Difference]:
    """What differs; nothing is said of a part (of git, packages, …) that one of them doesn't have."""
    return [Difference(*row) for row in _compared(one, other) if row[1] != row[2]]


def _compared(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    if one.get("git") and other.get("git"):
        yield from _of_git(one["git"], other["git"])
    if one.get("python") and other.get("python"):
        for field, key in _PYTHON.items():
            yield field, one["python"].get(key), other["python"].get(key)
        ours, theirs = (each["python"].get("executable") for each in (one, other))
        yield "interpreter", ours, ours if _is_same_interpreter(ours, theirs) else theirs
    if one.get("machine") and other.get("machine"):
        for key in _MACHINE:
            yield key.replace("_", " "), one["machine"].get(key), other["machine"].get(key)
    if one.get("localrun") and other.get("localrun"):
        yield "localrun", one["localrun"], other["localrun"]
    yield "GPUs", gpu_names(one), gpu_names(other)
    yield "driver", one.get("driver"), other.get("driver")
    yield "image id", one.get("image_id"), other.get("image_id")
    if one.get("packages") is not None and other.get("packages") is not None:
        ours, theirs = one["packages"], other["packages"]
        for name in sorted({*ours, *theirs}):
            yield f"package {name}", ours.get(name), theirs.get(name)


def _is_same_interpreter(one: Any, other: Any) -> bool:
    """True of an environment's ``python`` and ``python3``, say, which are names of one file."""
    folders = {os.path.dirname(str(each)) for each in (one, other)}
    return len(folders) == 1 and all(_PYTHONS.fullmatch(os.path.basename(str(each))) for each in (one, other))


def gpu_names(provenance: Mapping[str, Any]) -> str | None:
    """The names of a run's GPUs, as "2 x NVIDIA H100"."""
    names = [gpu["name"] for gpu in provenance.get("gpus") or ()]
    return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names)) or None


def _of_git(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for field in ("commit", "branch"):
        yield field, one.get(field) or one.get("problem"), other.get(field) or other.get("problem")
    if one.get("diff") is None and other.get("diff") is None:
        yield "diff", _left_out(one), _left_out(other)
    else:
        ours, theirs = changed_files(one.get("diff") or ""), changed_files(other.get("diff") or "")
        for path in sorted({*ours, *theirs}):
            if ours.get(path) != theirs.get(path):
                yield f"diff {path}", _size(ours.get(path)), _size(theirs.get(path))
    ours_alone, theirs_alone = one.get("untracked") or [], other.get("untracked") or []
    common = set(ours_alone) & set(theirs_alone)
    yield "untracked", _listed(ours_alone, common), _listed(theirs_alone, common)


def _left_out(git: Mapping[str, Any]) -> str | None:
    size = git.get("diff_size")
    return f"{size} bytes, left out" if size else None


def _listed(names: list[str], common: set[str]) -> str | None:
    return ", ".join(name for name in names if name not in common) or None


def changed_files(diff: str) -> dict[str, str]:
    """What a diff says of each file that it changes."""
    found = {}
    for part in ("\n" + diff.removesuffix("\n")).split("\ndiff --git ")[1:]:
        title, _, body = part.partition("\n")
        found[_path(title)] = body
    return found


def _path(title: str) -> str:
    """The file that a part is about: ``a/x b/x``, both the same."""
    half = title[: len(title) // 2]
    return half.strip('"').removeprefix("a/")


def _size(part: str | None) -> str | None:
    """A part of a diff in short, other parts differently."""
    if part is None:
        return None
    import hashlib

    lines = part.split("\n")
    added = sum(line.startswith("+") and not line.startswith("+++ ") for line in lines)
    removed = sum(line.startswith("-") and not line.startswith("--- ") for line in lines)
    digest = hashlib.sha256(part.encode("utf-8", "surrogateescape")).hexdigest()
    return f"+{added} -{removed} ({digest[:8]})"
