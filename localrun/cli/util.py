"""``localrun util``: what the machine is at work on, what waits, and why."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from localrun.api.machine.utilization import Utilization, utilization
from localrun.cli.output import age, print_json, say
from localrun.cli.table import print_table
from localrun.engine.scheduling.placement import Slot, Use
from localrun.engine.scheduling.ticket import Need, Ticket
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
    resources: list[tuple[object, ...]] = [
        ("CPUs", *(f"{each:g}" for each in _total_used_free(now, "cpus"))),
        ("memory", *(size(each) for each in _total_used_free(now, "memory"))),
    ]
    if isinstance(now.gpus, str):
        say(f"nothing is known of the GPUs: {now.gpus}")
    elif now.gpus:
        resources.append(("GPUs", *_gpus(now.gpus)))
    print_table(("RESOURCE", "TOTAL", "USED", "FREE"), resources)
    print(f"\n{len(active)} active, {len(now.queued)} queued")
    if active:
        rows = [(t.run, run and run.status, *_needs(t), run and age(run.started_at)) for t, run in active]
        print()
        titles = "ACTIVE", "STATUS", "GPUS", "CPUS", "MEMORY", "SINCE"
        print_table(titles, rows, expendable=("MEMORY", "CPUS", "SINCE"))
    if now.queued:
        print()
        queued = [(t.run, *_needs(t), why) for t, why in now.queued]
        print_table(("QUEUED", "GPUS", "CPUS", "MEMORY", "WHY"), queued, ("MEMORY", "CPUS", "GPUS"), whole=True)


def _total_used_free(now: Utilization, resource: str) -> tuple[float, float, float]:
    total, used = getattr(now.capacity, resource), getattr(now.used, resource)
    return total, used, max(total - used, 0)


def _gpus(slots: Sequence[Slot]) -> tuple[int, int, int]:
    """How many there are, are in use or can't be used, and are free."""
    free = sum(slot.use is Use.FREE for slot in slots)
    return len(slots), len(slots) - free, free


def _needs(ticket: Ticket) -> tuple[int | None, str, str | None]:
    need = ticket.need
    return ticket.gpus.number or None, f"{need.cpus:g}", size(need.memory) if need.memory else None


def _run(ticket: Ticket) -> Run | None:
    """The run of a ticket; None if it was deleted this moment, or can't be read."""
    from localrun.api.run import Run

    try:
        return Run.load(ticket.folder)
    except LocalrunError:
        return None


def _asked(ticket: Ticket) -> dict[str, float]:
    return {"gpus": ticket.gpus.number, **ticket.need._asdict()}


def _as_json(now: Utilization, active: list[tuple[Ticket, Run | None]]) -> dict[str, Any]:
    resources = {
        resource: dict(zip(("total", "used", "free"), _total_used_free(now, resource), strict=True))
        for resource in Need._fields
    }
    known = None if isinstance(now.gpus, str) else dict(zip(("total", "used", "free"), _gpus(now.gpus), strict=True))
    running = [
        {
            "name": ticket.run, "path": ticket.folder, **_asked(ticket), "status": run and run.status.value,
            "started_at": run and run.started_at and run.started_at.isoformat(),
        }
        for ticket, run in active
    ]  # fmt: skip
    waiting = [
        {
            "name": ticket.run, "path": ticket.folder, **_asked(ticket), "position": why.position,
            "lacking": list(why.lacking), "held_by": list(why.held_by), "kept_for": list(why.kept_for),
            "after": list(why.after), "making_way": list(why.making_way), "why": str(why),
        }
        for ticket, why in now.queued
    ]  # fmt: skip
    return {**resources, "gpus": known, "active": running, "queued": waiting}
