"""``localrun replay``: a run once more, after saying what is not as it was."""

from __future__ import annotations

import contextlib
import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from localrun.cli.arguments import one_run
from localrun.cli.output import print_json, say
from localrun.cli.table import print_table

if TYPE_CHECKING:
    from localrun.api.provenance.compare import Difference
    from localrun.api.run import Run
    from localrun.cli.parser import Parser


def add_replay(parser: Parser) -> None:
    """The arguments of ``localrun replay``."""
    parser.description = "Say what is not as it was when a run was submitted, run it again as a new run, and follow it."
    parser.add_argument("run", metavar="RUN", help="a run's name, or a run folder")
    parser.add_argument("--check", action="store_true", help="only say what differs; exit code 1 if anything does")
    parser.add_argument("--name", metavar="NAME", help="the new run's name; default: the old one's and 6 characters")
    parser.add_argument("--trust", action="store_true", help="run what came from elsewhere: that executes its code")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table", help="how --check prints")
    parser.examples("localrun replay lr-01", "localrun replay lr-01 --check", "localrun replay lr-01 --name again")
    parser.set_defaults(command=replay)


def replay(args: Namespace) -> int:
    """Print what differs; then, unless that is all, run it again, and exit as the run did."""
    from localrun.api.provenance import replay as again
    from localrun.cli.follow import follow

    run = one_run(args.run)
    found = again.differences_here(run, trust=args.trust)
    if args.check:
        _print(run, found, args.output)
        return int(bool(found))
    with contextlib.redirect_stdout(sys.stderr):  # stdout is the run's
        _print(run, found, "table")
    queued = again.replay(run, args.name, trust=args.trust)
    say(f"localrun: run {queued.name}")
    return follow(queued)


def _print(run: Run, found: Sequence[Difference], form: str) -> None:
    if form == "json":
        print_json({row.field: [row.one, row.other] for row in found})
    elif found:
        print_table(("FIELD", "THEN", "HERE"), found)
    else:
        say(f"localrun: all that is known of {run.name} is as it was")
