"""Sweeps: one configuration becomes many, a run for every combination of the values that are given for its keys.

``--sweep lr=0.1,0.01 --sweep compute.cpus=1,2`` makes four. A run is named after what tells it from the others:
``<base>-lr-0.1-cpus-2``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

from localrun.cli.fields import put
from localrun.errors import RunConfigError
from localrun.model.config import ComputeConfig, RunConfig, SchedulingConfig
from localrun.model.configtext import read_yaml
from localrun.model.names import name_from_command

_MOST_RUNS = 10_000
_LONGEST_VALUE = 20
_LONGEST_TAIL, _LONGEST_NAME = 90, 120  # a taken name gets some characters more


class Axis(NamedTuple):
    """A key as it was given, where it is in a configuration, and the values it takes."""

    key: str
    path: tuple[str, ...]
    values: list[Any]


def axis(text: str) -> Axis:
    """``KEY=VALUE,VALUE,…`` for argparse; the values as in a YAML list."""
    key, has_values, values = text.partition("=")
    if not has_values or not all(key.split(".")):
        raise argparse.ArgumentTypeError(f"must be KEY=VALUE,VALUE,…, not {text!r}")
    try:
        found = read_yaml(f"[{values}]")
    except RunConfigError as error:
        raise argparse.ArgumentTypeError(f"{key}: {error.message}") from None
    if not isinstance(found, list) or not found:
        raise argparse.ArgumentTypeError(f"{key}: give it values, with commas")
    texts = [json.dumps(value, default=str) for value in found]
    twice = next((text for text in texts if texts.count(text) > 1), None)
    if twice is not None:
        raise argparse.ArgumentTypeError(f"{key}: has {twice} twice")
    return Axis(key, _path(key), found)


def _path(key: str) -> tuple[str, ...]:
    """Where a key is in a configuration: a field's own place, else among the parameters."""
    first, *inside = key.split(".")
    if first in {field.name for field in fields(RunConfig)}:
        return (first, *inside)
    for part, kind in (("compute", ComputeConfig), ("scheduling", SchedulingConfig)):
        if key in kind.__annotations__:
            return part, key
    return ("parameters", first, *inside)


def variants(base: RunConfig, axes: Sequence[Axis], name: str | None = None) -> list[RunConfig]:
    """The configurations of a sweep, each with a name of its own that begins with ``name`` or else the command's.

    Raises:
        RunConfigError: a key is given twice, is no field, or is inside of what has no keys; or they are too many.
    """
    _check(axes)
    stem = name or name_from_command(base.command)
    made, taken = [], set[str]()
    for values in itertools.product(*(each.values for each in axes)):
        mapping = base.to_mapping()
        for each, value in zip(axes, values, strict=True):
            put(mapping, each.path, value, f"--sweep {each.key}")
        mapping["name"] = next(each for each in _names(stem, axes, values) if each not in taken)
        taken.add(mapping["name"])
        made.append(RunConfig.from_mapping(mapping))
    return made


def _check(axes: Sequence[Axis]) -> None:
    paths = [each.path for each in axes]
    for each in axes:
        if each.path == ("name",):
            raise RunConfigError("--sweep name: a sweep names its runs: --name is what their names begin with")
        if paths.count(each.path) > 1:
            raise RunConfigError(f"--sweep {each.key}: is given twice")
    number = math.prod(len(each.values) for each in axes)
    if number > _MOST_RUNS:
        raise RunConfigError(f"--sweep: these are {number} runs, and {_MOST_RUNS} are the most at once")


def _names(stem: str, axes: Sequence[Axis], values: Sequence[Any]) -> Iterator[str]:
    """Names for a run, the first of them the best: the others are for when it is taken."""
    ends = [each.path[-1] for each in axes]
    parts = []
    for each, value in zip(axes, values, strict=True):
        key = each.path[-1] if ends.count(each.path[-1]) == 1 else ".".join(each.path[-2:])
        parts += [_label(key), _label(value)]
    tail = "-".join(parts)[:_LONGEST_TAIL]
    yield f"{stem[: _LONGEST_NAME - 1 - len(tail)]}-{tail}"
    for number in itertools.count(2):
        yield f"{stem[: _LONGEST_NAME - 7 - len(tail)]}-{tail}-{number}"


def _label(value: Any) -> str:
    """A key or value in the characters that a name has."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    plain = re.sub(r"[^A-Za-z0-9._-]+", " ", text).strip().replace(" ", "-")
    return plain[:_LONGEST_VALUE] or "empty"
