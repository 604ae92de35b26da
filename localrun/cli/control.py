"""``localrun stop``, ``start`` and ``delete``: what is done to runs that exist, one or many."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from localrun.cli.arguments import is_glob
from localrun.cli.confirm import is_confirmed
from localrun.cli.filters import add_filters, chosen, given
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


def add_stop(parser: Parser) -> None:
    """The second words of ``localrun stop``."""
    about = "Stop runs: SIGTERM to every process, their grace, SIGKILL to what is left."
    _add_runs(_kinds(parser, "stop"), "stop", stop, about, usual="QUEUED")


def add_start(parser: Parser) -> None:
    """The second words of ``localrun start``."""
    about = "Queue ended runs again, each under its name as its next resumption."
    _add_runs(_kinds(parser, "start"), "start", start, about, usual="FAILED")


def add_delete(parser: Parser) -> None:
    """The second words of ``localrun delete``."""
    about = "Take runs out of the list, stopping them first; get runs --deleted finds them."
    kinds = _kinds(parser, "delete")
    _add_runs(kinds, "delete", delete, about, usual="COMPLETED")
    kinds.add_parser(
        "secret", aliases=["secrets"], help="one secret, or many", fill=_add_secrets,
        description="Delete secrets: runs to come don't get them any more.",
    )  # fmt: skip


def _kinds(parser: Parser, verb: str) -> Any:
    parser.examples(f"localrun {verb} run lr-01", f"localrun {verb} runs 'lr-*' -y")
    return parser.add_subparsers(title="kinds", metavar="KIND", required=True)


def _add_runs(kinds: Any, verb: str, command: Callable[[Namespace], int | None], about: str, *, usual: str) -> None:
    """The second word ``run``, or ``runs``; ``usual`` is a status for its examples."""

    def fill(parser: Parser) -> None:
        parser.add_argument("names", nargs="*", metavar="RUN", help="a run's name, a glob ('lr-*'), or a run folder")
        parser.add_argument("--all", action="store_true", help="every run of which it makes sense")
        parser.add_argument("-y", "--yes", action="store_true", help="don't ask")
        if verb == "stop":
            parser.add_argument("--reason", metavar="TEXT", help="why, for the runs' records")
        add_filters(parser)
        parser.examples(
            f"localrun {verb} run lr-01",
            f"localrun {verb} runs 'lr-*' -y",
            f"localrun {verb} runs --status {usual} --before 7d",
        )
        parser.set_defaults(command=command)

    kinds.add_parser("run", aliases=["runs"], help="one run, or many", description=about, fill=fill)


def _add_secrets(parser: Parser) -> None:
    from localrun.cli.secrets import add_delete_secrets

    add_delete_secrets(parser)


def stop(args: Namespace) -> int | None:
    """Stop the runs that are asked for, and wait for their ends."""
    runs = _selected(args, lambda run: not run.status.is_terminal())
    if not _is_confirmed("stop", runs, args):
        return 1
    for run in runs:
        if run.status.is_terminal():
            say(f"{run.name} has ended already: {run.status}")
    for run in _stopped([run for run in runs if not run.status.is_terminal()], args.reason):
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
    if not (args.names or args.all or given(args)):
        raise RunConfigError("name the runs, or give a filter or --all")
    named = {name for name in args.names if not is_glob(name)} if not given(args) else set()
    return [run for run in chosen(args) if run.name in named or run.path in named or _can(run, is_eligible)]


def _can(run: Run, is_eligible: Callable[[Run], bool]) -> bool:
    if run.status is RunStatus.UNKNOWN:
        say(f"{run.name} is left alone: {run.message}")
        return False
    return is_eligible(run)


def _is_confirmed(verb: str, runs: Sequence[Run], args: Namespace) -> bool:
    picked = bool(args.all or given(args) or any(map(is_glob, args.names)))
    return is_confirmed(verb, "run", [(run.name, run.status) for run in runs], picked=picked, yes=args.yes)


def _stopped(runs: Sequence[Run], reason: str | None = None) -> Sequence[Run]:
    """Stop these runs all at once and wait until they have ended."""
    for run in runs:
        run.stop(reason, timeout=0)
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
