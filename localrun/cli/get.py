"""``localrun get``: the runs there are, newest first, the machine as a cluster, and the names of secrets."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any

from localrun.cli.arguments import ALL, whole_number
from localrun.cli.filters import add_filters, matching
from localrun.cli.output import age, duration, elapsed, print_json, say, summary, work
from localrun.cli.table import print_table
from localrun.model.sizes import size

if TYPE_CHECKING:
    from localrun.api.listing.lists import PaginatedObjectList
    from localrun.api.machine.clusters import Cluster
    from localrun.api.run import Run
    from localrun.cli.parser import Parser

_CLUSTER_TITLES = ("NAME", "ACTIVE", "QUEUED", "GPUS", "FREE", "CPUS", "MEMORY", "INSTANCE")
_TITLES = ("NAME", "STATUS", "REASON", "AGE", "DURATION", "GPUS", "EXIT", "COMMAND")


def add_get(parser: Parser) -> None:
    """The second words of ``localrun get``."""
    kinds = parser.add_subparsers(title="kinds", metavar="KIND", required=True)
    kinds.add_parser(
        "runs", aliases=["run"], help="one run, or many", description="List runs, newest first.", fill=_add_runs
    )
    kinds.add_parser(
        "clusters", aliases=["cluster"], help="this machine, and how it is used",
        description="Show this machine as a cluster: its instances, and how many of its GPUs are free.",
        fill=_add_clusters,
    )  # fmt: skip
    kinds.add_parser(
        "secrets", aliases=["secret"], help="secrets, without their values",
        description="List secrets, by name. No command shows a value.", fill=_add_secrets,
    )  # fmt: skip
    parser.examples(
        "localrun get runs", "localrun get runs 'lr-*' --status FAILED", "localrun get clusters", "localrun get secrets"
    )


def _add_runs(parser: Parser) -> None:
    parser.add_argument("names", nargs="*", metavar="RUN", help="a run's name, a glob such as 'lr-*', or a run folder")
    many = parser.add_mutually_exclusive_group()
    many.add_argument("--limit", type=whole_number, default=100, metavar="N", help="at most so many (100)")
    many.add_argument("--all", dest="limit", action="store_const", const=ALL, help="all there are")
    parser.add_argument("--deleted", action="store_true", help="deleted and replaced ones too")
    parser.add_argument("-o", "--output", choices=("table", "json", "name"), default="table", help="how to print them")
    add_filters(parser)
    parser.examples(
        "localrun get runs",
        "localrun get runs 'lr-*' --status FAILED,STOPPED --after 7d",
        "localrun get runs --all -o json",
        "localrun stop runs $(localrun get runs --status QUEUED -o name)",
    )
    parser.set_defaults(command=runs)


def _add_clusters(parser: Parser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to call it; any name means this machine")
    parser.add_argument("-o", "--output", choices=("table", "json", "name"), default="table", help="how to print it")
    parser.examples("localrun get clusters", "localrun get clusters -o json")
    parser.set_defaults(command=clusters)


def _add_secrets(parser: Parser) -> None:
    from localrun.cli.secrets import add_get_secrets

    add_get_secrets(parser)


def clusters(args: Namespace) -> None:
    """Print this machine as a cluster, a row for each of its instances."""
    from localrun.api.machine.clusters import get_clusters

    found = get_clusters(args.names or None, include_utilization=True)
    if args.output == "json":
        print_json([asdict(cluster, dict_factory=_for_json) for cluster in found])
    elif args.output == "name":
        print("".join(f"{cluster.name}\n" for cluster in found), end="")
    else:
        print_table(_CLUSTER_TITLES, [row for cluster in found for row in _cluster_rows(cluster)])


def _for_json(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    """Fields with times as ISO 8601 and statuses as their names."""
    return {
        name: value.isoformat() if isinstance(value, datetime) else value.value if isinstance(value, Enum) else value
        for name, value in fields
    }


def _cluster_rows(cluster: Cluster) -> list[tuple[object, ...]]:
    used = cluster.utilization
    assert used is not None
    runs = len(used.active_runs_by_user), len(used.queued_runs_by_user)
    return [
        (cluster.name, *runs, each.gpus_total, each.gpus_available, f"{each.instance.cpus:g}",
         size(each.instance.memory), each.instance.name)
        for each in used.cluster_instance_utils
    ]  # fmt: skip


def runs(args: Namespace) -> None:
    """Print the runs that are asked for."""
    found = matching(args, args.names, args.limit, include_deleted=args.deleted)
    if args.output == "json":
        print_json([summary(run) for run in found])
    elif args.output == "name":
        print("".join(f"{run.name}\n" for run in found), end="")
    elif found:
        print_table(_TITLES, [_row(run) for run in found], expendable=("EXIT", "REASON", "GPUS", "AGE", "DURATION"))
    else:
        say("no runs")
    if len(found) == args.limit and _are_more(found):
        say("there are more: --all shows them")


def _are_more(page: PaginatedObjectList[Run]) -> bool:
    try:
        return bool(page.next_page(1))
    except StopIteration:
        return False


def _row(run: Run) -> tuple[object, ...]:
    status = f"{run.status} (deleted)" if run.is_deleted else run.status
    took = duration(elapsed(run))
    return run.name, status, run.reason, age(run.created_at), took, run.gpus or None, run.exit_code, work(run)
