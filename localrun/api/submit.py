"""From what a user asks for to a run in the queue: names chosen, folders filled, places taken.

What the machine can't give is refused by `feasible`; the record is made by `newrecord`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from localrun import files, settings
from localrun.api import control, feasible, newrecord
from localrun.api.provenance.gather import Gathering
from localrun.api.run import Run
from localrun.engine.dispatch import submission
from localrun.engine.queue import Queue
from localrun.errors import RunConfigError, RunExistsError, RunNotFoundError
from localrun.model import record as records
from localrun.model.folder import RunFolder
from localrun.model.pickles.payload import Stored

if TYPE_CHECKING:
    from localrun.engine.dispatch.submission import Content
    from localrun.model.config import RunConfig
    from localrun.model.request import Request

FUNCTION, COMMAND = "FUNCTION", "COMMAND"

_NAME_ATTEMPTS = 20
_PROVENANCE = "provenance.json"


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
    from localrun.model.names import name_from_command
    from localrun.model.request import Request

    request = Request.from_config(config)
    fields = {"cmds": list(cmds or [request.command]), "run_type": run_type}
    base = request.name or base or name_from_command(request.command)
    with _Order(config, request, fields, path) as order:
        return order.with_a_free_name(base, always_suffix=request.name is None)


def check(config: RunConfig, *, needs_command: bool = True) -> None:
    """Refuse what would be refused if it were submitted, with the same errors; makes nothing."""
    from localrun.model.request import Request

    request = Request.from_config(config, needs_command=needs_command)
    feasible.check(request)
    for run in (*request.after, *request.after_any):
        newrecord.found(run)


def function(
    config: RunConfig,
    *,
    fields: Mapping[str, Any],
    contents: Callable[[], Mapping[str, bytes]],
    base: str,
    path: str | None,
    there: Run | None,
) -> Run:
    """Queue a function run. A config with a name gets exactly that name; ``there``, if it has ended, is archived.

    ``fields`` go into the record, ``contents`` gives the files of the folder, ``base`` names a run without a name.

    Raises:
        RunExistsError: ``there`` is queued or active, or by now another run has the name.
    """
    from localrun.model.request import Request

    request = Request.from_config(config, needs_command=False)
    given = {**fields, "run_type": FUNCTION}
    with _Order(config, request, given, path) as order:
        order.contents.update(contents())
        if request.name is None and path is None:
            return order.with_a_free_name(base, always_suffix=True)
        return order.in_place_of(there, request.name or os.path.basename(files.absolute(path or "", "path")))


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
    with _Order(config, request, fields) as order:
        return order.in_place_of(find(request.name), request.name)


def clone(run: Run, name: str | None, overrides: Mapping[str, Any]) -> Run:
    """Submit a run again as a new one, with some fields of its configuration overridden."""
    control.refuse_block(run._record)
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

    folder = run._folder
    contents = {"function.pkl": files.read(folder.function), "inputs.pkl": files.read(folder.inputs)}
    record = records.read(folder)
    fields = {key: record[key] for key in ("fn_name", "fingerprints", "python")} | {"run_type": FUNCTION}
    if not os.path.exists(record["python"]["executable"]):
        fields["python"] = newrecord.python()  # it ran on another machine
    request = Request.from_config(config, needs_command=False)
    with _Order(config, request, fields) as order:
        order.contents.update(contents)
        return order.with_a_free_name(config.name, always_suffix=False)


class _Order:
    """A run that is asked for, and may yet get one name or another. Inside it, where it comes from is gathered."""

    def __init__(self, config: RunConfig, request: Request, fields: Mapping[str, Any], path: str | None = None) -> None:
        self._config = config
        self._request = request
        self._fields = fields
        self._path = path
        self._provenance = Gathering(request.cwd, request.env_variables)
        self.contents: dict[str, Content] = {_PROVENANCE: self._provenance.file}

    def __enter__(self) -> _Order:
        self._provenance.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._provenance.__exit__()

    def with_a_free_name(self, base: str, *, always_suffix: bool) -> Run:
        """Submit it under this name if that is free and may be used as it is, else with 6 characters behind it."""
        name = f"{base[:121]}-{_suffix()}" if always_suffix else base
        for _ in range(_NAME_ATTEMPTS):
            try:
                return self._submit(name, None)
            except RunExistsError:
                if self._path is not None:
                    raise
                name = f"{base[:121]}-{_suffix()}"
        raise RunExistsError(f"name: no free name was found for {base!r}")

    def in_place_of(self, there: Run | None, name: str) -> Run:
        """Submit it under exactly this name; ``there`` is the run that has it, which is archived if it has ended."""
        if there is not None and not there.status.is_terminal():
            raise RunExistsError(f"run {name} is {there.status} already: wait for it, stop it, or choose another name")
        return self._submit(name, None if there is None else there.run_uid)

    def _submit(self, name: str, replace_uid: str | None) -> Run:
        feasible.check(self._request)
        folder = settings.run_folder(name, self._path)
        queue = Queue(settings.home())
        record = newrecord.make(name, self._config, self._request, self._fields, queue, folder)
        contents = dict(self.contents)
        if self._request.parameters:
            contents["parameters.yaml"] = _yaml(self._request.parameters)
        stored = {name: Stored.of(data) for name, data in contents.items() if isinstance(data, bytes)}
        record["given"] = {name: each.to_record() for name, each in stored.items()}
        return Run._of(submission.submit(queue, record, folder, contents, replace_uid=replace_uid), RunFolder(folder))


def _suffix() -> str:
    return os.urandom(3).hex()


def _yaml(parameters: Mapping[str, Any]) -> bytes:
    import yaml

    text: str = yaml.safe_dump(dict(parameters), sort_keys=False, allow_unicode=True)
    return text.encode()


def find(name: str | None, path: str | os.PathLike[str] | None = None) -> Run | None:
    """The run of that name, or in that place; None if there is none."""
    from localrun.model.names import validate_name

    try:
        return Run.load(settings.run_folder(validate_name(name) if path is None else "", path))
    except RunNotFoundError:
        return None
