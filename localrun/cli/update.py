"""``localrun update run``: how runs are scheduled, and their metadata, changed after they were submitted."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from localrun.api.runs import update_run, update_run_metadata
from localrun.cli.arguments import is_glob, typed_pair
from localrun.cli.confirm import is_confirmed
from localrun.cli.filters import add_filters, chosen, given
from localrun.cli.output import say
from localrun.errors import RunConfigError

if TYPE_CHECKING:
    from localrun.cli.parser import Parser

_FIELDS = ("priority", "preemptible", "max_retries", "retry_on_system_failure", "max_duration")


def add_update(parser: Parser) -> None:
    """The second words of ``localrun update``."""
    kinds = parser.add_subparsers(title="kinds", metavar="KIND", required=True)
    about = "Change how runs that have not ended are scheduled, or the metadata of any."
    kinds.add_parser("run", aliases=["runs"], help="one run, or many", description=about, fill=_add_run)
    parser.examples("localrun update run lr-01 --priority low --preemptible")


def _add_run(parser: Parser) -> None:
    parser.add_argument("names", nargs="*", metavar="RUN", help="a run's name, a glob ('lr-*'), or a run folder")
    parser.add_argument("-y", "--yes", action="store_true", help="don't ask")
    change = parser.add_argument_group("what changes")
    change.add_argument("--priority", metavar="PRIORITY", help="high, auto, low or lowest")
    for flag, opposite, what in (
        ("--preemptible", "--not-preemptible", "may be stopped and queued again for a run of higher priority"),
        ("--retry-on-system-failure", "--no-retry-on-system-failure", "try again when localrun or the machine failed"),
    ):
        dest = flag.lstrip("-").replace("-", "_")
        change.add_argument(flag, dest=dest, action="store_const", const=True, help=what)
        change.add_argument(opposite, dest=dest, action="store_const", const=False, help=f"the opposite of {flag}")
    change.add_argument("--max-retries", type=int, metavar="N", help="how often it is tried again when it fails")
    change.add_argument("--max-duration", type=float, metavar="HOURS", help="after which it is stopped")
    what = "an entry of the metadata, its value read as YAML; may be repeated"
    change.add_argument("--metadata", type=typed_pair, action="append", metavar="NAME=VALUE", help=what)
    add_filters(parser)
    parser.examples(
        "localrun update run lr-01 --priority low --preemptible",
        "localrun update run lr-01 --max-duration 12 --max-retries 3",
        "localrun update runs 'lr-*' --metadata kept=true -y",
    )
    parser.set_defaults(command=update)


def update(args: Namespace) -> int | None:
    """Change the runs that are asked for."""
    fields: dict[str, Any] = {field: getattr(args, field) for field in _FIELDS if getattr(args, field) is not None}
    if not (fields or args.metadata):
        raise RunConfigError("nothing to change: give --priority, --max-retries, --metadata or another of its options")
    if not (args.names or given(args)):
        raise RunConfigError("name the runs, or give a filter")
    runs = chosen(args)
    picked = bool(given(args) or any(map(is_glob, args.names)))
    these = [(run.name, run.status) for run in runs]
    if not is_confirmed("update", "run", these, picked=picked, yes=args.yes):
        return 1
    for run in runs:
        if fields:
            update_run(run, **fields)
        if args.metadata:
            update_run_metadata(run, dict(args.metadata))
        say(f"{run.name}: updated")
    return None
