"""Every name on mcli's pages: what it is here, that it takes what it takes there, and the test that shows it."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest

import localrun

TESTS = Path(__file__).parent.parent

# As the page has it → the test that shows what it does. Defaults that mean nothing here are left out ("...").
CALLS = {
    "create_run(run, *, timeout=10, future=False)": "integration/test_commands.py",
    "create_interactive_run(run, *, timeout=10, seconds=None, future=False)": "integration/test_interactive.py",
    "delete_run(run, *, timeout=10, future=False)": "integration/test_run_object.py",
    "delete_runs(runs, *, timeout=10, future=False)": "integration/test_run_object.py",
    "follow_run_logs(run, rank=None, *, node_rank=None, local_gpu_rank=None, global_gpu_rank=None, timeout=None,"
    " future=False, resumption=None, tail=None, container=None)": "integration/test_functions.py",
    "get_run_logs(run, rank=None, *, node_rank=None, local_gpu_rank=None, global_gpu_rank=None, timeout=None,"
    " future=False, failed=False, resumption=None, tail=None, container=None)": "integration/test_functions.py",
    "get_run(run, *, timeout=10, future=False, include_details=True)": "integration/test_run_object.py",
    "get_runs(runs=None, *, cluster_names=None, before=None, after=None, gpu_types=None, gpu_nums=None, statuses=None,"
    " timeout=10, future=False, user_emails=None, run_types=None, include_details=False, include_deleted=False,"
    " ended_before=None, ended_after=None, limit=100)": "api/test_get_runs.py",
    "start_run(run, *, timeout=10, future=False)": "integration/test_lifecycle.py",
    "start_runs(runs, *, timeout=10, future=False)": "integration/test_run_object.py",
    "stop_run(run, *, reason=None, timeout=10, future=False)": "faults/test_stop.py",
    "stop_runs(runs, *, reason=None, timeout=10, future=False)": "integration/test_run_object.py",
    "update_run(run, update_run_data=None, *, preemptible=None, priority=None, max_retries=None,"
    " retry_on_system_failure=None, timeout=10, future=False, max_duration=None)":
    "integration/test_places_in_the_queue.py",
    "update_run_metadata(run, metadata, *, timeout=10, future=False, protect=False)": "integration/test_run_object.py",
    "wait_for_run_status(run, status, timeout=None, future=False)": "integration/test_run_object.py",
    "watch_run_status(run, timeout=None, future=False)": "api/test_calls.py",
    "create_secret(secret, *, timeout=10, future=False)": "integration/test_secrets.py",
    "delete_secrets(secrets=None, *, timeout=10, future=False)": "integration/test_secrets.py",
    "get_cluster(cluster, *, include_utilization=True, include_all=False, timeout=10, future=False)":
    "integration/test_clusters.py",
    "get_clusters(clusters=None, *, include_utilization=False, include_all=False, timeout=10, future=False,"
    " submission_type_filter=None)": "integration/test_clusters.py",
    "initialize(api_key=None)": "api/test_pages.py",
    "set_api_key(api_key)": "api/test_pages.py",
    "MAPIException(status, message='Unknown Error', description=None)": "api/test_errors.py",
    "RunConfig(name=None, parent_name=None, image=None, gpu_type=None, gpu_num=None, cpus=None, cluster=None,"
    " scheduling=..., compute=..., parameters=..., integrations=..., env_variables=..., metadata=..., command='',"
    " dependent_deployment=..., _suppress_deprecation_warnings=False)": "model/test_config.py",
    "RunConfig.from_file(path)": "model/test_config.py",
    "Run.clone(self, name=None, image=None, cluster=None, instance=None, nodes=None, gpu_type=None, gpus=None,"
    " priority=None, preemptible=None, max_retries=None, max_duration=None)": "integration/test_run_object.py",
    "Run.refresh(self)": "integration/test_run_object.py",
    "Run.stop(self)": "faults/test_stop.py",
    "Run.delete(self)": "integration/test_run_object.py",
    "Run.update(self, preemptible=None, priority=None, max_retries=None, retry_on_system_failure=None,"
    " max_duration=None)": "integration/test_run_object.py",
    "Run.update_metadata(self, metadata)": "integration/test_run_object.py",
    "RunStatus.before(self, other, inclusive=False)": "model/test_status.py",
    "RunStatus.after(self, other, inclusive=False)": "model/test_status.py",
    "RunStatus.is_terminal(self)": "model/test_status.py",
    "RunStatus.from_string(run_status)": "model/test_status.py",
    "ObjectList(data, obj_type)": "api/test_get_runs.py",
    "PaginatedObjectList.next_page(self, limit=None)": "api/test_get_runs.py",
    # The older page.
    "get_run_logs(run, rank=None, *, timestamps=False, timeout=None, future=False, failed=False)":
    "integration/test_functions.py",
    "follow_run_logs(run, rank=None, *, timestamps=False, timeout=None, future=False)": "integration/test_functions.py",
    "get_runs(runs=None, *, clusters=None)": "api/test_get_runs.py",
}

RUN_FIELDS = [
    "run_uid", "name", "status", "created_at", "updated_at", "created_by", "priority", "preemptible",
    "retry_on_system_failure", "cluster", "gpus", "gpu_type", "cpus", "node_count", "latest_resumption", "is_deleted",
    "run_type", "max_retries", "reason", "nodes", "submitted_config", "metadata", "last_resumption_id", "resumptions",
    "events", "lifecycle", "image", "max_duration", "started_at", "completed_at", "display_name",
    "cumulative_pending_time", "cumulative_running_time", "resumption_count", "config",
]  # fmt: skip


def found(name: str) -> Any:
    thing: Any = localrun
    for part in name.split("."):
        thing = getattr(thing, part)
    return thing


@pytest.mark.parametrize("signature", CALLS)
def test_it_takes_what_it_takes_there(signature: str) -> None:
    name, _, rest = signature.partition("(")
    [page] = ast.parse(f"def call({rest}: ...").body
    assert isinstance(page, ast.FunctionDef)
    ours = inspect.signature(found(name)).parameters
    positional = [each.arg for each in page.args.args]
    if name != "RunConfig":  # of many fields, all given by name
        assert list(ours)[: len(positional)] == positional
    defaults = dict(zip(positional[::-1], page.args.defaults[::-1], strict=False))
    defaults |= dict(zip((each.arg for each in page.args.kwonlyargs), page.args.kw_defaults, strict=True))
    for parameter in [*positional, *(each.arg for each in page.args.kwonlyargs)]:
        assert parameter in ours or any(each.kind is each.VAR_KEYWORD for each in ours.values()), parameter
        default = ast.literal_eval(defaults[parameter]) if defaults.get(parameter) else inspect.Parameter.empty
        if parameter in ours and default not in (..., inspect.Parameter.empty):
            assert ours[parameter].default in (default, [], {}), parameter


@pytest.mark.parametrize(("signature", "shown_by"), CALLS.items())
def test_a_test_shows_it(signature: str, shown_by: str) -> None:
    name = signature.partition("(")[0].rpartition(".")[2]
    assert name in (TESTS / shown_by).read_text()


@pytest.mark.parametrize("field", RUN_FIELDS)
def test_a_run_has_every_field(field: str) -> None:
    assert hasattr(localrun.Run, field)


def test_statuses() -> None:
    names = ["PENDING", "QUEUED", "STARTING", "RUNNING", "TERMINATING", "COMPLETED", "STOPPED", "FAILED", "UNKNOWN"]
    assert {status.name for status in localrun.RunStatus} == set(names)


def test_there_is_no_account_to_set_up() -> None:
    assert localrun.initialize() is None
    assert localrun.initialize("key") is None
    assert localrun.set_api_key("key") is None
