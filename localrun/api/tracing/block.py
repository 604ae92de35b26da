"""The ``with`` statement of a run: ``with localrun.Run(name="prep") as run:``.

Owns what a block can be told; what happens around its code is `traced`'s.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from localrun import files
from localrun.api.recorded import Recorded
from localrun.errors import RunConfigError
from localrun.model import artifacts, times
from localrun.model.configtext import described
from localrun.model.status import RunStatus

if TYPE_CHECKING:
    from types import TracebackType

LOG_DESTINATIONS = ("file", "stream")


class Options(NamedTuple):
    """How a block is entered."""

    overwrite: bool = False
    dryrun: bool = False
    trace_files: bool | Sequence[str | os.PathLike[str]] = False
    fields: Mapping[str, Any] = {}  # of its record


# What may be given, and what is what happens: of that, only what a new run has anyway.
_GIVEN = {"fn_name", "cmds", "creator", "creation_stacktrace", "upstream_artifacts", "downstream_artifacts"}
_ARTIFACTS = {"upstream_artifacts", "downstream_artifacts"}
_HAPPENS: dict[str, tuple[Any, ...]] = {
    "status": (RunStatus.PENDING, "PENDING", "NOT_STARTED"), "start_time": (), "end_time": (), "error": (),
    "run_type": ("CONTEXT", "CTX_MANAGER", "CMD_RUN"),  # Runhouse's name for it, and Runhouse's default
    "error_traceback": (), "data_config": ({},),
}  # fmt: skip


class Block(Recorded):
    """A run that can be entered."""

    _options = Options()
    _leave: Callable[[Block, BaseException | None], None] | None = None  # while it is entered
    _is_dry = False  # it was entered to leave nothing behind

    def __init__(
        self,
        name: str | None = None,
        fn_name: str | None = None,
        cmds: list[str] | None = None,
        log_dest: str = "file",
        path: str | os.PathLike[str] | None = None,
        system: Any = None,
        data_config: Mapping[str, Any] | None = None,
        status: RunStatus | str = RunStatus.PENDING,
        start_time: str | None = None,
        end_time: str | None = None,
        creator: str | None = None,
        creation_stacktrace: str | None = None,
        upstream_artifacts: list[Any] | None = None,
        downstream_artifacts: list[Any] | None = None,
        run_type: str = "CONTEXT",
        error: str | None = None,
        error_traceback: str | None = None,
        overwrite: bool = False,
        dryrun: bool = False,
        *,
        trace_files: bool | Sequence[str | os.PathLike[str]] = False,
    ) -> None:
        """A block of code that is to be traced as a run: enter it, ``with localrun.Run(name="prep") as run:``.

        On disk it exists once entered, RUNNING; the end of the block makes it COMPLETED, or FAILED if an exception
        leaves it, which goes on its way. Everything that the process writes meanwhile, its C code and subprocesses
        included, is shown and is in the run's log; so two threads' blocks each hold what the process wrote while they
        were open. A subprocess that outlives the block writes on to its log, and is shown no more. `localrun.run` is
        the same, and also finds runs that exist.

        ``name`` or ``path`` taken: a run there that has ended is archived, or with ``overwrite`` deleted.
        ``trace_files``: record the files that the block opens; True, or the folders that count. ``dryrun``: execute
        the block and leave nothing behind. ``log_dest`` is "file" or "stream": the output is kept and shown either way.
        ``fn_name``, ``cmds``, ``creator``, ``creation_stacktrace`` and the artifacts are put into the record; its other
        fields (``status``, ``error``, …) are what happens, and can't be given. Parameters follow ``runhouse.Run``.

        Raises:
            RunConfigError: the name can't be one, or a field can't be given.
        """
        asked = options(
            log_dest, system, overwrite, dryrun, trace_files,
            fn_name=fn_name, cmds=cmds, creator=creator, creation_stacktrace=creation_stacktrace,
            upstream_artifacts=upstream_artifacts, downstream_artifacts=downstream_artifacts,
            status=status, run_type=run_type, start_time=start_time, end_time=end_time, error=error,
            error_traceback=error_traceback, data_config=data_config,
        )  # fmt: skip
        self._prepare(name, path, asked)

    @classmethod
    def _to_enter(cls, name: str | None, path: str | os.PathLike[str] | None, asked: Options) -> Self:
        """A new one, told what it is to be by options that have been checked."""
        run = cls.__new__(cls)
        run._prepare(name, path, asked)
        return run

    def _prepare(self, name: str | None, path: str | os.PathLike[str] | None, asked: Options) -> None:
        from localrun.api.tracing import traced

        self._options = asked
        self._record, self._folder = traced.new(name, path, asked.fields)

    def __enter__(self) -> Self:
        """Begin the block: the run is RUNNING.

        RunExistsError if one of its name has not ended, SystemFailureError if it can't be written.
        """
        from localrun.api.tracing import traced

        traced.enter(self)
        self._leave = traced.leave
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the block: COMPLETED, or FAILED by an exception, which propagates."""
        if self._leave is not None:  # else the end of the program came before that of a generator
            try:
                self._leave(self, error)
            except BaseException as interrupt:
                if self._leave is not None:  # Ctrl-C came before all else
                    self._leave(self, interrupt)
                raise


def _check_place(log_dest: str, system: Any) -> None:
    if log_dest not in LOG_DESTINATIONS:
        raise RunConfigError(f"log_dest: must be one of {', '.join(LOG_DESTINATIONS)}, not {log_dest!r}")
    if system not in (None, "file", "here") and getattr(system, "name", None) != os.uname().nodename:
        raise RunConfigError(f"system: a block is traced on this machine, not on {system!r}; run.to() copies it later")


def options(
    log_dest: str,
    system: Any,
    overwrite: bool,
    dryrun: bool,
    trace_files: bool | Sequence[str | os.PathLike[str]],
    **fields: Any,
) -> Options:
    """How a block is to be entered.

    Raises:
        RunConfigError: one can't be. TypeError: there is no such field.
    """
    _check_place(log_dest, system)
    for name, value in (("overwrite", overwrite), ("dryrun", dryrun)):
        if not isinstance(value, bool):
            raise RunConfigError(f"{name}: must be True or False, not {described(value)}")
    _check_files(trace_files)
    for field in fields:
        if field not in _GIVEN and field not in _HAPPENS:
            raise TypeError(f"localrun.run() got an unexpected argument {field!r}")
    _refuse_what_happens(fields)
    given = {field: value for field, value in fields.items() if field in _GIVEN and value is not None}
    for field in _ARTIFACTS & given.keys():
        if isinstance(given[field], list | tuple):
            given[field] = [_artifact(each) for each in given[field]]
    _check_given(given)
    return Options(overwrite, dryrun, trace_files, given)


def _check_files(trace_files: Any) -> None:
    if isinstance(trace_files, bool):
        return
    is_list = isinstance(trace_files, list | tuple)
    if not is_list or not all(isinstance(each, str | os.PathLike) for each in trace_files):
        raise RunConfigError(f"trace_files: must be True or a list of folders, not {trace_files!r}")


def _artifact(given: Any) -> Any:
    """A path or URL as the artifact of which nothing else is known; anything else as it is."""
    if not isinstance(given, str | os.PathLike):
        return given
    url = os.fspath(given)
    return artifacts.file(url if "://" in url else files.absolute(url, "artifact"), None, None, times.now())


def _check_given(fields: Mapping[str, Any]) -> None:
    """RunConfigError if a field can't be put into a record."""
    for field, value in fields.items():
        many = value if isinstance(value, list | tuple) else None
        if field in _ARTIFACTS:
            fits = many is not None and all(map(artifacts.is_one, many))
            what = "a list of paths, URLs, or artifacts with their kind, url, size, digest and time"
        elif field == "cmds":
            fits, what = many is not None and all(isinstance(each, str) for each in many), "a list of commands"
        else:
            fits, what = isinstance(value, str), "text"
        if not fits:
            raise RunConfigError(f"{field}: must be {what}{'' if many else f', not {described(value)}'}")


def _refuse_what_happens(fields: Mapping[str, Any]) -> None:
    for field, values in _HAPPENS.items():
        if fields.get(field) not in (None, *values):
            raise RunConfigError(f"{field}: can't be given for a block; localrun.run(path=...) loads a run that exists")
