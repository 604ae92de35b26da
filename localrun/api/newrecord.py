"""The record of a run that is being submitted: what it asks for, what it starts after, where it came from."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from localrun import files, settings
from localrun.api import control
from localrun.api.run import Run
from localrun.engine.queue import Queue
from localrun.errors import RunConfigError, RunNotFoundError
from localrun.model import record as records
from localrun.model.folder import RunFolder
from localrun.model.record import Record

if TYPE_CHECKING:
    from types import FrameType

    from localrun.model.config import RunConfig
    from localrun.model.request import Request

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def make(
    name: str, config: RunConfig, request: Request, fields: Mapping[str, Any], queue: Queue, folder: str
) -> Record:
    """The record of a new run in that folder; ``fields`` are what its kind adds or sets.

    Raises:
        RunNotFoundError: there is no run of a name after which it is to start. Others as `_add_container`.
    """
    uid = os.urandom(8).hex()
    after = {field: [found(run) for run in getattr(request, field)] for field in ("after", "after_any")}
    asked = {
        field: getattr(request, field)
        for field in (
            "env_variables", "cluster", "nodes", "gpu_type", "gpus", "gpu_memory", "gpu_binding", "gpu_visibility",
            "allow_shared_gpus", "nproc_per_node", "cpus", "memory", "priority", "preemptible", "max_retries",
            "retry_on_system_failure", "max_duration", "stop_grace", "secrets", "integrations",
        )
    }  # fmt: skip
    asked["managed_gpus"] = settings.managed_gpus() if request.gpus else None
    given: dict[str, Any] = {
        "creator": control.user_name(),
        "creation_stacktrace": _stack(),
        "host": os.uname().nodename,
        "home": queue.home,
        "python": python(),
        "cwd": _working_folder(request.cwd),
        "config": _with_names(config, after),
        "request": asked,
        "dependencies": [
            _dependency(run, any_end=field == "after_any") for field, runs in after.items() for run in runs
        ],
        "metadata": request.metadata,
    }
    record = records.new(uid=uid, name=name, **{**given, **fields})
    if request.integrations:
        record["cwd"] = RunFolder(folder).work
    if request.image:
        _add_container(record, request)
    return record


def _add_container(record: Record, request: Request) -> None:
    """Add to a record what its container needs, and refuse what can't be one's.

    Raises:
        RunConfigError: the working folder, or one of the volumes.
        SystemFailureError: there is no engine, or it can't be reached.
    """
    from localrun.engine.launchers.containerengine import ContainerEngine, check_reachable
    from localrun.model.containers import check_working_folder

    check_working_folder(record["cwd"])
    for index, volume in enumerate(request.volumes):
        if not os.path.exists(volume["source"]):
            raise RunConfigError(f"compute.volumes[{index}]: {volume['source']} doesn't exist on this machine")
    program, environment = settings.container_engine()
    check_reachable(ContainerEngine(program, environment), settings.docker_socket())
    fields = {field: getattr(request, field) for field in ("image", "volumes", "shm_size", "pull", "network")}
    record["request"] |= {**fields, "engine": {"program": program, "environment": environment}}
    record["image_id"] = None  # known once its containers are there


def found(run: Run | str) -> Run:
    """The run that is meant. RunNotFoundError if no run has that name, RunConfigError if it is on another system."""
    if isinstance(run, Run):
        if run.is_remote:
            raise RunConfigError(f"scheduling.after: {run.path} is not on this machine: copy it here first")
        return run
    try:
        return Run.load(settings.run_folder(run))
    except RunNotFoundError:
        raise RunNotFoundError(f"scheduling.after: there is no run {run} in {settings.runs_dir()}") from None


def _dependency(run: Run, *, any_end: bool) -> dict[str, Any]:
    """A run as a record names one that another starts after; a deleted one by where it was and is no more."""
    folder = run._record["submission"]["folder"] if run.is_deleted else run.path
    return {"name": run.name, "uid": run.run_uid, "folder": folder, "any_end": any_end}


def _with_names(config: RunConfig, after: Mapping[str, Sequence[Run]]) -> dict[str, Any]:
    """A configuration as a mapping that names the runs after which it starts."""
    mapping = config.to_mapping()
    for field, runs in after.items():
        if runs:
            mapping["scheduling"][field] = [run.name for run in runs]
    return mapping


def _working_folder(asked: str | None) -> str:
    return files.absolute(asked or ".", "cwd")


def python() -> dict[str, Any]:
    """The interpreter of this process and where it imports from: what a function needs to run again."""
    version = ".".join(map(str, sys.version_info[:3]))
    return {"executable": sys.executable, "version": version, "path": [*map(_absolute_entry, sys.path)]}


def _absolute_entry(entry: str) -> str:
    try:
        return os.path.abspath(entry)
    except FileNotFoundError:  # the folder that this process is in was removed: nothing is imported from there
        return entry


def _stack() -> str:
    """Where in the user's code the run was submitted, innermost last; without reading any source."""
    lines = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if not code.co_filename.startswith(_PACKAGE):
            lines.append(f'File "{code.co_filename}", line {frame.f_lineno}, in {code.co_qualname}')
        frame = frame.f_back
    return "\n".join(reversed(lines[:20]))
