"""Every part of Runhouse's page on Runs: what it is here, and the test that shows it."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import localrun

TESTS = Path(__file__).parent.parent

# The factory's and the class's arguments, in the page's order, and the test that shows what each does.
FACTORY = {
    "name": "integration/test_blocks.py::test_a_block_is_running_on_disk_and_completed_afterwards",
    "log_dest": "integration/test_blocks.py::test_what_is_refused",
    "path": "integration/test_blocks.py::test_a_folder_of_ones_own",
    "system": "moving/test_moving_runs.py::test_a_copy_gives_all_without_its_source",
    "data_config": "moving/test_moving_runs.py::test_handles_pickle_without_what_is_secret",
    "load": "integration/test_blocks.py::test_load_false_does_not_look",
    "dryrun": "integration/test_blocks.py::test_a_dry_run_leaves_nothing",
}
CLASS = {
    "name": "integration/test_blocks.py::test_the_class_and_the_factory_are_the_same",
    "fn_name": "integration/test_blocks.py::test_fields_that_are_given",
    "cmds": "integration/test_blocks.py::test_fields_that_are_given",
    "log_dest": "integration/test_blocks.py::test_what_is_refused",
    "path": "integration/test_blocks.py::test_a_folder_of_ones_own",
    "system": "integration/test_blocks.py::test_what_is_refused",
    "data_config": "integration/test_blocks.py::test_what_is_refused",
    "status": "integration/test_blocks.py::test_what_is_refused",
    "start_time": "integration/test_blocks.py::test_what_is_refused",
    "end_time": "integration/test_blocks.py::test_what_is_refused",
    "creator": "integration/test_blocks.py::test_fields_that_are_given",
    "creation_stacktrace": "integration/test_blocks.py::test_fields_that_are_given",
    "upstream_artifacts": "integration/test_blocks.py::test_fields_that_are_given",
    "downstream_artifacts": "integration/test_blocks.py::test_fields_that_are_given",
    "run_type": "integration/test_blocks.py::test_what_is_refused",
    "error": "integration/test_blocks.py::test_what_is_refused",
    "error_traceback": "integration/test_blocks.py::test_what_is_refused",
    "overwrite": "integration/test_blocks.py::test_names_that_are_taken",
    "dryrun": "integration/test_blocks.py::test_a_dry_run_leaves_nothing",
}
MEMBERS = {
    "config_for_rns": "integration/test_run_object.py::test_names_of_the_record_and_of_mcli",
    "inputs(self)": "integration/test_functions.py::inputs()",
    "refresh(self)": "integration/test_run_object.py::refresh",
    "result(self)": "integration/test_run_object.py::result",
    "run_config": "integration/test_run_object.py::test_names_of_the_record_and_of_mcli",
    "save(self, name=None, overwrite)":
    "integration/test_blocks.py::test_it_can_be_saved_described_and_loaded_elsewhere",
    "stderr(self)": "integration/test_block_output.py::test_loggers_that_hold_the_stream_since_before",
    "stdout(self)": "integration/test_block_output.py::test_under_capfd",
    "to(self, system, path=None, data_config=None)":
    "moving/test_moving_runs.py::test_a_copy_gives_all_without_its_source",
    "write(self, data, path)": "integration/test_run_object.py::write",
}
# What the page tells in words.
TOLD = {
    "a context manager captures the logs of a block": "integration/test_block_output.py::test_every_kind_of_output",
    "calling a function with run_name": "integration/test_functions.py::run_name",
    "running a command": "integration/test_clusters.py::run(",
    "running Python commands": "integration/test_clusters.py::run_python",
    "a run loaded from a cluster by its name": "integration/test_clusters.py::get_run",
    "a run loaded from a system by its path": "moving/test_moving_runs.py::test_a_copy_gives_all_without_its_source",
    "upstream artifacts: what the run loaded": "integration/test_blocks.py::test_artifacts_of_a_block",
    "downstream artifacts: what the run saved": "integration/test_blocks.py::test_artifacts_of_a_block",
    "upstream runs": "integration/test_lineage.py::test_each_question_is_a_use",
    "a synchronous call without a cache": "integration/test_functions.py::run_name",
    "a synchronous call with a cache": "integration/test_caching.py::get_or_call",
    "an asynchronous call without a cache": "integration/test_functions.py::.run(",
    "an asynchronous call with a cache": "integration/test_caching.py::get_or_run",
    "copied from elsewhere to here, and to a bucket": "moving/test_moving_runs.py::test_a_copy_is_copied_on",
    "logs in Python": "integration/test_run_object.py::logs",
    "logs on the command line": "cli/test_cli_logs.py::logs",
    "cancelling in Python": "integration/test_clusters.py::cancel",
    "cancelling on the command line": "cli/test_cli_control.py::stop",
    "what a folder holds": "integration/test_readme_and_examples.py::test_the_folder_is_as_drawn",
}


def test_the_factory_takes_what_it_takes_there() -> None:
    parameters = inspect.signature(localrun.run).parameters
    assert [name for name in parameters if name in FACTORY] == list(FACTORY)
    assert (parameters["log_dest"].default, parameters["load"].default) == ("file", True)
    assert any(each.kind is each.VAR_KEYWORD for each in parameters.values())


def test_the_class_takes_what_it_takes_there() -> None:
    assert list(inspect.signature(localrun.Run).parameters)[: len(CLASS)] == list(CLASS)


@pytest.mark.parametrize("member", MEMBERS)
def test_a_run_has_each_member(member: str) -> None:
    name, _, arguments = member.partition("(")
    found = inspect.getattr_static(localrun.Run, name)
    if not arguments:
        assert isinstance(found, property)
        return
    taken = inspect.signature(found).parameters
    for argument in re.findall(r"\w+(?==|,|\))", arguments):
        assert argument in taken or argument == "None", argument


@pytest.mark.parametrize("shown_by", sorted({*FACTORY.values(), *CLASS.values(), *MEMBERS.values(), *TOLD.values()}))
def test_a_test_shows_it(shown_by: str) -> None:
    path, _, word = shown_by.partition("::")
    assert word in (TESTS / path).read_text()
