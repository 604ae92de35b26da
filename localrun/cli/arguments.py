"""What arguments mean: runs by name, glob or folder, statuses, and pairs of a name and a value."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from localrun import settings
from localrun.api.runs import get_run, get_runs
from localrun.errors import RunConfigError, RunNotFoundError
from localrun.model.status import RunStatus
from localrun.model.urls import shown

if TYPE_CHECKING:
    from localrun.api.run import Run

ALL = sys.maxsize


def one_run(text: str) -> Run:
    """The run of that name, or in that folder if there is a ``/`` in it.

    Raises:
        RunNotFoundError: there is none; the message says what may have been meant.
        NotARunError: the folder is no run's. RunConfigError: no run can have that name.
    """
    text = text.removeprefix("file://")
    if "://" in text:
        url = shown(text)
        how = f"copy it here in Python, localrun.run(path={url!r}).to('here')"
        raise RunConfigError(f"{url}: the command line is for runs on this machine: {how}")
    if "/" in text:
        from localrun.api.run import Run

        return Run.load(text)
    try:
        return get_run(text)
    except RunNotFoundError as error:
        raise RunNotFoundError(error.message + _meant(text)) from None


def named_runs(texts: Iterable[str]) -> list[Run]:
    """The runs of these names, globs and folders, each once. An unknown name is a RunNotFoundError."""
    found: dict[str, Run] = {}
    for text in texts:
        for run in get_runs([text], limit=ALL) if is_glob(text) else [one_run(text)]:
            found[run.path] = run
    return list(found.values())


def is_glob(text: str) -> bool:
    """True for a pattern such as ``lr-*``."""
    return "/" not in text and any(mark in text for mark in "*?[")


def _meant(text: str) -> str:
    import difflib

    runs_dir = settings.runs_dir()
    try:
        names = [name for name in os.listdir(runs_dir) if os.path.exists(f"{runs_dir}/{name}/config.json")]
    except OSError:
        names = []
    close = difflib.get_close_matches(text, names, 3)
    return f": did you mean {' or '.join(map(repr, close))}?" if close else ""


# -- types for argparse: an ArgumentTypeError is a one-line error with exit code 2 -----------------------------------


def statuses(text: str) -> list[RunStatus]:
    """Statuses by name, separated by commas."""
    return [status(part) for part in text.split(",")]


def status(text: str) -> RunStatus:
    """A status by name, in any case."""
    known = RunStatus.from_string(text.strip())
    if known is RunStatus.UNKNOWN and text.strip().upper() != RunStatus.UNKNOWN.value:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(each.value for each in RunStatus)}")
    return known


def processes(text: str) -> int | str:
    """A number of processes, or ``gpu``."""
    return text if text == "gpu" else int(text)


def names(text: str) -> list[str]:
    """Names, separated by commas; none in the empty text."""
    return [name.strip() for name in text.split(",")] if text.strip() else []


def pair(text: str) -> tuple[str, str]:
    """``NAME=VALUE`` as name and value. An error doesn't show the text: it may be a secret's."""
    name, is_pair, value = text.partition("=")
    if not is_pair or not name:
        raise argparse.ArgumentTypeError("must be NAME=VALUE")
    return name, value


def typed_pair(text: str) -> tuple[str, Any]:
    """``NAME=VALUE`` with the value as YAML has it: a number, true, null, a ``[list]`` or ``{mapping}``, else text."""
    name, value = pair(text)
    return name, _yaml_value(name, value)


def _yaml_value(name: str, text: str) -> Any:
    from localrun.model.configtext import read_yaml

    is_flow = text.lstrip().startswith(("[", "{"))
    try:
        value = read_yaml(text)
    except RunConfigError as error:
        if is_flow:
            raise argparse.ArgumentTypeError(f"{name}: {error.message}") from None
        return text  # such as "50% off: now"
    return text if isinstance(value, list | dict) and not is_flow else value


def number(*, least: float = 0) -> Callable[[str], float]:
    """A number of at least so much."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not least <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"must be a number, {least:g} or more, not {text!r}")
        return value

    return read


def whole_number(text: str) -> int:
    """A whole number, 0 or more."""
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"must be a whole number, 0 or more, not {text!r}")
    return int(text)
