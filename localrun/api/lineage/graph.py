"""``localrun.lineage``: the graph of the files and runs that led to a run, and of what came of it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from localrun.api.lineage.histories import Artifact, Histories, History
from localrun.api.listing.find import find
from localrun.api.run import Run
from localrun.model import digests, times
from localrun.model.folder import RunFolder

READ, MADE, USED = "read", "made", "used"
CHANGED, GONE = "changed", "gone"


@dataclass(frozen=True, kw_only=True)
class Node:
    """A run or a version of a file. ``url`` is the run's folder, or the file's place.

    ``status`` is a run's, empty if there is no such run any more; ``now`` is "changed" or "gone" if there is another
    file at a file's place than this, or none.
    """

    id: str
    kind: str
    name: str
    url: str
    status: str | None = None
    size: int | None = None
    digest: str | None = None
    now: str | None = None


@dataclass(frozen=True, kw_only=True)
class Edge:
    """From what came first to what came of it: a file ``read`` or a run ``used`` by a run, or a file ``made`` by one.

    With ``changed`` the run made another version of the file: somebody changed it since.
    """

    source: str
    target: str
    kind: str
    changed: bool = False


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """A run, ``root``, with all that led to it and came of it: ``nodes`` and ``edges``."""

    root: Node
    nodes: list[Node] = field(repr=False)
    edges: list[Edge] = field(repr=False)

    def node(self, id: str) -> Node:  # noqa: A002 - the field's name
        """The node with that id; KeyError if there is none."""
        return {node.id: node for node in self.nodes}[id]

    def dot(self) -> str:
        """The graph in Graphviz's language."""
        from localrun.api.lineage import drawing

        return drawing.dot(self)

    def svg(self) -> str:
        """The graph as a picture."""
        from localrun.api.lineage import drawing

        return drawing.svg(self)

    def _repr_svg_(self) -> str:
        """For notebooks."""
        return self.svg()


def lineage(run: str | Run) -> Lineage:
    """The lineage of a run, by its name or a handle on it.

    Upwards: the files it read, the runs that made exactly those, and the runs whose results it used; and so on from
    each of these. Downwards: the files it made, the runs that read those, and the runs that used this one; and so on.
    Runs are looked for in the runs folder and its archive. Where a file was made by a run and is another one when it is
    read, the edge says so; and a node, if there is another file in its place now (one of more than 64 MiB is taken to
    be the same as long as its size and time don't tell otherwise).

    Raises:
        RunNotFoundError: there is no such run.
    """
    found = find(run)
    return _Builder(Histories(RunFolder(found.path, found.run_uid))).build(found)


class _Builder:
    """Follows the runs up and down; each run once in each direction, so that a circle comes to its end."""

    def __init__(self, histories: Histories) -> None:
        self._histories = histories
        self._nodes: dict[str, Node] = {}
        self._edges: dict[Edge, None] = {}

    def build(self, run: Run) -> Lineage:
        start = self._histories.of(run.run_uid)
        if start is None:  # a record that can't be read says nothing of others
            start = History(run.run_uid, run.name, run.status.value, run.path, [], [], [])
        root = self._run(start)
        _follow(start, self._up)
        _follow(start, self._down)
        return Lineage(root=root, nodes=list(self._nodes.values()), edges=list(self._edges))

    def _up(self, run: History) -> Iterable[History]:
        for artifact in run.read:
            read = self._file(artifact)
            self._link(read, self._run(run), READ)
            for maker in self._histories.makers_of(artifact):
                self._link(self._run(maker.run), read, MADE, maker.changed)
                yield maker.run
        for artifact in run.used:
            used = self._histories.used_by(artifact)
            self._link(self._run(used), self._run(run), USED)
            yield used

    def _down(self, run: History) -> Iterable[History]:
        for artifact in run.made:
            self._link(self._run(run), self._file(artifact), MADE)
        for artifact, reader in self._histories.readings_of(run):
            read = self._file(artifact)
            changed = any(maker.changed for maker in self._histories.makers_of(artifact))
            self._link(self._run(run), read, MADE, changed)
            self._link(read, self._run(reader), READ)
            yield reader
        for user in self._histories.users_of(run):
            self._link(self._run(run), self._run(user), USED)
            yield user

    def _run(self, run: History) -> Node:
        node = Node(id=f"run:{run.uid}", kind="run", name=run.name, url=run.path, status=run.status)
        return self._nodes.setdefault(node.id, node)

    def _file(self, artifact: Artifact) -> Node:
        version = self._histories.version(artifact)
        url, size, digest = version["url"], version["size"], version["digest"]
        id_ = f"file:{url}@{digest or size}"
        if id_ not in self._nodes:
            name = os.path.basename(url.rstrip("/")) or url
            now = _now(version)
            self._nodes[id_] = Node(id=id_, kind="file", name=name, url=url, size=size, digest=digest, now=now)
        return self._nodes[id_]

    def _link(self, source: Node, target: Node, kind: str, changed: bool = False) -> None:
        self._edges[Edge(source=source.id, target=target.id, kind=kind, changed=changed)] = None


def _follow(start: History, step: Any) -> None:
    seen, left = {start.uid}, [start]
    while left:
        for run in step(left.pop()):
            if run.uid not in seen:
                seen.add(run.uid)
                left.append(run)


def _now(artifact: Artifact) -> str | None:
    """What has become of a file since, as far as that can be told without reading a large one."""
    path, size, digest = artifact["url"], artifact["size"], artifact["digest"]
    if not os.path.isabs(path) or size is None:
        return None  # on another machine; or gone when it was noted
    try:
        there = os.stat(path)
        if there.st_size != size:
            return CHANGED
        if digest is None or there.st_mtime <= times.seconds(artifact["time"]):
            return None
        return None if digests.of_file(path)[1] in (None, digest) else CHANGED
    except FileNotFoundError:
        return GONE
    except (OSError, ValueError):
        return None
