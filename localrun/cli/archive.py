"""``localrun export`` and ``import``: a run as one file, to take it elsewhere and to bring it back."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from localrun.cli.arguments import one_run
from localrun.cli.output import say

if TYPE_CHECKING:
    from localrun.cli.parser import Parser

_MOST_TOLD = 5


def add_export(parser: Parser) -> None:
    """The arguments of ``localrun export``."""
    parser.description = "Write a run that has ended into one file: its folder, with its code. Prints where that is."
    parser.add_argument("run", metavar="RUN", help="a run's name, or a run folder")
    parser.add_argument("-o", "--output", metavar="FILE", help="where to; default: RUN.localrun.tar.gz")
    parser.examples("localrun export lr-01", "localrun export lr-01 -o /media/stick/lr-01.localrun.tar.gz")
    parser.set_defaults(command=export)


def export(args: Namespace) -> None:
    """Write the archive, and print where it is; what is not in it is told."""
    from localrun.api.provenance.export import export as write

    run = one_run(args.run)
    path, manifest = write(run, args.output)
    print(path)
    for line in _not_in_it(manifest):
        say(f"localrun: {line}")
    variables = sorted(run.config.env_variables or {})
    if variables:
        say(f"localrun: it has the values of {', '.join(variables)}: mind whom you give it to")


def _not_in_it(manifest: Mapping[str, Any]) -> Iterator[str]:
    code = manifest["code"] or {"problem": None, "left_out": [], "untracked": []}
    if code["problem"]:
        yield f"its code is not in it: {code['problem']}"
    for what, names in (
        ("links that lead out of it, pipes and sockets", manifest["left_out"]),
        ("links and submodules of the code", code["left_out"]),
        ("untracked files of the code", code["untracked"]),
    ):
        if names:
            more = f" and {len(names) - _MOST_TOLD} more" if len(names) > _MOST_TOLD else ""
            yield f"not in it are {what}: {', '.join(names[:_MOST_TOLD])}{more}"


def add_import(parser: Parser) -> None:
    """The arguments of ``localrun import``."""
    parser.description = "Bring a run back from a file that 'localrun export' wrote, and print its name."
    parser.add_argument("file", metavar="FILE", help="the archive")
    parser.add_argument("--name", metavar="NAME", help="the name it gets here; default: its own")
    parser.add_argument(
        "--trust", action="store_true", help="what it has pickled may be loaded, and it may be run: that executes code"
    )
    parser.examples("localrun import lr-01.localrun.tar.gz", "localrun import lr-01.localrun.tar.gz --name theirs")
    parser.set_defaults(command=import_)


def import_(args: Namespace) -> None:
    """Import, and print the run's name."""
    from localrun.api.provenance.importing import import_run

    run = import_run(args.file, args.name, args.trust)
    print(run.name)
    if not args.trust and sys.stdout.isatty():
        say("nothing of it is executed here until you say that you trust it (--trust)")
