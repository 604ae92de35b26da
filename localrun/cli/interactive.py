"""``localrun interactive`` and ``localrun connect``: a person's shell in a run, on the terminal or in a pipe."""

from __future__ import annotations

import signal
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from localrun.api.interactive import connect as enter
from localrun.api.interactive import create_interactive_run, wait_until_running
from localrun.cli.arguments import number, one_run, whole_number
from localrun.cli.endings import exit_code, tell_how_it_ended
from localrun.cli.fields import add_fields, overrides
from localrun.cli.follow import QueueLine
from localrun.cli.output import say
from localrun.model.config import RunConfig
from localrun.model.status import RunStatus

if TYPE_CHECKING:
    from localrun.api.run import Run
    from localrun.cli.parser import Parser

_PATIENCE_S = 1.0


def add_interactive(parser: Parser) -> None:
    """The arguments of ``localrun interactive``."""
    parser.usage = "localrun interactive [HOURS] [options] [-- COMMAND …]"
    parser.add_argument("hours", nargs="?", type=number(), metavar="HOURS", help="for how long, at most (1)")
    parser.add_argument("--detach", action="store_true", help="open no shell: 'localrun connect' does once it runs")
    add_fields(parser)
    parser.examples(
        "localrun interactive 2 --gpus 1",
        "localrun interactive 0.5 --gpus 2 -- python debug.py",
        "localrun interactive 8 --gpus 1 --name desk --detach",
    )
    parser.set_defaults(command=interactive)


def add_connect(parser: Parser) -> None:
    """The arguments of ``localrun connect``."""
    parser.usage = "localrun connect [options] RUN [-- COMMAND …]"
    parser.add_argument("run", metavar="RUN", help="a RUNNING run's name, or its folder")
    parser.add_argument("--rank", type=whole_number, metavar="N", help="which of its processes' environment (lowest)")
    parser.examples("localrun connect lr-01", "localrun connect lr-01 -- nvidia-smi", "localrun connect lr-01 --rank 3")
    parser.set_defaults(command=connect)


def interactive(args: Namespace) -> int | None:
    """Queue the run, wait for it, and give its shell the terminal; with that the run is over."""
    config = RunConfig()
    for field, value in overrides(args, config).items():
        setattr(config, field, value)
    run = create_interactive_run(config, hours=args.hours)
    if args.detach:
        print(run.name)
        return None
    with _given_back(run):
        line = QueueLine()
        try:
            wait_until_running(run, line)
        finally:
            line.clear()
        if run.status.is_terminal():
            tell_how_it_ended(run)
            return exit_code(run)
        if sys.stderr.isatty():
            say(f"localrun: run {run.name}: leave its shell to give back what it holds")
        code = enter(run, _command(args.words))
        if run.refresh().status is not RunStatus.RUNNING:
            _tell_that_it_is_over(run.wait())
        return code


def connect(args: Namespace) -> int:
    """Give a shell or a command inside a run the terminal; its exit code."""
    run = one_run(args.run)
    code = enter(run, _command(args.words), rank=args.rank)
    if run.refresh().status is not RunStatus.RUNNING:
        try:
            run.wait(_PATIENCE_S)  # what else is in it may take its time
        except TimeoutError:
            pass
        _tell_that_it_is_over(run.refresh())
    return code


def _command(words: list[str] | None) -> str | list[str] | None:
    """What stands behind ``--``: one word is a command line, several are a program and its arguments."""
    return words[0] if words and len(words) == 1 else words or None


@contextmanager
def _given_back(run: Run) -> Iterator[None]:
    """Stop the run when its shell is left, or this process is to end: what it holds is for others again."""

    def leave(number: int, _: object) -> NoReturn:
        sys.exit(128 + number)

    for each in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(each, leave)
    try:
        yield
    finally:
        if run.refresh().status <= RunStatus.RUNNING:
            run.stop("its shell was left", timeout=None)


def _tell_that_it_is_over(run: Run) -> None:
    why = "its time is over" if run.status is RunStatus.COMPLETED else run.message or run.reason
    say(f"localrun: run {run.name} is {run.status}{f': {why}' if why else ''}")
