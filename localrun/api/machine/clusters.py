"""Clusters: this machine, which goes by any name (``mcli.get_cluster``), and commands run on it (``runhouse.Cluster``).

localrun knows one machine. Whatever name it is asked for by, as in ``compute.cluster``, it is this one.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from localrun.api import submit
from localrun.api.calls import call
from localrun.api.listing.lists import ObjectList
from localrun.api.listing.selection import listed
from localrun.api.machine.gpus import gpus
from localrun.api.machine.instances import ClusterUtilization, Instance, instances_of, utilization_of
from localrun.api.output import following, logs
from localrun.api.run import Run
from localrun.api.runs import get_run
from localrun.engine.launchers import sequence
from localrun.engine.launchers.sequence import Note
from localrun.errors import ResultUnavailableError, RunConfigError, RunNotFoundError
from localrun.model.config import RunConfig, described
from localrun.model.folder import RunFolder
from localrun.model.status import Reason

# What came of a command: its exit code (128 + N for signal N), and what it wrote to stdout and stderr.
Ended = tuple[int, str, str]

_BY_ITSELF = (Reason.COMPLETED, Reason.ERROR, Reason.KILLED)


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """This machine: what it has, how it is used (None if that wasn't asked for), and commands to be run on it."""

    _columns = ("name", "cluster_instances", "utilization")  # of a list of them shown as a table

    name: str
    cluster_instances: list[Instance]
    utilization: ClusterUtilization | None = None

    def run(
        self, commands: str | Sequence[str], *, run_name: str | None = None, stream_logs: bool = True, **fields: Any
    ) -> list[Ended]:
        """Run commands one after another as one run, through the queue, and return what came of each.

        A command that fails doesn't keep the next from running, and the run is FAILED then. A run of that name that
        has ended is replaced. ``fields`` are those of RunConfig, and of ``compute`` and ``scheduling``, by name; with
        several ranks it is the lowest that is told of. ``stream_logs`` shows the output meanwhile.

        Raises:
            RunConfigError: there is no command, or a field is refused (400). Nothing was run.
            RunExistsError: a run of that name is queued or active (409).
            RunStoppedError: the run was stopped. RunFailedError: it came to its end otherwise than by its commands.
        """
        run = submit.commands(_config(run_name, fields), _listed(commands))
        if stream_logs:
            following.show(run, sys.stdout, sys.stderr)
        return _what_came_of_each(run.wait())

    def run_python(
        self, lines: str | Sequence[str], *, run_name: str | None = None, stream_logs: bool = True, **fields: Any
    ) -> list[Ended]:
        """Run lines of Python as one program, in this interpreter and the run's working folder, as `run` does.

        The lines may hold whatever Python allows: quotes, blocks over several of them, line breaks.
        """
        program = "\n".join(_listed(lines, "lines"))
        command = shlex.join([sys.executable, "-c", program])
        return self.run([command], run_name=run_name, stream_logs=stream_logs, **fields)

    def get_run(self, run_name: str) -> Run | None:
        """The run of that name; None if there is none."""
        try:
            return get_run(run_name)
        except RunNotFoundError:
            return None

    def cancel(self, run_name: str) -> Run:
        """Stop the run of that name, and wait for its end at most 10 seconds; one that has ended stays as it is.

        Raises:
            RunNotFoundError: there is none of that name (404).
        """
        return get_run(run_name).stop()


@call
def get_cluster(
    cluster: str | Cluster | None = None,
    *,
    include_utilization: bool = True,
    include_all: bool = False,
    timeout: float | None = 10,
    future: bool = False,
) -> Cluster:
    """This machine, by whatever name. ``include_all`` is mcli's: there is nothing to leave out.

    Raises:
        SystemFailureError: the GPUs' driver doesn't answer, or answers with an error (503).
    """
    name = cluster.name if isinstance(cluster, Cluster) else os.uname().nodename if cluster is None else cluster
    if not isinstance(name, str) or not name:
        raise RunConfigError(f"cluster: must be a name, not {described(name)}")
    views = gpus()
    used = utilization_of(views) if include_utilization else None
    return Cluster(name=name, cluster_instances=instances_of(views), utilization=used)


@call
def get_clusters(
    clusters: Sequence[str | Cluster] | None = None,
    *,
    include_utilization: bool = False,
    include_all: bool = False,
    submission_type_filter: Any = None,
    timeout: float | None = 10,
    future: bool = False,
) -> ObjectList[Cluster]:
    """This machine, in a list; once for each name that it is asked for by. The filter is mcli's, and filters nothing.

    Raises:
        SystemFailureError: as of `get_cluster`.
    """
    asked = [None] if clusters is None else listed(clusters, "clusters")
    return ObjectList((get_cluster(each, include_utilization=include_utilization) for each in asked), Cluster)


def _config(name: str | None, fields: dict[str, Any]) -> RunConfig:
    config = RunConfig(name=name)
    for field, value in fields.items():
        setattr(config, field, value)
    return config


def _listed(texts: str | Sequence[str], field: str = "commands") -> list[str]:
    """Commands or lines as a list; none, or an empty command, is refused."""
    listed = [texts] if isinstance(texts, str) else list(texts)
    wrong = next((text for text in listed if not isinstance(text, str)), None)
    if wrong is not None:
        raise RunConfigError(f"{field}: must be text, not {described(wrong)}")
    if not any(text.strip() for text in listed):
        raise RunConfigError(f"{field}: must not be empty")
    return listed


def _what_came_of_each(run: Run) -> list[Ended]:
    """Exit code, stdout and stderr of each command of a run that has ended."""
    folder, resumption = RunFolder(run.path), run.resumption_count
    stdout, stderr = logs.stream(folder.stdout(resumption, 0)), logs.stream(folder.stderr(resumption, 0))
    if len(run.cmds) > 1:
        notes = sequence.read(folder.commands(resumption, 0))
    else:
        notes = [Note(run.exit_code, len(stdout), len(stderr))]
    if len(notes) < len(run.cmds) or run.reason not in _BY_ITSELF:
        where = folder.resumption_logs(resumption)
        raise run.exception() or ResultUnavailableError(
            f"run {run.name}: how its commands ended could not be noted in {where}: its record and logs are whole"
        )
    before = [Note(0, 0, 0), *notes]
    return [
        (note.code, _text(stdout[last.stdout : note.stdout]), _text(stderr[last.stderr : note.stderr]))
        for last, note in zip(before, notes, strict=False)
    ]


def _text(data: bytes) -> str:
    return data.decode(errors="replace")
