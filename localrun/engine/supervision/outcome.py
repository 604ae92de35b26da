"""How a run ended: from exit statuses, the worker's word and what was asked of the run to status, reason and message.

Pure policy. The supervisor gathers the facts and writes what comes out.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence

from localrun.model.status import Reason, RunStatus
from localrun.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SHELL_HINTS = {
    126: " (the command was found but may not be executed)",
    127: " (command not found)",
}
# Trying again would end the same way.
_NEVER_RAN = (Reason.FAILED_TO_START, Reason.FAILED_IMAGE_PULL)
_KILL_HINT = "; if nobody did that by hand, the kernel may have been short of memory"


class Ending(NamedTuple):
    """What the final record says. ``error``, ``traceback`` and ``exception`` are those of a function that raised.

    ``exception`` and ``result`` are what was stored of them: size and digest.
    """

    status: RunStatus
    reason: str
    message: str
    exit_code: int | None = None
    signal: str | None = None
    failed_rank: int | None = None
    error: str | None = None
    traceback: str | None = None
    exception: Mapping[str, Any] | None = None
    result: Mapping[str, Any] | Sequence[Any] | None = None


class Cause(NamedTuple):
    """Why localrun itself ends a run: a stop by the user, the time limit, a shutdown of the machine."""

    status: RunStatus
    reason: str
    message: str


def exit_code(wait_status: int) -> int:
    """The shell's number for a wait status: the exit code, or 128 + the signal's number."""
    code = os.waitstatus_to_exitcode(wait_status)
    return code if code >= 0 else 128 - code


def signal_name(wait_status: int) -> str | None:
    """The name of the signal that ended a process, or None."""
    if not os.WIFSIGNALED(wait_status):
        return None
    number = os.WTERMSIG(wait_status)
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"SIG{number}"


def stopped(cause: Cause, wait_statuses: Mapping[int, int]) -> Ending:
    """The end of a run that localrun ended: the cause decides, the first rank's exit is kept beside it."""
    first = wait_statuses.get(min(wait_statuses, default=0))
    return Ending(
        cause.status,
        cause.reason,
        cause.message,
        exit_code=None if first is None else exit_code(first),
        signal=None if first is None else signal_name(first),
    )


def failed_to_start(message: str, reason: str = Reason.FAILED_TO_START) -> Ending:
    """The end of a run of which nothing of the user's ran."""
    return Ending(RunStatus.FAILED, reason, message)


def command_ended(wait_status: int, rank: int = 0) -> Ending:
    """The end of a command by itself."""
    code, name = exit_code(wait_status), signal_name(wait_status)
    if name is not None:
        hint = _KILL_HINT if name == "SIGKILL" else ""
        return Ending(RunStatus.FAILED, Reason.KILLED, f"killed by {name}{hint}", code, name, rank)
    if code:
        return Ending(RunStatus.FAILED, Reason.ERROR, f"exit code {code}{_SHELL_HINTS.get(code, '')}", code, None, rank)
    return Ending(RunStatus.COMPLETED, Reason.COMPLETED, "exit code 0", 0)


def preparation_ended(wait_status: int, outcome: Mapping[str, Any] | None) -> Ending:
    """The end of a run's integrations: COMPLETED if its ranks may start, else that of the run."""
    ending = command_ended(wait_status)
    if ending.status is RunStatus.COMPLETED:
        return ending
    return ending._replace(message=outcome["message"] if outcome else f"its integrations ended: {ending.message}")


def fetch_ended(wait_status: int, why: str) -> Ending:
    """The end of fetching a run's image: COMPLETED if its ranks may start, else that of the run, and why."""
    ending = command_ended(wait_status)
    return ending if ending.status is RunStatus.COMPLETED else failed_to_start(why, Reason.FAILED_IMAGE_PULL)


def function_ended(wait_status: int, outcome: Mapping[str, Any] | None, rank: int = 0) -> Ending:
    """The end of a function: what its worker said, or, if it left without a word, how it left."""
    if outcome is None:
        ending = command_ended(wait_status, rank)
        if ending.reason == Reason.KILLED:
            return ending
        if ending.exit_code == os.EX_IOERR:
            message = "what came of the call could not be written: free space, or make the run's folder writable"
            return ending._replace(message=message)
        message = f"the function left the process by exit code {ending.exit_code} and returned nothing"
        return ending._replace(status=RunStatus.FAILED, reason=Reason.ERROR, message=message, failed_rank=rank)
    if "result" in outcome:
        ending = command_ended(wait_status, rank)
        if ending.status is RunStatus.COMPLETED:
            return ending._replace(message="returned", result=outcome["result"])
        # The value is stored, but threads, atexit hooks or a crash on the way out made the process fail.
        return ending._replace(message=f"the function returned, then its process ended with {ending.message}")
    return Ending(
        RunStatus.FAILED,
        outcome["reason"],
        outcome["message"],
        exit_code=exit_code(wait_status),
        signal=signal_name(wait_status),
        failed_rank=rank,
        error=outcome["error"],
        traceback=outcome["traceback"],
        exception=outcome.get("exception"),
    )


def all_completed(endings: Mapping[int, Ending]) -> Ending:
    """The end of a run all of whose ranks completed."""
    results = [endings[rank].result for rank in sorted(endings)]
    first = endings[min(endings)]
    message = f"all {len(endings)} ranks: {first.message}" if len(endings) > 1 else first.message
    return first._replace(message=message, result=results if results[0] is not None else None)


def retries_left(resumptions: Sequence[Mapping[str, Any]], ending: Ending, request: Mapping[str, Any]) -> bool:
    """True if a run that ended so is tried again; ``resumptions`` are those since it was last started by hand."""
    if ending.status is not RunStatus.FAILED or ending.reason in _NEVER_RAN:
        return False
    if ending.reason == Reason.SYSTEM_FAILURE:
        return bool(request["retry_on_system_failure"])
    failures = sum(1 for attempt in resumptions if _is_user_failure(attempt))
    return failures <= int(request["max_retries"])


def retry_delay(resumptions: Sequence[Mapping[str, Any]]) -> float:
    """Seconds before the next attempt: 1, doubling with each failure so far, at most 60."""
    failures = sum(1 for attempt in resumptions if attempt["status"] == RunStatus.FAILED.value)
    return float(min(60, 2 ** min(max(failures - 1, 0), 6)))


def _is_user_failure(attempt: Mapping[str, Any]) -> bool:
    return bool(attempt["status"] == RunStatus.FAILED.value and attempt["reason"] != Reason.SYSTEM_FAILURE)
