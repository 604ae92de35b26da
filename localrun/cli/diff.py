"""``localrun diff``: what is not the same about two runs."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from localrun.api.provenance import compare, outcomes
from localrun.api.provenance.compare import Difference
from localrun.cli.arguments import one_run
from localrun.cli.output import duration, print_json, say, work
from localrun.cli.table import print_table
from localrun.model import record as records
from localrun.model.folder import RunFolder

if TYPE_CHECKING:
    from localrun.api.run import Run
    from localrun.cli.parser import Parser

_TIME = "ran"
_ENVIRONMENT = "env_variables."
_FACTS = ("status", "reason", "exit_code", "error", "creator", "host", "cwd")


def add_diff(parser: Parser) -> None:
    """The second words of ``localrun diff``."""
    kinds = parser.add_subparsers(title="kinds", metavar="KIND", required=True)
    about = "Show what is not the same about two runs: configuration, inputs, code, environment, results."
    about += " Exit code 1 if anything is."
    kinds.add_parser("run", aliases=["runs"], help="two runs", description=about, fill=_add_run)
    parser.examples("localrun diff run lr-01 lr-02")


def _add_run(parser: Parser) -> None:
    parser.add_argument("one", metavar="RUN", help="a run's name, or a run folder")
    parser.add_argument("other", metavar="RUN", help="another one's")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table", help="how to print it")
    parser.examples("localrun diff run lr-01 lr-02", "localrun diff run lr-01 ./copied/lr-01 -o json")
    parser.set_defaults(command=diff)


def diff(args: Namespace) -> int:
    """Print the fields that differ; 1 if there are any."""
    one, other = one_run(args.one), one_run(args.other)
    ours, theirs = dict(_facts(one)), dict(_facts(other))
    rows = [
        Difference(field, ours.get(field), theirs.get(field))
        for field in dict.fromkeys([*ours, *theirs])
        if ours.get(field) != theirs.get(field)
    ]
    rows = [_hidden(row) if row.field.startswith(_ENVIRONMENT) else row for row in rows]
    rows += outcomes.differences(one, other)
    known = {row.field for row in rows}
    rows += [row for row in compare.differences(one.provenance, other.provenance) if row.field not in known]
    if all(row.field == _TIME for row in rows):
        rows = []  # no two runs take the same time
    if args.output == "json":
        print_json({field: [here, there] for field, here, there in rows})
    elif rows:
        print_table(("FIELD", one.name, other.name), rows)
    else:
        say(f"{one.name} and {other.name} don't differ")
    return int(bool(rows))


def _hidden(row: Difference) -> Difference:
    """An environment variable, without its values, which nobody is to see."""
    one, other = (None if value is None else "***" for value in (row.one, row.other))
    return row._replace(one=one, other=f"{other} (another)" if one and other else other)


def _facts(run: Run) -> Iterator[tuple[str, Any]]:
    """What is compared."""
    record = records.read(RunFolder(run.path))
    for field in _FACTS:
        yield field, record[field]
    yield "work", work(run)
    yield "python", (record["python"] or {}).get("version")
    yield _TIME, duration(run.cumulative_running_time)
    yield "code", (record.get("fingerprints") or {}).get("code")
    for title, artifacts in (("read", run.upstream_artifacts), ("made", run.downstream_artifacts)):
        for artifact in artifacts:
            yield f"{title} {artifact['url']}", _version(artifact)
    config = {field: value for field, value in record["config"].items() if field not in ("name", "command")}
    yield from _flat("", config)
    yield from _flat("metadata.", record["metadata"])


def _version(artifact: Mapping[str, Any]) -> str:
    """What is known of which version of a file or a run it was."""
    size = "" if artifact["size"] is None else f", {artifact['size']} bytes"
    return artifact["digest"] or artifact.get("uid") or f"digest unknown{size}"


def _flat(before: str, mapping: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in mapping.items():
        if isinstance(value, dict) and value:
            yield from _flat(f"{before}{key}.", value)
        else:
            yield f"{before}{key}", value
