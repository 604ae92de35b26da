"""``localrun stop``, ``start`` and ``delete``: what is done to runs that exist, one or many."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from localrun.api.runs import get_runs
from localrun.cli.arguments import ALL, is_glob, named_runs, statuses
from localrun.cli.output import say
from localrun.cli.terminal import StatusLine
from localrun.errors import RunConfigError, SystemFailureError
from localrun.model.status import RunStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from localrun.api.run import Run
    from localrun.cli.parser import Parser

_QUICK_S = 0.5  # a stop that takes no longer needs no progress shown
_AFTER_GRACE_S = 60.0
_LISTED = 10
_USUAL_STATUS = {"stop": "QUEUED", "start": "FAILED", "delete": "COMPLETED"}  # in the help's examples


def add_stop(parser: Parser) -> None:
    """The arguments of ``localrun stop``."""
    _add_kinds(parser, "stop", stop, "Stop runs: SIGTERM to every process, their grace, SIGKILL to what is left.")


def add_start(parser: Parser) -> None:
    """The arguments of ``localrun start``."""
    _add_kinds(parser, "start", start, "Queue ended runs again, each under its name as its next resumption.")


def add_delete(parser: Parser) -> None:
    """The arguments of ``localrun delete``."""
    _add_kinds(
        parser, "delete", delete, "Take runs out of the list, stopping them first; get runs --deleted finds them."
    )


def _add_kinds(parser: Parser, verb: str, command: Callable[[Namespace], int | None], description: str) -> None:
    def fill(parser: Parser) -> None:
        parser.add_argument("names", nargs="*", metavar="NAME", help="a run's name, a glob ('lr-*'), or a run folder")
        parser.add_argument("--status", type=statuses, action="extend", metavar="STATUS", help="only those; a,b")
        parser.add_argument("--all", action="store_true", help="every run of which it makes sense")
        parser.add_argument("-y", "--yes", action="store_true", help="don't ask")
        parser.examples(
            f"localrun {verb} run lr-01",
            f"localrun {verb} runs 'lr-*' -y",
            f"localrun {verb} runs --status {_USUAL_STATUS[verb]}",
        )
        parser.set_defaults(command=command)

    kinds = parser.add_subparsers(title="kinds", metavar="KIND", required=True)
    kinds.add_parser("run", aliases=["runs"], help="one run, or many", description=description, fill=fill)
    parser.examples(f"localrun {verb} run lr-01", f"localrun {verb} runs 'lr-*' -y")


def stop(args: Namespace) -> int | None:
    """Stop the runs that are asked for, and wait for their ends."""
    runs = _selected(args, lambda run: not run.status.is_terminal())
    if not _is_confirmed("stop", runs, args):
        return 1
    for run in runs:
        if run.status.is_terminal():
            say(f"{run.name} has ended already: {run.status}")
    for run in _stopped([run for run in runs if not run.status.is_terminal()]):
        say(f"{run.name}: {run.status}")
    return None


def start(args: Namespace) -> int | None:
    """Queue the runs that are asked for again."""
    runs = _selected(args, lambda run: run.status.is_terminal())
    if not _is_confirmed("start", runs, args):
        return 1
    for run in runs:
        say(f"{run.name}: {run.start().status}")
    return None


def delete(args: Namespace) -> int | None:
    """Delete the runs that are asked for."""
    runs = _selected(args, lambda run: True)
    if not _is_confirmed("delete", runs, args):
        return 1
    _stopped([run for run in runs if not run.status.is_terminal()])
    for run in runs:
        run.delete()
        say(f"{run.name}: deleted")
    return None


def _selected(args: Namespace, is_eligible: Callable[[Run], bool]) -> list[Run]:
    """The runs that are meant: those named, whatever they are; of globs and filters those of which it makes sense.

    One whose record can't be read is left alone unless it is named.
    """
    if args.names and args.all:
        raise RunConfigError("--all: can't be given with names")
    if not (args.names or args.all or args.status):
        raise RunConfigError("name the runs, or give --status or --all")
    found = named_runs(args.names) if args.names else get_runs(limit=ALL)
    named = {name for name in args.names if not is_glob(name)} if args.status is None else set()
    return [
        run
        for run in found
        if (args.status is None or run.status in args.status)
        and (run.name in named or run.path in named or _can(run, is_eligible))
    ]


def _can(run: Run, is_eligible: Callable[[Run], bool]) -> bool:
    if run.status is RunStatus.UNKNOWN:
        say(f"{run.name} is left alone: {run.message}")
        return False
    return is_eligible(run)


def _is_confirmed(verb: str, runs: Sequence[Run], args: Namespace) -> bool:
    """Ask the person, if more than one named run is meant; without a terminal to ask on, refuse."""
    if not runs:
        say(f"no runs to {verb}")
        return True
    picked = args.all or args.status is not None or any(map(is_glob, args.names))
    if args.yes or (len(runs) == 1 and not picked):
        return True
    which = f"{len(runs)} runs" if len(runs) > 1 else f"run {runs[0].name}"
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise RunConfigError(f"to {verb} {which} without being asked, give -y")
    for run in runs[:_LISTED]:
        say(f"  {run.name}  {run.status}")
    if len(runs) > _LISTED:
        say(f"  and {len(runs) - _LISTED} more")
    sys.stderr.write(f"{verb} {which}? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    say("nothing was done")
    return False


def _stopped(runs: Sequence[Run]) -> Sequence[Run]:
    """Stop these runs all at once and wait until they have ended."""
    for run in runs:
        run.stop(timeout=0)
    line = StatusLine(sys.stderr)
    try:
        for run in runs:
            _wait_for_end(run, line)
    finally:
        line.clear()
    return runs


def _wait_for_end(run: Run, line: StatusLine) -> None:
    try:
        run.wait(_QUICK_S)
    except TimeoutError:
        line.show(f"stopping {run.name}, up to {run.stop_grace:g} s")
        try:
            run.wait(run.stop_grace + _AFTER_GRACE_S)
        except TimeoutError:
            raise SystemFailureError(f"run {run.name} is still {run.refresh().status}: see 'localrun doctor'") from None
