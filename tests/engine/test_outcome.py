"""How an end is called: from wait statuses and the worker's word to status, reason, exit code and message."""

from __future__ import annotations

import signal

import pytest

from localrun.engine.supervision import outcome
from localrun.engine.supervision.outcome import Cause, Ending
from localrun.model.status import RunStatus

COMPLETED, FAILED, STOPPED = RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.STOPPED


def exited(code: int) -> int:
    return code << 8


def killed(number: int, core: bool = False) -> int:
    return number | (0x80 if core else 0)


@pytest.mark.parametrize(
    ("wait_status", "status", "reason", "code", "name", "message"),
    [
        (exited(0), COMPLETED, "Completed", 0, None, "exit code 0"),
        (exited(1), FAILED, "Error", 1, None, "exit code 1"),
        (exited(126), FAILED, "Error", 126, None, "may not be executed"),
        (exited(127), FAILED, "Error", 127, None, "command not found"),
        (exited(255), FAILED, "Error", 255, None, "exit code 255"),
        # A shell reports its child's signal so; the shell itself was not killed.
        (exited(137), FAILED, "Error", 137, None, "exit code 137"),
        (killed(signal.SIGSEGV, core=True), FAILED, "Killed", 139, "SIGSEGV", "SIGSEGV"),
        (killed(signal.SIGKILL), FAILED, "Killed", 137, "SIGKILL", "memory"),
        (killed(signal.SIGTERM), FAILED, "Killed", 143, "SIGTERM", "SIGTERM"),
        (killed(40), FAILED, "Killed", 168, "SIG40", "SIG40"),
    ],
)
def test_the_end_of_a_command(
    wait_status: int, status: RunStatus, reason: str, code: int, name: str | None, message: str
) -> None:
    ending = outcome.command_ended(wait_status)
    assert (ending.status, ending.reason, ending.exit_code, ending.signal) == (status, reason, code, name)
    assert message in ending.message
    assert ending.failed_rank == (None if status is COMPLETED else 0)


RAISED = {"reason": "Error", "message": "the function raised", "error": "ValueError: no", "traceback": "…"}
STORED = {"result": {"size": 4, "sha256": "ab"}}


def test_the_end_of_a_function_is_what_its_worker_said() -> None:
    ending = outcome.function_ended(exited(0), STORED)
    assert (ending.status, ending.reason, ending.result) == (COMPLETED, "Completed", STORED["result"])
    ending = outcome.function_ended(exited(1), RAISED)
    assert (ending.status, ending.reason, ending.error, ending.failed_rank) == (FAILED, "Error", "ValueError: no", 0)


@pytest.mark.parametrize("wait_status", [exited(0), exited(3)])
def test_a_function_that_left_without_a_word_returned_nothing(wait_status: int) -> None:
    ending = outcome.function_ended(wait_status, None)
    assert (ending.status, ending.reason, ending.exit_code) == (FAILED, "Error", wait_status >> 8)
    assert "returned nothing" in ending.message


def test_a_function_that_crashed_is_killed() -> None:
    ending = outcome.function_ended(killed(signal.SIGSEGV), None)
    assert (ending.status, ending.reason, ending.signal) == (FAILED, "Killed", "SIGSEGV")


def test_a_function_whose_process_crashed_after_it_returned_did_not_complete() -> None:
    ending = outcome.function_ended(killed(signal.SIGABRT), STORED)
    assert (ending.status, ending.reason, ending.signal) == (FAILED, "Killed", "SIGABRT")
    assert "returned" in ending.message


def test_a_stop_decides_the_end_and_keeps_the_exit() -> None:
    cause = Cause(STOPPED, "StoppedByUser", "stopped by me")
    assert outcome.stopped(cause, {0: exited(0)}) == Ending(STOPPED, "StoppedByUser", "stopped by me", 0, None)
    ending = outcome.stopped(cause, {0: killed(signal.SIGKILL)})
    assert (ending.exit_code, ending.signal) == (137, "SIGKILL")
    assert outcome.stopped(cause, {}).exit_code is None


def attempts(*reasons: str) -> list[dict[str, str]]:
    statuses = {"Completed": "COMPLETED", "StoppedByUser": "STOPPED"}
    return [{"status": statuses.get(reason, "FAILED"), "reason": reason} for reason in reasons]


@pytest.mark.parametrize(
    ("so_far", "max_retries", "on_system_failure", "again"),
    [
        (["Completed"], 3, True, False),
        (["StoppedByUser"], 3, True, False),
        (["FailedToStart"], 3, True, False),
        (["Error"], 0, True, False),
        (["Error"], 1, False, True),
        (["Error", "Killed"], 1, False, False),
        (["Error", "Killed"], 2, False, True),
        # System failures don't use up max_retries, and are not retried by it.
        (["SystemFailure"], 5, False, False),
        (["SystemFailure"], 0, True, True),
        (["SystemFailure", "SystemFailure", "Error"], 1, True, True),
        (["Error", "SystemFailure"], 1, True, True),
        (["Error", "SystemFailure", "Error"], 1, True, False),
    ],
)
def test_who_is_tried_again(so_far: list[str], max_retries: int, on_system_failure: bool, again: bool) -> None:
    last = attempts(so_far[-1])[0]
    ending = Ending(RunStatus.from_string(last["status"]), last["reason"], "")
    request = {"max_retries": max_retries, "retry_on_system_failure": on_system_failure}
    assert outcome.retries_left(attempts(*so_far), ending, request) is again


def test_the_delay_doubles_up_to_a_minute() -> None:
    assert [outcome.retry_delay(attempts(*["Error"] * n)) for n in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]
    preempted = {"status": "STOPPED", "reason": "Preempted"}
    assert outcome.retry_delay([preempted, preempted, *attempts("Error")]) == 1
