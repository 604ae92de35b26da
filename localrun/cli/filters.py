"""Which runs are meant: by name, and by the filters that ``get``, ``stop``, ``start`` and ``delete`` share."""

from __future__ import annotations

import argparse
from argparse import Namespace
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from localrun.api.runs import get_runs
from localrun.cli.arguments import ALL, is_glob, named_runs, one_run, statuses, whole_number

if TYPE_CHECKING:
    from localrun.api.listing.lists import PaginatedObjectList
    from localrun.api.run import Run
    from localrun.cli.parser import Parser

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}

# The flags, each with the argument of `get_runs` that it is, and what it is called where it takes a value.
_LISTS: tuple[tuple[str, str, str, Any, str], ...] = (
    ("--user", "user_emails", "USER", str, "only that user's; may be repeated"),
    ("--cluster", "cluster_names", "NAME", str, "only on that machine"),
    ("--gpu-type", "gpu_types", "TYPE", str, "only with such GPUs ('none': without)"),
    ("--gpus", "gpu_nums", "N", whole_number, "only with so many GPUs"),
    ("--type", "run_types", "TYPE", str, "only COMMAND, FUNCTION, INTERACTIVE or TRAINING ones"),
)
_TIMES = (
    ("--after", "after", "only submitted since then"),
    ("--before", "before", "only submitted before then"),
    ("--ended-after", "ended_after", "only ended since then"),
    ("--ended-before", "ended_before", "only ended before then"),
)


def add_filters(parser: Parser) -> None:
    """The filters as options; `given` says which were used."""
    filters = parser.add_argument_group(
        "filters", "a TIME is a date, such as 2026-01-31 or 2026-01-31T12:00,\nor an age: 90s, 30m, 12h, 7d, 2w"
    )
    only = "only these; may be repeated, or a,b"
    filters.add_argument("--status", dest="statuses", type=statuses, action="extend", metavar="STATUS", help=only)
    for flag, argument, metavar, kind, what in _LISTS:
        filters.add_argument(flag, dest=argument, type=kind, action="append", metavar=metavar, help=what)
    for flag, argument, what in _TIMES:
        filters.add_argument(flag, dest=argument, type=moment, metavar="TIME", help=what)


def given(args: Namespace) -> dict[str, Any]:
    """The filters that were used, as `get_runs` takes them."""
    names = ["statuses", *(argument for _, argument, *_ in (*_LISTS, *_TIMES))]
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def chosen(args: Namespace) -> list[Run]:
    """All runs that are meant: in the order in which they were named or, if a filter chooses, newest first."""
    return matching(args, args.names, ALL) if given(args) or not args.names else named_runs(args.names)


def matching(args: Namespace, names: Sequence[str], limit: int, **more: Any) -> PaginatedObjectList[Run]:
    """The runs of these names, globs and folders, or all if there are none, that meet the filters; newest first."""
    if more.get("include_deleted"):
        asked: list[Any] = list(names)  # a deleted one has no folder under its name
    else:
        asked = [name if is_glob(name) else one_run(name) for name in names]
    return get_runs(asked or None, limit=limit, **given(args), **more)


def moment(text: str) -> datetime:
    """A time, for argparse: ISO 8601, local without an offset, or how long ago it was."""
    number, unit = text[:-1], text[-1:]
    try:
        if unit in _UNITS:
            return datetime.now().astimezone() - timedelta(seconds=float(number) * _UNITS[unit])
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"must be a time such as 2026-01-31T12:00, or an age such as 12h, not {text!r}"
        ) from None
