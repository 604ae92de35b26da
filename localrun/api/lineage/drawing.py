"""A lineage as a picture: for Graphviz, and as an SVG made here, in layers from what came first to what came last."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from localrun.api.lineage.graph import GONE
from localrun.model.sizes import size

if TYPE_CHECKING:
    from localrun.api.lineage.graph import Edge, Lineage, Node

_WIDTH, _HEIGHT = 220, 44  # of a box
_ACROSS, _DOWN = 90, 24  # between two
_LETTERS = 30  # of a box's first line
_ROUNDS = 4

_STYLE = (
    "rect{stroke:#456;stroke-width:1}.run rect{fill:#dbe9f6}.file rect{fill:#fff}.root rect{stroke-width:3}"
    "text{font:12px sans-serif;fill:#123}.more{font-size:10px;fill:#567}.changed .more{fill:#b00}"
    "path{fill:none;stroke:#789}path.changed{stroke:#b00;stroke-dasharray:5 3}"
)


def dot(lineage: Lineage) -> str:
    """The graph in Graphviz's language."""
    lines = ["digraph lineage {", "  rankdir=LR;"]
    for node in lineage.nodes:
        shape = "box" if node.kind == "run" else "note"
        label = "\n".join(filter(None, (node.name, details(node))))
        thick = ", penwidth=3" if node == lineage.root else ""
        lines.append(f"  {_quoted(node.id)} [shape={shape}, label={_quoted(label)}{thick}];")
    for edge in lineage.edges:
        style = ', style=dashed, color=red, label="changed since"' if edge.changed else ""
        lines.append(f"  {_quoted(edge.source)} -> {_quoted(edge.target)} [tooltip={edge.kind}{style}];")
    return "\n".join([*lines, "}", ""])


def svg(lineage: Lineage) -> str:
    """The graph as a picture, from left to right."""
    layers = _layers(lineage)
    place = {
        id_: (20 + across * (_WIDTH + _ACROSS), 20 + down * (_HEIGHT + _DOWN))
        for across, layer in enumerate(layers)
        for down, id_ in enumerate(layer)
    }
    width = 40 + len(layers) * (_WIDTH + _ACROSS) - _ACROSS
    height = 40 + max(map(len, layers)) * (_HEIGHT + _DOWN) - _DOWN
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
    tip = '<marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    tip += '<polygon points="0,0 8,4 0,8" fill="#789"/></marker>'
    lines = [head, f"<style>{_STYLE}</style>", f"<defs>{tip}</defs>"]
    lines += [_curve(edge, place) for edge in lineage.edges]
    lines += [_box(node, *place[node.id], is_root=node == lineage.root) for node in lineage.nodes]
    return "\n".join([*lines, "</svg>", ""])


def details(node: Node) -> str:
    """What there is to say of a run or a file beside its name."""
    if node.kind == "run":
        return node.status or "not there any more"
    now = {None: "", GONE: "gone by now"}.get(node.now, "another one by now")
    return ", ".join(filter(None, ("" if node.size is None else size(node.size), now)))


def _layers(lineage: Lineage) -> list[list[str]]:
    """The nodes in layers, each behind all that leads to it, ordered so that lines cross little."""
    forward = _without_circles(lineage)
    depth = {node.id: 0 for node in lineage.nodes}
    for _ in lineage.nodes:
        deeper = {target: depth[source] + 1 for source, target in forward if depth[target] <= depth[source]}
        if not deeper:
            break
        depth |= deeper
    layers: list[list[str]] = [[] for _ in range(max(depth.values()) + 1)]
    for id_, layer in depth.items():
        layers[layer].append(id_)
    for turn in range(_ROUNDS):
        _straighten(layers, forward, backwards=bool(turn % 2))
    return layers


def _without_circles(lineage: Lineage) -> list[tuple[str, str]]:
    """The edges as pairs, without those that lead back to where one came from."""
    behind: dict[str, list[str]] = {node.id: [] for node in lineage.nodes}
    for edge in lineage.edges:
        behind[edge.source].append(edge.target)
    found: list[tuple[str, str]] = []
    done: set[str] = set()
    for start in behind:
        path, at = [start], {start: iter(behind[start])} if start not in done else {}
        while path and at:
            here = path[-1]
            target = next(at[here], None)
            if target is None:
                done.add(path.pop())
                del at[here]
            elif target not in at:
                found.append((here, target))
                if target not in done:
                    path.append(target)
                    at[target] = iter(behind[target])
    return found


def _straighten(layers: list[list[str]], edges: list[tuple[str, str]], *, backwards: bool) -> None:
    """Order each layer by where the neighbours of its nodes are."""
    beside: dict[str, list[str]] = {}
    for source, target in edges:
        beside.setdefault(source if backwards else target, []).append(target if backwards else source)
    where = {id_: float(place) for layer in layers for place, id_ in enumerate(layer)}

    def middle(id_: str) -> float:
        neighbours = [where[each] for each in beside.get(id_, [id_])]
        return sum(neighbours) / len(neighbours)

    for layer in reversed(layers) if backwards else layers:
        layer.sort(key=middle)
        where |= {id_: float(place) for place, id_ in enumerate(layer)}


def _curve(edge: Edge, place: dict[str, tuple[int, int]]) -> str:
    (x, y), (to_x, to_y) = place[edge.source], place[edge.target]
    x, y, to_y = x + _WIDTH, y + _HEIGHT // 2, to_y + _HEIGHT // 2
    bend = max(abs(to_x - x) // 2, 40)
    kind = ' class="changed"' if edge.changed else ""
    title = f"{edge.kind}, changed since" if edge.changed else edge.kind
    curve = f"M{x},{y} C{x + bend},{y} {to_x - bend},{to_y} {to_x},{to_y}"
    return f'<path d="{curve}" marker-end="url(#tip)"{kind}><title>{title}</title></path>'


def _box(node: Node, x: int, y: int, *, is_root: bool) -> str:
    kinds = " ".join(filter(None, (node.kind, "root" if is_root else "", "changed" if node.now else "")))
    corner = 8 if node.kind == "run" else 0
    return (
        f'<g class="{kinds}"><title>{_text(node.url)}</title>'
        f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="{corner}"/>'
        f'<text x="{x + 10}" y="{y + 18}">{_text(_short(node.name))}</text>'
        f'<text x="{x + 10}" y="{y + 34}" class="more">{_text(details(node))}</text></g>'
    )


def _short(name: str) -> str:
    half = _LETTERS // 2
    return name if len(name) <= _LETTERS else f"{name[: half - 1]}…{name[-half:]}"


def _text(text: str) -> str:
    """A text as XML takes it, which has no place for most that doesn't print."""
    return escape("".join(c if c.isprintable() else repr(c)[1:-1] for c in text))


def _quoted(text: str) -> str:
    return json.dumps("".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text), ensure_ascii=False)
