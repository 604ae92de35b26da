"""``localrun logs``: a run's output as it is or as it comes, byte for byte but for the values of secrets."""

from __future__ import annotations

import heapq
import sys
from argparse import ArgumentTypeError, Namespace
from collections.abc import Iterator
from typing import TYPE_CHECKING

from localrun.api.output import following, logs, masking
from localrun.api.output.runlogs import stamped
from localrun.cli.arguments import one_run, whole_number
from localrun.cli.output import byte_stream, one_line, say
from localrun.errors import RunConfigError
from localrun.model.folder import RunFolder
from localrun.model.status import RunStatus

if TYPE_CHECKING:
    from localrun.api.run import Run
    from localrun.cli.follow import QueueLine
    from localrun.cli.parser import Parser

ALL_RANKS = "all"


def add_logs(parser: Parser) -> None:
    """The arguments of ``localrun logs``."""
    parser.add_argument("run", metavar="RUN", help="a run's name, or a run folder")
    parser.add_argument("-f", "--follow", action="store_true", help="wait for more until the run has ended")
    parser.add_argument("--tail", type=whole_number, metavar="N", help="only the last N lines of what is there")
    ranks = parser.add_mutually_exclusive_group()
    ranks.add_argument("--rank", type=_rank, metavar="N|all", help="that process, or every line behind '[rank N] '")
    ranks.add_argument("--failed", action="store_true", help="the first process that failed; a FAILED run's by itself")
    attempts = parser.add_mutually_exclusive_group()
    attempts.add_argument("--resumption", type=whole_number, metavar="N", help="that attempt, counted from 0")
    attempts.add_argument("--prev", action="store_true", help="the attempt before the last")
    streams = parser.add_mutually_exclusive_group()
    streams.add_argument("--stdout", dest="stream", action="store_const", const="stdout", help="stdout alone")
    streams.add_argument("--stderr", dest="stream", action="store_const", const="stderr", help="stderr alone")
    parser.add_argument("--timestamps", action="store_true", help="each line behind its time, in UTC")
    parser.examples("localrun logs lr-01", "localrun logs -f --tail 20 lr-01", "localrun logs lr-01 --prev --stderr")
    parser.set_defaults(command=show)


def _rank(text: str) -> int | str:
    if text == ALL_RANKS:
        return text
    try:
        return whole_number(text)
    except ArgumentTypeError:
        raise ArgumentTypeError(f"must be a process's number or {ALL_RANKS!r}, not {text!r}") from None


def show(args: Namespace) -> int | None:
    """Print the output that is asked for."""
    run = one_run(args.run)
    resumption = _resumption(run, args)
    if args.follow:
        return _follow(run, resumption, args)
    folder = RunFolder(run.path)
    out = byte_stream(sys.stdout)
    for data in _output(folder, resumption, _chosen_ranks(run, resumption, args), args):
        out.write(data)
    out.flush()
    if not logs.ranks(folder, resumption):
        say(f"run {run.name} is {run.status} and has written nothing{_why(run)}")
    return None


def _why(run: Run) -> str:
    return f": {run.reason}, {one_line(run.message)}" if run.status.is_terminal() and run.message else ""


def _resumption(run: Run, args: Namespace) -> int:
    """The attempt that is asked for."""
    last: int = run.latest_attempt
    if args.prev and last == 0:
        raise RunConfigError(f"--prev: run {run.name} has had one attempt at most")
    wanted: int = last - 1 if args.prev else last if args.resumption is None else args.resumption
    if wanted > last:
        raise RunConfigError(f"--resumption: run {run.name} has 0 to {last}, not {wanted}")
    return wanted


def _chosen_ranks(run: Run, resumption: int, args: Namespace) -> list[int]:
    """The processes that are asked for: by default the first that failed of a failed run, else the lowest."""
    folder = RunFolder(run.path)
    if args.rank == ALL_RANKS:
        return logs.ranks(folder, resumption)
    is_last_failed = resumption == run.latest_attempt and (args.failed or run.status is RunStatus.FAILED)
    failed = run.failed_rank if is_last_failed else None
    return [logs.choose_rank(folder, resumption, failed if args.rank is None else args.rank)]


def _output(folder: RunFolder, resumption: int, ranks: list[int], args: Namespace) -> Iterator[bytes]:
    """The output of these processes as it is printed, in order of time."""
    mask = masking.current()

    def of(rank: int) -> Iterator[tuple[float, bytes]]:
        blocks = masking.blocks(logs.MergedReader(folder, resumption, rank, args.stream).blocks(over=True), mask)
        wanted = blocks if args.tail is None else logs.last_lines(blocks, args.tail)
        latest = 0.0
        for line in logs.split(wanted) if _stands_something_before(args) else wanted:
            latest = line.time or latest
            yield latest, _printed(line, rank, args)

    return (data for _, data in heapq.merge(*map(of, ranks), key=lambda timed: timed[0]))


def _stands_something_before(args: Namespace) -> bool:
    """True if output is printed line by line, with something before each."""
    return bool(args.timestamps or args.rank == ALL_RANKS)


def _printed(line: logs.Line, rank: int, args: Namespace) -> bytes:
    data = stamped(line) if args.timestamps else line.data
    if args.rank != ALL_RANKS:
        return data
    return b"[rank %d] %s" % (rank, data if data.endswith(b"\n") else data + b"\n")


# -- following --------------------------------------------------------------------------------------------------------


def _follow(run: Run, resumption: int, args: Namespace) -> int:
    """Print the output as it comes, over all further attempts unless one was asked for."""
    from localrun.cli.follow import QueueLine, detach

    line = QueueLine()
    one_attempt = args.prev or args.resumption is not None
    try:
        while True:
            _follow_attempt(run, resumption, args, line)
            if one_attempt or (run.status.is_terminal() and resumption >= run.latest_attempt):
                return 0
            resumption, args.tail = resumption + 1, None
            say(f"localrun: run {run.name} is tried again (resumption {resumption})")
    except KeyboardInterrupt:
        line.clear()
        return detach(run)
    finally:
        line.clear()


def _follow_attempt(run: Run, resumption: int, args: Namespace, line: QueueLine) -> None:
    out, mask = line.before(byte_stream(sys.stdout)), masking.current()
    masked = None if mask is None else masking.MaskedSink(out, mask)
    out = masked or out
    try:
        for rank, block in _blocks(run, resumption, args, line):
            for part in logs.split([block]) if _stands_something_before(args) else [block]:
                out.write(_printed(part, rank, args))
            out.flush()
    finally:
        if masked is not None:
            masked.finish()


def _blocks(run: Run, resumption: int, args: Namespace, line: QueueLine) -> Iterator[tuple[int, logs.Line]]:
    """The output of the processes that are asked for as it comes, each block with its process."""
    if args.rank == ALL_RANKS:
        yield from following.follow_all(run, resumption, stream=args.stream, tail=args.tail, looked=line)
        return
    rank = _chosen_ranks(run, resumption, args)[0]
    live = not _stands_something_before(args)
    for block in following.follow(run, resumption, rank, stream=args.stream, tail=args.tail, live=live, looked=line):
        yield rank, block
