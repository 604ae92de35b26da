"""What a record and a provenance consist of, for those that somebody else may have written: whatever reads them later
takes their fields to be what they are in localrun's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# A pattern is a type or several; a list of one pattern, for lists of that; or a mapping, for mappings that, where they
# have these fields, have them so; in a list they have them all. A mapping's "*" is for all fields, and "?" says that it
# may be missing as a whole.
_TEXT: Any = str | None
_WHOLE: Any = int | None
_NUMBER: Any = int | float | None
_OPTIONAL = {"?": None}

_PHASE = {"resumption_index": int, "reason": _TEXT}
_ATTEMPT = {"index": int, "reason": _TEXT, "message": _TEXT, "exit_code": _WHOLE, "signal": _TEXT}
_GPU = {"index": int | str | None, "uuid": str, "name": str}
_TEXTS = ("reason", "message", "signal", "fn_name", "creator", "creation_stacktrace", "host", "cwd", "error",
          "error_traceback", "driver")  # fmt: skip

RECORD: Any = {
    **dict.fromkeys(_TEXTS, _TEXT),
    "run_type": str, "exit_code": _WHOLE, "failed_rank": _WHOLE, "first_resumption": int, "cmds": [str],
    "python": {"executable": str, "version": str}, "config": {}, "metadata": {}, "submission": {}, "given": {"*": {}},
    "request": {"cpus": _NUMBER, "memory": _WHOLE, "gpus": _WHOLE, "gpu_memory": _WHOLE, "gpu_type": _TEXT,
                "nproc_per_node": _WHOLE, "priority": _TEXT},
    "fingerprints": {**_OPTIONAL, "*": _TEXT}, "gpus": [_GPU], "lifecycle": [_PHASE], "resumptions": [_ATTEMPT],
    "events": [{"type": str, "message": str}],
}  # fmt: skip
PROVENANCE: Any = {
    "argv": [str], "cwd": _TEXT, "localrun": _TEXT, "packages": {**_OPTIONAL, "*": str},
    "python": {**_OPTIONAL, "*": _TEXT}, "machine": {**_OPTIONAL, "*": str | int | None},
    "git": {**_OPTIONAL, **dict.fromkeys(("root", "folder", "commit", "branch", "diff", "problem"), _TEXT),
            "diff_size": _WHOLE, "untracked": [str]},
}  # fmt: skip


def misfit(value: Any, pattern: Any, place: str = "") -> str | None:
    """Where in a value the first thing is that is not as the pattern says, ``python.version``, say; None if none is."""
    if isinstance(pattern, list):
        if value is None:
            return None
        if not isinstance(value, list):
            return place
        needed = pattern[0].keys() if isinstance(pattern[0], Mapping) else set()
        return _first(
            misfit(each, pattern[0], inside) or (inside if needed and needed - each.keys() else None)
            for inside, each in ((f"{place}[{index}]", each) for index, each in enumerate(value))
        )
    if isinstance(pattern, Mapping):
        if value is None and "?" in pattern:
            return None
        if not isinstance(value, dict):
            return place
        fields = {field: value[field] for field in (value if "*" in pattern else pattern.keys() & value.keys())}
        return _first(
            misfit(each, pattern.get(field, pattern.get("*")), f"{place}.{field}".lstrip("."))
            for field, each in fields.items()
        )
    return None if isinstance(value, pattern) else place


def _first(places: Any) -> str | None:
    return next((place for place in places if place is not None), None)
