"""``localrun lineage``: which files and runs led to a run, and what came of it."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from localrun.cli import terminal
from localrun.cli.arguments import one_run
from localrun.cli.lines import start, width
from localrun.cli.output import one_line, print_json

if TYPE_CHECKING:
    from localrun.api.lineage.graph import Edge, Lineage, Node
    from localrun.cli.parser import Parser

_MOST = 20  # files of one run that the tree shows
_DEEPEST = 20  # steps from its root
_LEAST = 12  # to no less is a path cut


def add_lineage(parser: Parser) -> None:
    """The arguments of ``localrun lineage``."""
    parser.description = (
        "Show the files that a run read and the runs that made exactly those or whose results it used, and so on;"
        " and the files it made, the runs that read them or used its result, and so on."
    )
    parser.add_argument("name", metavar="RUN", help="a run's name, or a run folder")
    parser.add_argument(
        "-o", "--output", choices=("tree", "json", "dot", "svg"), default="tree", help="how to print it; dot: Graphviz"
    )
    parser.examples("localrun lineage eval-07", "localrun lineage eval-07 -o dot | dot -Tpdf >eval-07.pdf")
    parser.set_defaults(command=show)


def show(args: Namespace) -> None:
    """Print the lineage of a run."""
    from localrun.api.lineage.graph import lineage

    found = lineage(one_run(args.name))
    if args.output == "json":
        nodes = [{field: value for field, value in asdict(node).items() if value is not None} for node in found.nodes]
        print_json({"root": found.root.id, "nodes": nodes, "edges": [asdict(edge) for edge in found.edges]})
    elif args.output == "tree":
        for line in _Tree(found).lines():
            print(line)
    else:
        print(found.dot() if args.output == "dot" else found.svg(), end="")


class _Tree:
    """A lineage as a tree: what a run read and used above what it made, each with what is behind it."""

    def __init__(self, lineage: Lineage) -> None:
        self._root = lineage.root
        self._nodes = {node.id: node for node in lineage.nodes}
        self._into: dict[str, list[Edge]] = {}
        self._out_of: dict[str, list[Edge]] = {}
        for edge in lineage.edges:
            self._into.setdefault(edge.target, []).append(edge)
            self._out_of.setdefault(edge.source, []).append(edge)
        self._shown = {self._root.id}

    def lines(self) -> Iterator[str]:
        """The lines, root first."""
        yield _fitted("", self._root)
        up, down = self._into.get(self._root.id, []), self._out_of.get(self._root.id, [])
        yield from self._below("", up, upwards=True, more=bool(down))
        yield from self._below("", down, upwards=False, more=False)
        if not up and not down:
            yield "└─ nothing is known that it read, used or made"

    def _below(self, indent: str, edges: list[Edge], *, upwards: bool, more: bool) -> Iterator[str]:
        files = [edge for edge in edges if self._other(edge, upwards).kind == "file"]
        hidden = set(files[_MOST:])
        shown = [edge for edge in edges if edge not in hidden]
        for place, edge in enumerate(shown):
            is_last = place == len(shown) - 1 and not more and not hidden
            node = self._other(edge, upwards)
            again = node.kind == "run" and node.id in self._shown
            self._shown.add(node.id)
            said = " (see above)" if again else ", changed since" if edge.changed else ""
            yield _fitted(f"{indent}{'└' if is_last else '├'}─ {_verb(edge, node, upwards)} ", node, said)
            behind = [] if again else (self._into if upwards else self._out_of).get(node.id, [])
            deeper = f"{indent}{'   ' if is_last else '│  '}"
            if behind and len(deeper) > 3 * _DEEPEST:
                yield f"{deeper}└─ and what is behind it: -o json has it all"
            else:
                yield from self._below(deeper, behind, upwards=upwards, more=False)
        if hidden:
            yield f"{indent}{'├' if more else '└'}─ and {len(hidden)} files more: -o json has them all"

    def _other(self, edge: Edge, upwards: bool) -> Node:
        return self._nodes[edge.source if upwards else edge.target]


def _verb(edge: Edge, node: Node, upwards: bool) -> str:
    """What the node of a line is to the one above it."""
    if node.kind == "file":
        return edge.kind
    return f"{edge.kind} by" if edge.kind == "made" or not upwards else edge.kind


def _fitted(before: str, node: Node, said: str = "") -> str:
    """A line that fits the terminal: a path is cut in its middle, which says the least."""
    from localrun.api.lineage.drawing import details

    name = one_line(node.name if node.kind == "run" else _shown(node.url))
    after = f"  {details(node)}".rstrip() + said
    if sys.stdout.isatty():
        room = max(terminal.width() - width(before) - width(after), _LEAST)
        if width(name) > room:
            head = start(name, room // 3)
            name = f"{head}…{start(name[::-1], room - width(head) - 1)[::-1]}"
    return f"{before}{name}{after}"


def _shown(url: str) -> str:
    home = os.path.expanduser("~")
    return f"~{url[len(home) :]}" if url.startswith(f"{home}/") else url
