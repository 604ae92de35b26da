"""localrun: Python functions and shell commands as durable, queued, recorded Runs on one machine.

Names are loaded when first used: importing the package costs next to nothing.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself would take 5 ms to import
    from typing import Any

    from localrun.api.executor import Executor
    from localrun.api.function import Function, function
    from localrun.api.gpus import gpus
    from localrun.api.load import run
    from localrun.api.run import Run
    from localrun.api.runs import (
        create_run,
        delete_run,
        delete_runs,
        follow_run_logs,
        get_run,
        get_run_logs,
        get_runs,
        start_run,
        start_runs,
        stop_run,
        stop_runs,
        update_run,
        update_run_metadata,
        wait_for_run_status,
    )
    from localrun.errors import (
        CacheMismatchError,
        CacheMismatchWarning,
        IllegalTransitionError,
        LocalrunError,
        MAPIException,
        NotARunError,
        PayloadError,
        ResultUnavailableError,
        RunConfigError,
        RunExistsError,
        RunFailedError,
        RunNotFoundError,
        RunStatusNotReached,
        RunStoppedError,
        SystemFailureError,
    )
    from localrun.model.config import ComputeConfig, RunConfig, SchedulingConfig
    from localrun.model.status import RunStatus

__version__ = "0.1.0"

_HOMES = {
    "localrun.api.executor": ("Executor",),
    "localrun.api.function": ("Function", "function"),
    "localrun.api.gpus": ("gpus",),
    "localrun.api.load": ("run",),
    "localrun.api.run": ("Run",),
    "localrun.api.runs": (
        "create_run", "delete_run", "delete_runs", "follow_run_logs", "get_run", "get_run_logs", "get_runs",
        "start_run", "start_runs", "stop_run", "stop_runs", "update_run", "update_run_metadata", "wait_for_run_status",
    ),
    "localrun.errors": (
        "CacheMismatchError", "CacheMismatchWarning", "IllegalTransitionError", "LocalrunError", "MAPIException",
        "NotARunError", "PayloadError", "ResultUnavailableError", "RunConfigError", "RunExistsError", "RunFailedError",
        "RunNotFoundError", "RunStatusNotReached", "RunStoppedError", "SystemFailureError",
    ),
    "localrun.model.config": ("ComputeConfig", "RunConfig", "SchedulingConfig"),
    "localrun.model.status": ("RunStatus",),
}  # fmt: skip
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "CacheMismatchError",
    "CacheMismatchWarning",
    "ComputeConfig",
    "Executor",
    "Function",
    "IllegalTransitionError",
    "LocalrunError",
    "MAPIException",
    "NotARunError",
    "PayloadError",
    "ResultUnavailableError",
    "Run",
    "RunConfig",
    "RunConfigError",
    "RunExistsError",
    "RunFailedError",
    "RunNotFoundError",
    "RunStatus",
    "RunStatusNotReached",
    "RunStoppedError",
    "SchedulingConfig",
    "SystemFailureError",
    "create_run",
    "delete_run",
    "delete_runs",
    "follow_run_logs",
    "function",
    "get_run",
    "get_run_logs",
    "get_runs",
    "gpus",
    "run",
    "start_run",
    "start_runs",
    "stop_run",
    "stop_runs",
    "update_run",
    "update_run_metadata",
    "wait_for_run_status",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'localrun' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
