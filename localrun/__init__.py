"""localrun: Python functions and shell commands as durable, queued, recorded Runs on one machine.

Names are loaded when first used: importing the package costs next to nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself would take 5 ms to import
    from typing import Any

    from localrun.api.account import initialize, set_api_key
    from localrun.api.executor import Executor
    from localrun.api.function import Function, function
    from localrun.api.interactive import connect, create_interactive_run
    from localrun.api.lineage.graph import Lineage, lineage
    from localrun.api.listing.lists import ObjectList, PaginatedObjectList
    from localrun.api.load import run
    from localrun.api.machine.clusters import Cluster, get_cluster, get_clusters
    from localrun.api.machine.gpus import gpus
    from localrun.api.output.runlogs import follow_run_logs, get_run_logs
    from localrun.api.provenance.export import export_run
    from localrun.api.provenance.importing import import_run
    from localrun.api.run import Run
    from localrun.api.runs import (
        create_run,
        delete_run,
        delete_runs,
        get_run,
        get_runs,
        start_run,
        start_runs,
        stop_run,
        stop_runs,
        update_run,
        update_run_metadata,
        wait_for_run_status,
    )
    from localrun.api.secrets import create_secret, delete_secrets, get_secrets
    from localrun.api.tracing.opening import open  # noqa: A004
    from localrun.api.watching import watch_run_status
    from localrun.errors import (
        CacheMismatchError,
        CacheMismatchWarning,
        IllegalTransitionError,
        LocalrunError,
        MAPIException,
        MissingPackageError,
        NotARunError,
        PayloadError,
        ResultUnavailableError,
        RunConfigError,
        RunExistsError,
        RunFailedError,
        RunNotFoundError,
        RunNotRunningError,
        RunStatusNotReached,
        RunStoppedError,
        RunTimeoutError,
        SecretExistsError,
        SecretNotFoundError,
        SystemFailureError,
        UntrustedRunError,
    )
    from localrun.model.config import ComputeConfig, RunConfig, SchedulingConfig
    from localrun.model.secret import Secret
    from localrun.model.status import RunStatus

__version__ = "0.1.0"

_HOMES = {
    "localrun.api.account": ("initialize", "set_api_key"),
    "localrun.api.machine.clusters": ("Cluster", "get_cluster", "get_clusters"),
    "localrun.api.executor": ("Executor",),
    "localrun.api.function": ("Function", "function"),
    "localrun.api.machine.gpus": ("gpus",),
    "localrun.api.interactive": ("connect", "create_interactive_run"),
    "localrun.api.load": ("run",),
    "localrun.api.listing.lists": ("ObjectList", "PaginatedObjectList"),
    "localrun.api.provenance.export": ("export_run",),
    "localrun.api.provenance.importing": ("import_run",),
    "localrun.api.run": ("Run",),
    "localrun.api.output.runlogs": ("follow_run_logs", "get_run_logs"),
    "localrun.api.runs": (
        "create_run", "delete_run", "delete_runs", "get_run", "get_runs",
        "start_run", "start_runs", "stop_run", "stop_runs", "update_run", "update_run_metadata", "wait_for_run_status",
    ),
    "localrun.api.lineage.graph": ("Lineage", "lineage"),
    "localrun.api.secrets": ("create_secret", "delete_secrets", "get_secrets"),
    "localrun.api.watching": ("watch_run_status",),
    "localrun.api.tracing.opening": ("open",),
    "localrun.errors": (
        "CacheMismatchError", "CacheMismatchWarning", "IllegalTransitionError", "LocalrunError", "MAPIException",
        "MissingPackageError", "NotARunError", "PayloadError", "ResultUnavailableError", "RunConfigError",
        "RunExistsError", "RunFailedError", "RunNotFoundError", "RunNotRunningError", "RunStatusNotReached",
        "RunStoppedError", "RunTimeoutError", "SecretExistsError", "SecretNotFoundError", "SystemFailureError",
        "UntrustedRunError",
    ),
    "localrun.model.config": ("ComputeConfig", "RunConfig", "SchedulingConfig"),
    "localrun.model.secret": ("Secret",),
    "localrun.model.status": ("RunStatus",),
}  # fmt: skip
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "CacheMismatchError",
    "CacheMismatchWarning",
    "Cluster",
    "ComputeConfig",
    "Executor",
    "Function",
    "IllegalTransitionError",
    "Lineage",
    "LocalrunError",
    "MAPIException",
    "MissingPackageError",
    "NotARunError",
    "ObjectList",
    "PaginatedObjectList",
    "PayloadError",
    "ResultUnavailableError",
    "Run",
    "RunConfig",
    "RunConfigError",
    "RunExistsError",
    "RunFailedError",
    "RunNotFoundError",
    "RunNotRunningError",
    "RunStatus",
    "RunStatusNotReached",
    "RunStoppedError",
    "RunTimeoutError",
    "SchedulingConfig",
    "Secret",
    "SecretExistsError",
    "SecretNotFoundError",
    "SystemFailureError",
    "UntrustedRunError",
    "connect",
    "create_interactive_run",
    "create_run",
    "create_secret",
    "delete_run",
    "delete_runs",
    "delete_secrets",
    "export_run",
    "follow_run_logs",
    "function",
    "get_cluster",
    "get_clusters",
    "get_run",
    "get_run_logs",
    "get_runs",
    "get_secrets",
    "gpus",
    "import_run",
    "initialize",
    "lineage",
    "open",
    "run",
    "set_api_key",
    "start_run",
    "start_runs",
    "stop_run",
    "stop_runs",
    "update_run",
    "update_run_metadata",
    "wait_for_run_status",
    "watch_run_status",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'localrun' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
