"""``localrun run``: a command, a configuration file, a copy of a run, or a run again, into the queue."""

from __future__ import annotations

import copy
import shlex
import sys
import warnings
from argparse import SUPPRESS, Namespace
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from localrun.cli.arguments import one_run, pair, processes, typed_pair
from localrun.cli.output import say
from localrun.errors import RunConfigError
from localrun.model.config import RunConfig

if TYPE_CHECKING:
    from localrun.api.run import Run
    from localrun.cli.parser import Parser

_FIELDS: tuple[tuple[str, str, Callable[[str], object], str], ...] = (
    ("--name", "NAME", str, "the run's name"),
    ("--image", "IMAGE", str, "the container image to run in"),
    ("--gpus", "N", int, "how many GPUs it needs"),
    ("--gpu-type", "TYPE", str, "which GPUs, as in their names"),
    ("--gpu-memory", "SIZE", str, "how much memory each GPU has at least"),
    ("--nproc-per-node", "N|gpu", processes, "how many processes, or one for each GPU"),
    ("--cpus", "N", float, "how many CPUs it needs (1); may be 0 or a fraction"),
    ("--memory", "SIZE", str, "how much of the machine's memory it needs, such as 8GiB"),
    ("--priority", "PRIORITY", str, "high, auto, low or lowest"),
    ("--max-retries", "N", int, "how often it is tried again when it fails (0)"),
    ("--max-duration", "HOURS", float, "after which it is stopped"),
    ("--stop-grace", "SECONDS", float, "from SIGTERM to SIGKILL when it is stopped (30)"),
    ("--cwd", "FOLDER", str, "where it runs (here)"),
)
_PAIRS: tuple[tuple[str, Callable[[str], object], str], ...] = (
    ("--env", pair, "an environment variable; may be repeated"),
    ("--param", typed_pair, "a parameter, its value read as YAML; a.b=1 is {a: {b: 1}}; may be repeated"),
    ("--metadata", typed_pair, "an entry of the metadata; may be repeated"),
)


def add_run(parser: Parser) -> None:
    """The arguments of ``localrun run``."""
    parser.usage = "localrun run [-f FILE | -r RUN | --clone RUN] [options] [-- COMMAND …]"
    parser.add_argument("-f", "--file", help="a configuration, YAML or JSON; options override its fields")
    parser.add_argument("-r", "--restart", metavar="RUN", help="queue an ended run again, under its name")
    parser.add_argument("--clone", metavar="RUN", help="a new run like that one; options override its fields")
    parser.add_argument("--follow", action="store_true", help="show its output, and exit with its code")
    parser.add_argument("--path", metavar="FOLDER", help="where its folder shall be")
    parser.add_argument("misplaced", nargs="*", help=SUPPRESS)
    add_fields(parser)
    parser.examples(
        "localrun run -- python train.py --lr 0.1",
        "localrun run --name lr-01 --cpus 4 --follow -- 'make data && python train.py'",
        "localrun run -f train.yaml --param model.depth=12",
        "localrun run --clone lr-01 --param lr=0.01",
        "localrun run -r lr-01 --follow",
    )
    parser.set_defaults(command=run)


def add_fields(parser: Parser) -> None:
    """The fields of a run's configuration; what is given of them `overrides` says."""
    fields = parser.add_argument_group("fields of the configuration")
    for flag, metavar, kind, what in _FIELDS:
        fields.add_argument(flag, metavar=metavar, type=kind, help=what)
    again = "try again, too, when localrun or the machine failed"
    fields.add_argument("--retry-on-system-failure", action="store_true", default=None, help=again)
    for flag, kind, what in _PAIRS:
        fields.add_argument(flag, metavar="NAME=VALUE", type=kind, action="append", default=[], help=what)


def run(args: Namespace) -> int | None:
    """Queue what is asked for, and print its name or follow it."""
    _check_combination(args)
    queued = _queued(args)
    if args.follow:
        from localrun.cli.follow import follow

        if sys.stderr.isatty():
            say(f"localrun: run {queued.name}")
        return follow(queued)
    print(queued.name)
    if sys.stdout.isatty():
        say(f"follow it with 'localrun logs -f {queued.name}'")
    return None


def _check_combination(args: Namespace) -> None:
    if args.misplaced:
        raise RunConfigError(f"a command stands behind --: localrun run -- {shlex.join(args.misplaced)}")
    given = [flag for flag, value in (("-f", args.file), ("-r", args.restart), ("--clone", args.clone)) if value]
    if len(given) > 1:
        raise RunConfigError(f"{' and '.join(given)}: give one of them")
    if not given and not args.words:
        raise RunConfigError("nothing to run: give a command behind --, or -f FILE, -r RUN or --clone RUN")
    if args.restart and (args.path or args.words or overrides(args, RunConfig())):
        raise RunConfigError("-r: queues a run again as it is: --clone takes changes")
    if args.clone and args.path:
        raise RunConfigError("--path: can't be given with --clone")


def _queued(args: Namespace) -> Run:
    if args.restart:
        return one_run(args.restart).start()
    if args.clone:
        return _cloned(args)
    from localrun.api.runs import create_run

    config = RunConfig() if args.file is None else _read(args.file)
    for field, value in overrides(args, config).items():
        setattr(config, field, value)
    return create_run(config, path=args.path)


def _cloned(args: Namespace) -> Run:
    original = one_run(args.clone)
    changed = overrides(args, original.config)
    if original.fn_name is not None and "command" in changed:
        raise RunConfigError(f"--clone: run {original.name} is a function's: it takes no command")
    return original.clone(**changed)


def _read(file: str) -> RunConfig:
    """The configuration in a file; older spellings are told of."""
    with warnings.catch_warnings(record=True) as older:
        warnings.simplefilter("always")
        try:
            config = RunConfig.from_file(file)
        except OSError as error:
            raise RunConfigError(f"{file}: {error.strerror}") from None
    for warning in older:
        say(f"localrun: warning: {file}: {warning.message}")
    return config


def overrides(args: Namespace, base: RunConfig) -> dict[str, Any]:
    """The fields that the command line sets; mappings with what ``base`` has of them."""
    names = [flag.lstrip("-").replace("-", "_") for flag, *_ in _FIELDS]
    given = {name: getattr(args, name) for name in (*names, "retry_on_system_failure")}
    if args.words:
        given["command"] = args.words[0] if len(args.words) == 1 else shlex.join(args.words)
    if args.env:
        given["env_variables"] = base.env_variables | dict(args.env)
    if args.param:
        given["parameters"] = _nested(base.parameters, args.param)
    if args.metadata:
        given["metadata"] = base.metadata | dict(args.metadata)
    return {name: value for name, value in given.items() if value is not None}


def _nested(base: dict[str, Any], pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """A mapping with these values put in by their dotted keys."""
    whole = copy.deepcopy(base)
    for dotted, value in pairs:
        *outer, last = dotted.split(".")
        inside = whole
        for key in outer:
            inside = inside.setdefault(key, {})
            if not isinstance(inside, dict):
                raise RunConfigError(f"--param {dotted}: parameters have a value at {key!r}, where a mapping belongs")
        inside[last] = value
    return whole
