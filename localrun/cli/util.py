"""``localrun util``: what the machine is at work on, what waits, and why."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from localrun.api.utilization import Utilization, utilization
from localrun.cli.output import age, print_json, print_table
from localrun.engine.queue import Need, Ticket
from localrun.errors import LocalrunError
from localrun.model.sizes import size

if TYPE_CHECKING:
    from localrun.api.run import Run
    from localrun.cli.parser import Parser


def add_util(parser: Parser) -> None:
    """The arguments of ``localrun util``."""
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table", help="how to print it")
    parser.examples("localrun util", "localrun util -o json")
    parser.set_defaults(command=util)


def util(args: Namespace) -> None:
    """Print what is used, by whom, and who waits for what."""
    now = utilization()
    active = [(ticket, _run(ticket)) for ticket in now.active]
    if args.output == "json":
        print_json(_as_json(now, active))
        return
    print_table(
        ("RESOURCE", "TOTAL", "USED", "FREE"),
        [
            ("CPUs", *(f"{each:g}" for each in _total_used_free(now, "cpus"))),
            ("memory", *(size(each) for each in _total_used_free(now, "memory"))),
        ],
    )
    print(f"\n{len(active)} active, {len(now.queued)} queued")
    if active:
        rows = [(t.run, run and run.status, *_needs(t.need), run and age(run.started_at)) for t, run in active]
        print()
        print_table(("ACTIVE", "STATUS", "CPUS", "MEMORY", "SINCE"), rows)
    if now.queued:
        print()
        print_table(("QUEUED", "CPUS", "MEMORY", "WHY"), [(t.run, *_needs(t.need), why) for t, why in now.queued])


def _total_used_free(now: Utilization, resource: str) -> tuple[float, float, float]:
    total, used = getattr(now.capacity, resource), getattr(now.used, resource)
    return total, used, max(total - used, 0)


def _needs(need: Need) -> tuple[str, str | None]:
    return f"{need.cpus:g}", size(need.memory) if need.memory else None


def _run(ticket: Ticket) -> Run | None:
    """The run of a ticket; None if it was deleted this moment, or can't be read."""
    from localrun.api.run import Run

    try:
        return Run.load(ticket.folder)
    except LocalrunError:
        return None


def _as_json(now: Utilization, active: list[tuple[Ticket, Run | None]]) -> dict[str, Any]:
    resources = {
        resource: dict(zip(("total", "used", "free"), _total_used_free(now, resource), strict=True))
        for resource in Need._fields
    }
    running = [
        {
            "name": ticket.run, "path": ticket.folder, **ticket.need._asdict(), "status": run and run.status.value,
            "started_at": run and run.started_at and run.started_at.isoformat(),
        }
        for ticket, run in active
    ]  # fmt: skip
    waiting = [
        {
            "name": ticket.run, "path": ticket.folder, **ticket.need._asdict(), "position": why.position,
            "lacking": list(why.lacking), "held_by": list(why.held_by), "kept_for": list(why.kept_for), "why": str(why),
        }
        for ticket, why in now.queued
    ]  # fmt: skip
    return {**resources, "active": running, "queued": waiting}
