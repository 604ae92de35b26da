"""From what a user asks for to a run in the queue: names chosen, requests checked against the machine, records made."""

from __future__ import annotations

import dataclasses
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from localrun import files, settings
from localrun.api import control
from localrun.api.run import Run
from localrun.engine.dispatch import submission
from localrun.engine.dispatch.capacity import capacity
from localrun.engine.queue import Queue
from localrun.errors import RunConfigError, RunExistsError, RunNotFoundError
from localrun.model import record as records
from localrun.model.folder import RunFolder
from localrun.model.record import Record
from localrun.model.sizes import size

if TYPE_CHECKING:
    from types import FrameType

    from localrun.model.config import RunConfig
    from localrun.model.request import Request

FUNCTION, COMMAND = "FUNCTION", "COMMAND"

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_NAME_ATTEMPTS = 20
_GPU_PATIENCE_S = 2.0


def command(
    config: RunConfig,
    path: str | None = None,
    *,
    cmds: Sequence[str] | None = None,
    run_type: str = COMMAND,
    base: str | None = None,
) -> Run:
    """Queue a command run. The config's name is used if it is free, else 6 characters are appended to it.

    ``cmds`` are the commands it runs one after another, if they are more than the config's; ``base`` names a run
    without a name, by default the command does.

    Raises:
        RunConfigError: the configuration is refused. Nothing was created.
    """
    from localrun.model.request import Request, name_from_command

    request = Request.from_config(config)
    fields = {"cmds": list(cmds or [request.command]), "run_type": run_type}
    base = request.name or base or name_from_command(request.command)
    return _with_a_free_name(base, config, request, fields, {}, always_suffix=request.name is None, path=path)


def check(config: RunConfig, *, needs_command: bool = True) -> None:
    """Refuse what would be refused if it were submitted, with the same errors; makes nothing."""
    from localrun.model.request import Request

    request = Request.from_config(config, needs_command=needs_command)
    _refuse_the_impossible(request)
    _refuse_unknown_secrets(request)
    for run in (*request.after, *request.after_any):
        _found(run)


def function(
    config: RunConfig,
    *,
    fields: Mapping[str, Any],
    contents: Mapping[str, bytes],
    base: str,
    path: str | None,
    there: Run | None,
) -> Run:
    """Queue a function run. A config with a name gets exactly that name; ``there``, if it has ended, is archived.

    ``fields`` go into the record, ``contents`` are the files of the folder, ``base`` names a run without a name.

    Raises:
        RunExistsError: ``there`` is queued or active, or by now another run has the name.
    """
    from localrun.model.request import Request

    request = Request.from_config(config, needs_command=False)
    given = {**fields, "run_type": FUNCTION}
    if request.name is None and path is None:
        return _with_a_free_name(base, config, request, given, contents, always_suffix=True, path=None)
    name = request.name or os.path.basename(files.absolute(path or "", "path"))
    return _in_place_of(there, name, config, request, given, contents, path)


def commands(config: RunConfig, cmds: Sequence[str]) -> Run:
    """Queue a run of several commands. A config with a name gets exactly that name: a run of it that ended is archived.

    Raises:
        RunExistsError: a run of that name is queued or active. RunConfigError: as of `command`.
    """
    from localrun.model.request import Request

    config.command = "\n".join(cmds)
    request = Request.from_config(config)
    if request.name is None:
        return command(config, cmds=cmds)
    fields = {"cmds": list(cmds), "run_type": COMMAND}
    return _in_place_of(find(request.name), request.name, config, request, fields, {}, None)


def clone(run: Run, name: str | None, overrides: Mapping[str, Any]) -> Run:
    """Submit a run again as a new one, with some fields of its configuration overridden."""
    if run.fn_name is not None and overrides.get("command"):
        raise RunConfigError(f"command: run {run.name} is a function's: its clone takes none")
    config = run.config
    for field, value in overrides.items():
        if value is not None:
            setattr(config, field, value)
    config.name = name or run.name
    if not config.integrations:
        config.cwd = overrides.get("cwd") or run.cwd  # where it ran, not where the caller happens to be
    if run.fn_name is None:
        return command(config, cmds=None if overrides.get("command") else run.cmds, run_type=run.run_type)
    from localrun.model.request import Request

    folder = RunFolder(run.path)
    contents = {"function.pkl": files.read(folder.function), "inputs.pkl": files.read(folder.inputs)}
    record = records.read(folder)
    fields = {key: record[key] for key in ("fn_name", "fingerprints", "python")} | {"run_type": FUNCTION}
    request = Request.from_config(config, needs_command=False)
    return _with_a_free_name(config.name, config, request, fields, contents, always_suffix=False, path=None)


def folder_of(name: str, path: str | None = None) -> str:
    """Where the run of that name lies, or is to lie."""
    if path is not None:
        return files.absolute(path, "path")
    return f"{settings.runs_dir()}/{name}"


def _with_a_free_name(
    base: str,
    config: RunConfig,
    request: Request,
    fields: Mapping[str, Any],
    contents: Mapping[str, bytes],
    *,
    always_suffix: bool,
    path: str | None,
) -> Run:
    name = f"{base[:121]}-{_suffix()}" if always_suffix else base
    for _ in range(_NAME_ATTEMPTS):
        try:
            return _submit(name, config, request, fields, contents, path, None)
        except RunExistsError:
            if path is not None:
                raise
            name = f"{base[:121]}-{_suffix()}"
    raise RunExistsError(f"name: no free name was found for {base!r}")


def _in_place_of(
    there: Run | None,
    name: str,
    config: RunConfig,
    request: Request,
    fields: Mapping[str, Any],
    contents: Mapping[str, bytes],
    path: str | None,
) -> Run:
    if there is not None and not there.status.is_terminal():
        raise RunExistsError(f"run {name} is {there.status} already: wait for it, stop it, or choose another name")
    return _submit(name, config, request, fields, contents, path, None if there is None else there.run_uid)


def _submit(
    name: str,
    config: RunConfig,
    request: Request,
    fields: Mapping[str, Any],
    contents: Mapping[str, bytes],
    path: str | None,
    replace_uid: str | None,
) -> Run:
    _refuse_the_impossible(request)
    _refuse_unknown_secrets(request)
    folder = folder_of(name, path)
    queue = Queue(settings.home())
    record = _record(name, config, request, fields, queue)
    if request.integrations:
        record["cwd"] = RunFolder(folder).work
    if request.image:
        _add_container(record, request)
    contents = dict(contents)
    if request.parameters:
        contents["parameters.yaml"] = _yaml(request.parameters)
    return Run(submission.submit(queue, record, folder, contents, replace_uid=replace_uid), RunFolder(folder))


def _refuse_the_impossible(request: Request) -> None:
    """Refuse what this machine can never give, naming what it has."""
    has = capacity()
    if request.cpus > has.cpus:
        raise RunConfigError(f"compute.cpus: {request.cpus:g} were asked for, and this process may use {has.cpus:g}")
    if request.memory > has.memory:
        asked, there = size(request.memory), size(has.memory)
        raise RunConfigError(f"compute.memory: {asked} were asked for, and this machine has {there}")
    if request.gpus:
        _refuse_gpus_there_are_not(request)


def _refuse_gpus_there_are_not(request: Request) -> None:
    """Refuse GPUs that this machine doesn't have, whoever uses those it has. A driver that can't be asked refuses none.

    A GPU that is there and has a problem counts: the run waits until it is well.
    """
    from localrun.engine.gpus import inventory as gpus
    from localrun.engine.gpus import probe
    from localrun.engine.scheduling import placement

    there = probe.inventory(_GPU_PATIENCE_S)
    if there.problem is not None:
        warnings.warn(f"GPUs: {there.problem}; the run waits until that is over", RuntimeWarning, stacklevel=2)
        return
    need = placement.GpuNeed.of(dataclasses.asdict(request))
    if len(placement.suitable(need, there.gpus)) < need.number:
        asked = f"{need} {'was' if need.number == 1 else 'were'} asked for"
        limited = " (LOCALRUN_GPUS limits them)" if settings.managed_gpus() is not None else ""
        instances = any(gpu.is_mig for gpu in there.gpus) and need.number > 1 and not need.split
        alone = ". Of MIG instances CUDA gives a process one: bind one to each rank" if instances else ""
        has = gpus.types(there.gpus)
        raise RunConfigError(f"compute.gpus: {asked}, and localrun manages {has} here{limited}{alone}")


def _refuse_unknown_secrets(request: Request) -> None:
    if request.secrets:
        from localrun.engine.launchers.secretfolder import SecretFolder

        there = SecretFolder(settings.home())
        for name in request.secrets:
            there.read(name)


def _record(name: str, config: RunConfig, request: Request, fields: Mapping[str, Any], queue: Queue) -> Record:
    uid = os.urandom(8).hex()
    after = {field: [_found(run) for run in getattr(request, field)] for field in ("after", "after_any")}
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
    return records.new(uid=uid, name=name, **{**given, **fields})


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


def _found(run: Run | str) -> Run:
    """The run that is meant. RunNotFoundError if no run has that name."""
    if isinstance(run, Run):
        return run
    try:
        return Run.load(folder_of(run))
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


def _suffix() -> str:
    return os.urandom(3).hex()


def _yaml(parameters: Mapping[str, Any]) -> bytes:
    import yaml

    text: str = yaml.safe_dump(dict(parameters), sort_keys=False, allow_unicode=True)
    return text.encode()


def find(name: str | None, path: str | None = None) -> Run | None:
    """The run of that name, or in that place; None if there is none."""
    from localrun.model.request import validate_name

    try:
        return Run.load(folder_of(validate_name(name) if path is None else "", path))
    except RunNotFoundError:
        return None
