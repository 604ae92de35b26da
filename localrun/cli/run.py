"""``localrun run``: a command, a configuration file, a copy of a run, or a run again, into the queue."""

from __future__ import annotations

import shlex
import sys
import warnings
from argparse import SUPPRESS, Namespace
from typing import TYPE_CHECKING

from localrun.api import submit
from localrun.api.runs import create_run
from localrun.cli.arguments import one_run
from localrun.cli.fields import add_fields, overrides
from localrun.cli.output import say
from localrun.cli.sweep import axis, variants
from localrun.errors import RunConfigError
from localrun.model.config import RunConfig

if TYPE_CHECKING:
    from localrun.api.run import Run
    from localrun.cli.parser import Parser


def add_run(parser: Parser) -> None:
    """The arguments of ``localrun run``."""
    parser.usage = "localrun run [-f FILE | -r RUN | --clone RUN] [options] [-- COMMAND …]"
    parser.add_argument("-f", "--file", metavar="FILE", help="a configuration in YAML or JSON; options override it")
    parser.add_argument("-r", "--restart", metavar="RUN", help="queue an ended run again, under its name")
    parser.add_argument("--clone", metavar="RUN", help="a new run like that one; options override its configuration")
    what = "a run for each of these values of a field of the configuration, or else of a parameter; several combine"
    parser.add_argument("--sweep", metavar="KEY=V1,V2,…", type=axis, action="append", default=[], help=what)
    parser.add_argument("--follow", action="store_true", help="show its output, and exit with its code")
    parser.add_argument("--path", metavar="FOLDER", help="where its folder shall be")
    parser.add_argument("misplaced", nargs="*", help=SUPPRESS)
    add_fields(parser)
    parser.examples(
        "localrun run -- python train.py --lr 0.1",
        "localrun run --name lr-01 --cpus 4 --follow -- 'make data && python train.py'",
        "localrun run -f train.yaml --param model.depth=12",
        "localrun run -f train.yaml --sweep lr=0.1,0.01 --sweep compute.cpus=1,2    four runs",
        "localrun run --clone lr-01 --param lr=0.01",
        "localrun run --after lr-01 -- python evaluate.py",
        "localrun run -r lr-01 --follow",
    )
    parser.set_defaults(command=run)


def run(args: Namespace) -> int | None:
    """Queue what is asked for, and print its name or follow it."""
    _check_combination(args)
    if args.sweep:
        _run_sweep(args)
        return None
    queued = one_run(args.restart).start() if args.restart else _queued(args)
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
    if args.restart and (args.path or args.words or args.sweep or overrides(args, RunConfig())):
        raise RunConfigError("-r: queues a run again as it is: --clone takes changes")
    if args.clone and args.path:
        raise RunConfigError("--path: can't be given with --clone")
    if args.sweep and (args.path or args.follow):
        one = "--path" if args.path else "--follow"
        raise RunConfigError(f"{one}: is for one run, and --sweep makes many: see 'localrun get runs' and 'wait'")


def _run_sweep(args: Namespace) -> None:
    """Queue the runs of a sweep, if all of them can be, and print their names."""
    config, original = _configured(args)
    made = variants(config, args.sweep, config.name or (original.name if original else None))
    for variant in made:
        _refuse_command(variant, original)
        submit.check(variant, needs_command=original is None or original.fn_name is None)
    for variant in made:
        print(_submitted(variant, original).name, flush=True)
    if sys.stdout.isatty():
        say("wait for them with 'localrun wait', list them with 'localrun get runs'")


def _queued(args: Namespace) -> Run:
    config, original = _configured(args)
    _refuse_command(config, original)
    return _submitted(config, original, args.path)


def _configured(args: Namespace) -> tuple[RunConfig, Run | None]:
    """The configuration that is asked for, and the run that is to be cloned with it, if one is."""
    original = one_run(args.clone) if args.clone else None
    config = original.config if original else RunConfig() if args.file is None else _read(args.file)
    for field, value in overrides(args, config).items():
        setattr(config, field, value)
    return config, original


def _refuse_command(config: RunConfig, original: Run | None) -> None:
    if original and original.fn_name is not None and config.command:
        raise RunConfigError(f"--clone: run {original.name} is a function's: it takes no command")


def _submitted(config: RunConfig, original: Run | None, path: str | None = None) -> Run:
    """Queue a run as configured, or as a clone that differs from its original in that."""
    if original is None:
        return create_run(config, path=path)
    before = vars(original.config)
    return original.clone(**{field: value for field, value in vars(config).items() if value != before[field]})


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
