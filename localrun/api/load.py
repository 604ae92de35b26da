"""``localrun.run``: the factory that gives a run by its name or folder, or a new one to be entered (runhouse)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from localrun.api import submit
from localrun.api.run import Run
from localrun.api.tracing.block import options
from localrun.errors import NotARunError

_HERE = (None, "here", "file")


def run(
    name: str | None = None,
    log_dest: str = "file",
    path: str | os.PathLike[str] | None = None,
    system: Any = None,
    data_config: Mapping[str, Any] | None = None,
    load: bool = True,
    dryrun: bool = False,
    *,
    overwrite: bool = False,
    trace_files: bool | Sequence[str | os.PathLike[str]] = False,
    trust: bool = False,
    **fields: Any,
) -> Run:
    """The run in the folder ``path``, or of that ``name``; if there is none of the name, a new one to be entered.

    ``with localrun.run(name="prep") as run:`` traces a block of code, see `localrun.Run`, whose arguments the rest are.
    Until it is entered nothing is created. ``load=False`` doesn't look whether the run exists.

    ``path`` may be a URL (``s3://bucket/run``), or a path on another ``system`` of fsspec's, which ``data_config`` goes
    to: then a run must be there. What others can have written is loaded, started and cloned only with ``trust``.

    Raises:
        RunNotFoundError: ``path`` alone is given, and there is no such folder (404).
        NotARunError: the folder is no run folder; the message says what is missing (400).
        SystemFailureError: the system can't be reached (503).
    """
    if load and _is_elsewhere(system, path):
        options(log_dest, None, overwrite, dryrun, trace_files, **fields)  # what no run takes is refused there, too
        return _load(name, path, system, data_config, trust)
    asked = options(log_dest, system, overwrite, dryrun, trace_files, data_config=data_config, **fields)
    if path is not None and name is None and load:
        there: Run | None = Run.load(path, trust=trust)
    else:
        there = _find(name, path) if load and name is not None else None
    if there is not None:
        there._trusted = trust
        there._options = asked
        return there
    return Run._to_enter(name, path, asked)


def _find(name: str, path: str | os.PathLike[str] | None) -> Run | None:
    """The run of that name or in that folder; None if there is none, or one whose maker is not done, or was killed."""
    try:
        return submit.find(name, path)
    except NotARunError:
        return None  # whether the place is taken shows when it is entered


def _is_elsewhere(system: Any, path: str | os.PathLike[str] | None) -> bool:
    is_here = system in _HERE or getattr(system, "name", None) == os.uname().nodename
    return not is_here or (isinstance(path, str) and "://" in path)


def _load(
    name: str | None,
    path: str | os.PathLike[str] | None,
    system: Any,
    data_config: Mapping[str, Any] | None,
    trust: bool,
) -> Run:
    from localrun.api.moving import places
    from localrun.api.moving.local import LocalPlace
    from localrun.api.moving.mirror import RemoteRun

    place = places.find(system, path, data_config, name)
    if isinstance(place, LocalPlace):
        return Run.load(place.folder, trust=trust)
    return RemoteRun.at(place, trust=trust)
