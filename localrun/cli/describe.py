"""``localrun describe``: everything a person wants to know about one run."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from localrun.api import telemetry
from localrun.api.machine.utilization import why_waiting
from localrun.cli import output
from localrun.cli.arguments import one_run
from localrun.cli.lines import print_line
from localrun.engine import processes
from localrun.engine.scheduling.placement import GpuNeed
from localrun.engine.supervision import conclusion
from localrun.errors import RunConfigError
from localrun.model import record as records
from localrun.model.folder import RunFolder
from localrun.model.record import Record
from localrun.model.sizes import size
from localrun.model.status import RunStatus

if TYPE_CHECKING:
    from localrun.api.run import Run
    from localrun.cli.parser import Parser


def add_describe(parser: Parser) -> None:
    """The arguments of ``localrun describe``."""
    parser.usage = "localrun describe [run] RUN [-o json]"
    parser.add_argument("names", nargs="+", metavar="RUN", help="a run's name, or a run folder")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="json: the record")
    parser.examples(
        "localrun describe run lr-01", "localrun describe ./copied/lr-01", "localrun describe lr-01 -o json"
    )
    parser.set_defaults(command=describe)


def describe(args: Namespace) -> None:
    """Print everything about a run."""
    names = args.names[1:] if len(args.names) > 1 and args.names[0] == "run" else args.names
    if len(names) > 1:
        raise RunConfigError(f"describe: takes one run, not {len(names)}")
    run = one_run(names[0])
    if run.status is RunStatus.UNKNOWN:
        _print_unreadable(run, args.output)
        return
    record = output.masked(records.read(RunFolder(run.path)))
    if args.output == "json":
        output.print_json(record)
        return
    print_line(output.one_line(f"run {run.name}"))
    output.print_facts(_facts(run, record), "  ")
    _print_lifecycle(run)
    _print_mapping("configuration", record["config"])
    _print_mapping("metadata", record["metadata"])


def _print_unreadable(run: Run, form: str) -> None:
    if form == "json":
        output.print_json(output.summary(run))
    else:
        output.print_facts(output.summary(run).items())


def _facts(run: Run, record: Record) -> Iterator[tuple[str, object]]:
    folder = RunFolder(run.path)
    yield "status", f"{run.status} (deleted)" if run.is_deleted else run.status
    yield "reason", run.reason
    yield "message", run.message
    yield "exit code", run.exit_code
    yield "signal", run.signal
    yield "error", run.error
    yield "waiting", _why(run)
    yield "stopping", _stopping(run, record)
    yield ("function" if run.fn_name else "command"), output.work(run)
    yield "code", _code(run)
    yield "working in", run.cwd
    yield "folder", run.path
    yield "logs", folder.resumption_logs(run.resumption_count) if record["resumptions"] else None
    yield "needs", _needs(record)
    yield "GPUs", ", ".join(f"{gpu['index']} ({gpu['name']}, {gpu['uuid']})" for gpu in record["gpus"])
    yield from _used(run, record)
    yield "submitted", _when(run.created_at, f"by {run.created_by}")
    yield "started", _when(run.started_at)
    yield "ended", _when(run.completed_at)
    yield "waited", output.duration(run.cumulative_pending_time)
    yield "ran", output.duration(run.cumulative_running_time) if record["resumptions"] else None
    yield "resumptions", run.resumption_count
    yield "supervisor", _supervisor(run, record)
    yield "dispatcher", _dispatcher(run)


def _code(run: Run) -> str | None:
    """The commit that the run was submitted from, and whether it had been changed."""
    git = run.provenance.get("git") or {}
    if not git.get("commit"):
        return None
    branch = f" on {git['branch']}" if git["branch"] else ""
    return f"{git['commit'][:12]}{branch}{', changed' if git['diff'] != '' else ''} ({git['root']})"


def _why(run: Run) -> str | None:
    waiting = why_waiting(run) if run.status is RunStatus.QUEUED else None
    return None if waiting is None else str(waiting)


def _stopping(run: Run, record: Record) -> str | None:
    """Why an active run is on its way out."""
    cause = conclusion.stop_cause(record) if run.status.is_active() else None
    return None if cause is None else f"{cause.reason}, {cause.message}"


def _used(run: Run, record: Record) -> Iterator[tuple[str, object]]:
    """What the run was seen to use."""
    used = telemetry.summary(run.telemetry())
    if used is None:
        return
    yield "used CPU", f"{used.cpu_mean:.0f}% of one on average, {used.cpu_peak:.0f}% at most"
    yield "used memory", f"{size(used.rss_mean)} on average, {size(used.rss_peak)} at most"
    if used.gpu_mean is not None and used.gpu_memory_peak is not None:
        memory = size(used.gpu_memory_peak)
        yield "used GPUs", f"{used.gpu_mean:.0f}% on average, {used.gpu_peak}% and {memory} at most"
    asked = record["request"].get("gpus") or 0
    if used.gpus_used is not None and used.gpus_used < asked:
        yield "hint", f"it asked for {asked} GPU{'' if asked == 1 else 's'} and was never seen to use more than " + (
            f"{used.gpus_used}" if used.gpus_used else "none"
        )


def _needs(record: Record) -> str:
    request = record["request"]
    wanted = [(request.get("cpus"), "CPUs"), (request.get("nproc_per_node"), "ranks")]
    parts = [f"{count:g} {what[:-1] if count == 1 else what}" for count, what in wanted if count]
    if request.get("gpus"):
        parts.insert(0, str(GpuNeed.of(request)))
    if request.get("memory"):
        parts.append(f"{size(request['memory'])} of memory")
    return ", ".join([*parts, f"priority {request.get('priority', 'auto')}"])


def _when(moment: Any, more: str = "") -> str | None:
    return None if moment is None else f"{output.local_time(moment)} ({output.age(moment)} ago) {more}".rstrip()


def _supervisor(run: Run, record: Record) -> str | None:
    """Who looks after an active run."""
    if not run.status.is_active():
        return None
    known = record["supervisor"]
    if known is None:
        return "not known yet"
    alive = processes.start_time(known["pid"]) == known["start"] and records.is_supervised(RunFolder(run.path))
    return f"pid {known['pid']}, {'alive' if alive else 'lost'}"


def _dispatcher(run: Run) -> str | None:
    """Who starts what is queued where this run was submitted; there need be none without work."""
    pid = run._queue.dispatcher_pid()
    return None if pid is None else f"pid {pid}, alive"


def _print_lifecycle(run: Run) -> None:
    print("lifecycle")
    for phase in run.lifecycle:
        how_long = output.duration(phase.seconds) if phase.ended_at or not phase.status.is_terminal() else ""
        attempt = f"#{phase.resumption_index}"
        facts = (output.local_time(phase.started_at), f"{phase.status!s:11}", f"{attempt:4}", f"{how_long:7}")
        print_line("  " + output.one_line("  ".join([*map(str, facts), phase.reason or ""])).rstrip())
    if run.events:
        print("events")
    for event in run.events:
        print_line(f"  {output.local_time(event.time)}  {event.type}: {output.one_line(event.message)}")


def _print_mapping(title: str, mapping: dict[str, Any]) -> None:
    if not mapping:
        return
    import yaml

    print(title)
    for line in yaml.safe_dump(mapping, sort_keys=False, width=1000).splitlines():
        print_line(f"  {line}", len(line) - len(line.lstrip()) + 4)
