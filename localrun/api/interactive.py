"""Interactive runs: GPUs held for so many hours, and shells inside a run (``mcli.create_interactive_run``, connect)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from localrun import settings
from localrun.api import foreground, submit
from localrun.api.calls import call
from localrun.api.run import Run
from localrun.api.runs import RunOrName, get_run
from localrun.engine.dispatch.waiting import wait_until
from localrun.engine.supervision import connection
from localrun.errors import RunConfigError
from localrun.model import record as records
from localrun.model.config import RunConfig, described
from localrun.model.folder import RunFolder
from localrun.model.record import Record
from localrun.model.status import RunStatus

INTERACTIVE = "INTERACTIVE"

_DEFAULT_HOURS = 1.0
_MOST_HOURS = 24 * 366


@call
def create_interactive_run(
    run: RunConfig | Mapping[str, Any],
    *,
    hours: float | None = None,
    seconds: float | None = None,
    timeout: float | None = 10,
    future: bool = False,
) -> Run:
    """Queue a run that does nothing but hold what it asked for, for so many ``hours`` or ``seconds`` (1 hour).

    Its time counts from its start; then it is COMPLETED, and the shells that `connect` has opened in it are ended.
    As with mcli, a ``command`` of the configuration is overwritten and no name need be given. The configuration is not
    changed.

    Raises:
        RunConfigError: the configuration or the time is refused (400). Nothing was created.
    """
    config = run.copy() if isinstance(run, RunConfig) else RunConfig.from_mapping(run)
    config.command = f"sleep {_seconds(hours, seconds):.15g}"
    return submit.command(config, run_type=INTERACTIVE, base="interactive")


def connect(run: RunOrName, command: str | Sequence[str] | None = None, *, rank: int | None = None) -> int:
    """Open the user's shell inside a running run, or run a command there, and return its exit code once it ends.

    It has the run's environment, GPUs and working folder, or those of one ``rank``, and this process's terminal or
    standard streams. Text is a command for bash, a list a program with its arguments. In a run with an image all that
    is its container's, and so is the shell: bash, or sh if there is none. When the run ends, it is ended
    with it: asked by SIGTERM, and killed after the run's ``stop_grace``.

    Raises:
        RunNotRunningError: the run isn't RUNNING (409). RunNotFoundError: there is none of that name (404).
        RunConfigError: there is no such rank or program (400).
        UntrustedRunError: others can have written its record, which says what is executed for that (403).
    """
    found = get_run(run)
    found._refuse_untrusted()
    folder = RunFolder(found.path, found.run_uid)
    shell, variables = settings.shell(), settings.terminal()
    return foreground.call(lambda: connection.start(folder, command, shell=shell, rank=rank, variables=variables))


def wait_until_running(run: Run, looked: Callable[[Run], object] = lambda run: None) -> Run:
    """Wait until a run is RUNNING, or has ended without; ``looked`` is called with it whenever it is looked at."""

    def tell(record: Record) -> None:
        run._record = record
        looked(run)

    run._record = wait_until(run._queue, run._folder, _is_decided, meanwhile=tell)
    return run


def _is_decided(record: Record) -> bool:
    status = records.status(record)
    return status is RunStatus.RUNNING or status.is_terminal()


def _seconds(hours: float | None, seconds: float | None) -> float:
    if hours is not None and seconds is not None:
        raise RunConfigError("hours: give either hours or seconds")
    field, given, unit = ("hours", hours, 3600) if seconds is None else ("seconds", seconds, 1)
    given = _DEFAULT_HOURS if given is None else given
    is_number = isinstance(given, int | float) and not isinstance(given, bool) and math.isfinite(given)
    if not is_number or not 0 < given * unit <= _MOST_HOURS * 3600:
        raise RunConfigError(f"{field}: must be a number, more than 0 and at most a year, not {described(given)}")
    return given * unit
