"""``localrun.run``: the run that is meant, or a block to be traced as one. Named after Runhouse's factory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from localrun.api import submit
from localrun.api.run import Run
from localrun.api.tracing.block import Options


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
    **fields: Any,
) -> Run:
    """The run in the folder ``path``, or of that ``name``; if there is none of the name, a new one to be entered.

    ``with localrun.run(name="prep") as run:`` traces a block of code, see `localrun.Run`, whose arguments the rest are.
    Until it is entered nothing is created. ``load=False`` doesn't look whether the run exists.

    Raises:
        RunNotFoundError: ``path`` alone is given, and there is no such folder (404).
        NotARunError: the folder is no run folder; the message says what is missing (400).
    """
    if path is not None and name is None and load:
        return _to_be_entered(Run.load(path), overwrite, dryrun, trace_files)
    there = submit.find(name, None if path is None else os.fspath(path)) if load and name is not None else None
    if there is not None:
        return _to_be_entered(there, overwrite, dryrun, trace_files)
    return Run(
        name, log_dest=log_dest, path=path, system=system, data_config=data_config, overwrite=overwrite, dryrun=dryrun,
        trace_files=trace_files, **fields,
    )  # fmt: skip


def _to_be_entered(run: Run, overwrite: bool, dryrun: bool, trace_files: Any) -> Run:
    run._options = Options(overwrite, dryrun, trace_files)
    return run
