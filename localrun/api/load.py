"""``localrun.run``: the factory that loads a run by its folder (names from ``runhouse.run``)."""

from __future__ import annotations

import os

from localrun.api.run import Run
from localrun.api.runs import get_run
from localrun.errors import RunConfigError


def run(name: str | None = None, *, path: str | os.PathLike[str] | None = None) -> Run:
    """The run in the folder ``path``, wherever that is, or the run of that ``name``. Creates nothing.

    Raises:
        RunNotFoundError: there is no such folder or name (404).
        NotARunError: the folder is no run folder; the message says what is missing (400).
    """
    if (name is None) == (path is None):
        raise RunConfigError("run: give either path= or name=")
    return Run.load(path) if path is not None else get_run(str(name))
