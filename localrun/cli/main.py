"""The command line's entry: which commands there are, and what becomes of errors.

Each family of commands is a module of this package that is imported when one of its commands is asked for: ``localrun
--help`` imports none of them, and nothing else of localrun either.

Exit codes: 2 for a bad command line or configuration, 1 for every other error, 130 after Ctrl-C; ``run --follow`` and
``wait`` give the run's own (`endings`).
"""

from __future__ import annotations

import importlib
import io
import os
import sys

from localrun import __version__
from localrun.cli.parser import Parser

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself would cost --help 5 ms
    import argparse
    from collections.abc import Callable, Sequence
    from typing import NoReturn

# Command, the module of its family (where ``add_<command>`` adds its arguments), and what it does.
COMMANDS = (
    ("run", "run", "queue a command, a configuration file, or a run again"),
    ("get", "get", "list runs, secrets, or the machine as a cluster"),
    ("describe", "describe", "show everything about a run"),
    ("logs", "logs", "show a run's output"),
    ("diff", "diff", "show what is not the same about two runs"),
    ("lineage", "lineage", "show which files and runs led to a run, and what came of it"),
    ("replay", "replay", "run a run again, after saying what is not as it was"),
    ("export", "archive", "write a run into one file, to take it elsewhere"),
    ("import", "archive", "bring a run back from such a file"),
    ("interactive", "interactive", "hold GPUs for some hours, with a shell on them"),
    ("connect", "interactive", "open a shell inside a running run, or run a command there"),
    ("wait", "wait", "wait for runs, and exit as they did"),
    ("stop", "control", "stop runs, with every process they started"),
    ("start", "control", "queue ended runs again"),
    ("delete", "control", "take runs out of the list, or delete secrets"),
    ("update", "update", "change how runs are scheduled, and their metadata"),
    ("create", "secrets", "keep a secret for runs to come"),
    ("util", "util", "show what the machine is at work on, what waits, and why"),
    ("gpus", "gpus", "show the GPUs, and who has them"),
    ("doctor", "doctor", "check that everything is as localrun needs it"),
    ("completion", "completion", "let bash, zsh or fish complete commands, options and names"),
)
_TAKE_WORDS = ("run", "interactive", "connect")  # a command of the user's, behind --
_INTERRUPTED = 130
_BROKEN_PIPE = 141  # as a shell has it for a program ended by SIGPIPE


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Do what the command line says, and exit with its code."""
    sys.exit(execute(sys.argv[1:] if argv is None else argv))


def execute(argv: Sequence[str]) -> int:
    """Do what a command line says; its exit code. Errors are told on stderr."""
    _prepare_streams()
    try:
        try:
            return _command(argv)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has gone (| head). What is still buffered must not be tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except KeyboardInterrupt:
        return _INTERRUPTED
    except Exception as error:  # noqa: BLE001 - those that are our own bugs are raised again
        return _tell(error)


def _command(argv: Sequence[str]) -> int:
    arguments = parse(argv)
    if arguments.touches_queue:
        _touch()
    code: int | None = arguments.command(arguments)
    return code or 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments of a command line, with ``command`` the function to call, ``words`` what stands behind ``--``."""
    ours, words = list(argv), None
    if ours and ours[0] in _TAKE_WORDS and "--" in ours:
        behind = ours.index("--")
        ours, words = ours[:behind], ours[behind + 1 :]
    parser = command_parser()
    if not ours:
        parser.print_help(sys.stderr)
        sys.exit(2)
    arguments = parser.parse_args(ours)
    arguments.words = words
    return arguments


def command_parser() -> Parser:
    """The parser of the whole command line."""
    parser = Parser(prog="localrun", description="Run Python functions and shell commands as durable, queued Runs.")
    parser.set_defaults(touches_queue=True)
    parser.add_argument("--version", action="version", version=f"localrun {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, module, does in COMMANDS:
        description = f"{does[0].upper()}{does[1:]}."
        commands.add_parser(name, help=does, description=description, fill=_filler(module, name))
    parser.examples(
        "localrun run -- python train.py    queue a command",
        "localrun run --follow -- make      queue it, show its output, exit with its code",
        "localrun COMMAND --help            more about a command",
    )
    return parser


def _filler(module: str, command: str) -> Callable[[Parser], None]:
    def fill(parser: Parser) -> None:
        getattr(importlib.import_module(f"localrun.cli.{module}"), f"add_{command}")(parser)

    return fill


def _touch() -> None:
    """Let queued runs start if nobody is at work on them: any command will do."""
    from localrun import settings
    from localrun.engine.dispatch import submission
    from localrun.engine.queue import Queue

    settings.idle_seconds()  # a bad value would end the dispatcher, where nobody sees it
    try:
        submission.ensure_progress(Queue(settings.home()))
    except OSError:
        pass  # a home that can't be used: the commands that need it, and `doctor`, say so


def _prepare_streams() -> None:
    """Let no character stop us, nor a closed stream."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - as long as the process
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        assert isinstance(stream, io.TextIOWrapper)
        stream.reconfigure(errors="backslashreplace")


def _tell(error: Exception) -> int:
    """Tell of an error in one line; its exit code."""
    from localrun.cli.output import one_line
    from localrun.errors import LocalrunError, NotARunError, RunConfigError, RunFailedError

    if isinstance(error, RunFailedError):
        text = str(error)
    elif isinstance(error, LocalrunError):
        text = " ".join(error.message.split())
    elif isinstance(error, OSError):
        text = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
    else:
        raise error
    # Names and messages may be others': a terminal is not to act on what is in them.
    text = "\n".join(map(one_line, text.split("\n")))
    sys.stderr.write(f"localrun: error: {text}\n")
    return 2 if isinstance(error, RunConfigError | NotARunError) else 1


if __name__ == "__main__":
    main()
