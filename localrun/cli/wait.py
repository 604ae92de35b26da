"""``localrun wait``: until runs have ended, or reached a status; then exit as they did."""

from __future__ import annotations

import time
from argparse import Namespace
from typing import TYPE_CHECKING

from localrun.api.runs import wait_for_run_status
from localrun.cli.arguments import named_runs, number, status
from localrun.cli.endings import exit_code, tell_how_it_ended
from localrun.errors import RunTimeoutError

if TYPE_CHECKING:
    from localrun.api.run import Run
    from localrun.cli.parser import Parser
    from localrun.model.status import RunStatus


def add_wait(parser: Parser) -> None:
    """The arguments of ``localrun wait``."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run's name, a glob such as 'lr-*', or a run folder")
    parser.add_argument("--timeout", type=number(), metavar="SECONDS", help="give up, with exit code 1, after so long")
    parser.add_argument("--status", type=status, metavar="STATUS", help="wait until they have reached that status")
    parser.description = (
        "Wait until runs have ended, and exit with their code: of several, with that of the first that did not\n"
        "complete. 128 + N stands for signal N, 143 for stopped, 124 for over its max_duration."
    )
    parser.examples("localrun wait lr-01", "localrun wait 'lr-*' --timeout 600", "localrun wait lr-01 --status RUNNING")
    parser.set_defaults(command=wait)


def wait(args: Namespace) -> int:
    """Wait for each of the runs; the first exit code that is not 0."""
    deadline = None if args.timeout is None else time.monotonic() + args.timeout
    codes = []
    for run in named_runs(args.runs):
        try:
            _wait_for(run, args.status, None if deadline is None else max(deadline - time.monotonic(), 0))
        except TimeoutError:
            raise RunTimeoutError(f"run {run.name} is {run.refresh().status} after {args.timeout:g} s") from None
        if args.status is None:
            tell_how_it_ended(run)
            codes.append(exit_code(run))
    return next((code for code in codes if code), 0)


def _wait_for(run: Run, status: RunStatus | None, timeout: float | None) -> None:
    if status is None:
        run.wait(timeout)
    else:
        wait_for_run_status(run, status, timeout)
