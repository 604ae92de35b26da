"""``localrun gpus``: the GPUs that localrun manages, who has them, and what keeps the others from being given out."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from localrun.api.machine.gpus import GpuView, in_words, views
from localrun.cli.output import age, print_json, say
from localrun.cli.table import print_table
from localrun.engine.gpus import probe
from localrun.errors import SystemFailureError

if TYPE_CHECKING:
    from localrun.cli.parser import Parser

_TITLES = ("GPU", "NAME", "MEMORY", "UTIL", "TEMP", "STATE", "WHY")
_GIB = 1 << 30


def add_gpus(parser: Parser) -> None:
    """The arguments of ``localrun gpus``."""
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table", help="how to print them")
    parser.examples("localrun gpus", "localrun gpus -o json")
    parser.set_defaults(command=gpus)


def gpus(args: Namespace) -> None:
    """Print the GPUs as they are now."""
    inventory = probe.inventory()
    if inventory.problem is not None:
        raise SystemFailureError(f"nothing is known of the GPUs: {inventory.problem}")
    found = views(inventory)
    if args.output == "json":
        print_json([_as_json(view) for view in found])
    elif found:
        print_table(_TITLES, [_row(view) for view in found], expendable=("TEMP", "UTIL", "MEMORY", "NAME"))
    else:
        say("no GPUs" if inventory.driver else "no NVIDIA driver: no GPUs")
    if inventory.missing:
        say(f"no such GPU here: {', '.join(inventory.missing)} (LOCALRUN_GPUS)")


def _as_json(view: GpuView) -> dict[str, Any]:
    """``index`` is a number, and "0:1" that of a MIG instance; sizes are bytes, the rest as in the specification."""
    gpu, holder = view.gpu, view.holder
    return {
        "index": gpu.label if gpu.is_mig else gpu.index,
        "uuid": gpu.uuid or None,
        "name": gpu.name or None,
        "memory_total": gpu.memory_total,
        "memory_used": gpu.memory_used,
        "utilization": gpu.utilization,
        "temperature": gpu.temperature,
        "state": view.state.value,
        "reason": view.reason,
        "run": holder and holder.run,
        "owner": holder and holder.user,
        "since": holder and holder.since and holder.since.isoformat(),
        "processes": [process._asdict() for process in gpu.processes],
    }


def _row(view: GpuView) -> tuple[object, ...]:
    gpu = view.gpu
    memory = None
    if gpu.memory_total is not None and gpu.memory_used is not None:
        memory = f"{gpu.memory_used / _GIB:.3g} / {gpu.memory_total / _GIB:.3g} GiB"
    return (
        gpu.label, gpu.name.removeprefix("NVIDIA ") or gpu.uuid or None, memory,
        None if gpu.utilization is None else f"{gpu.utilization}%",
        None if gpu.temperature is None else f"{gpu.temperature}°C",
        view.state, _why(view),
    )  # fmt: skip


def _why(view: GpuView) -> str | None:
    """The run that has it, whose that is, and since when; who else uses it; and what else is wrong."""
    if view.holder is None:
        return view.reason
    whose = ", ".join(filter(None, (view.holder.user, age(view.holder.since))))
    run = f"{view.holder.run or 'unknown'} ({whose})" if whose else view.holder.run or "unknown"
    others = in_words(view.others) if view.others else None
    return "; ".join(filter(None, (run, others, view.problem)))
