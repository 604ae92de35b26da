"""A function's run from inside its process: load, call, store, say how it went.

Its word to the supervisor is the outcome file; without one the function has returned nothing. What it imports is a
part of every call.
"""

from __future__ import annotations

import os
import sys
import threading

from localrun import files
from localrun.model.folder import RunFolder
from localrun.model.pickles import payload

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FLUSH_S = 0.1


def main() -> None:
    """Do what the arguments say: run folder, resumption, rank, and the rank again if there are several."""
    folder, resumption, rank = RunFolder(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    _flush_on_a_timer()
    try:
        said, code = _call(folder, int(sys.argv[4]) if len(sys.argv) > 4 else None)
        _flush()
        os.close(files.create(folder.outcome(resumption, rank), said))
    except OSError as error:
        # A full disk: the supervisor is told by the exit code, people by the log, if that can be written.
        try:
            os.write(2, f"localrun: the outcome of the call could not be written: {error}\n".encode())
        finally:
            os._exit(os.EX_IOERR)
    if said.startswith(b'{"reason"'):
        sys.exit(code)


def _call(folder: RunFolder, rank: int | None) -> tuple[bytes, int]:
    """What came of the call, and the exit code if it failed."""
    raised = folder.exception(rank)
    try:
        function = payload.loads(files.read(folder.function))
        inputs = payload.loads(files.read(folder.inputs))
    except BaseException as error:  # noqa: BLE001 - whatever the user's code raises is the outcome
        return _failed(raised, error, "FailedToStart", "its function or inputs can't be loaded")
    try:
        value = _await(function(*inputs["args"], **inputs["kwargs"]))
    except SystemExit as error:
        what = f"the function left by sys.exit({error.code!r}) and returned nothing"
        return _failed(raised, error, "Error", what)[0], _code(error.code)
    except BaseException as error:  # noqa: BLE001
        return _failed(raised, error, "Error", "the function raised")
    try:
        stored = payload.store(value, folder.result(rank))
    except BaseException as error:  # noqa: BLE001
        return _failed(raised, error, "Error", "the function returned, but its result can't be stored")
    return str({"result": stored.to_record()}).replace("'", '"').encode(), 0  # JSON, but its module is not imported


def _code(said: Any) -> int:
    """The exit code that an interpreter makes of what ``sys.exit`` was given."""
    return 0 if said is None else said & 0xFF if isinstance(said, int) else 1


def _await(value: Any) -> Any:
    """The value of a call; that of an ``async def`` function is what its coroutine returns."""
    if type(value).__name__ == "coroutine":
        import asyncio

        return asyncio.run(value)
    return value


def _failed(path: str, error: BaseException, reason: str, what: str) -> tuple[bytes, int]:
    import json
    import traceback

    from localrun.engine.launchers import surroundings
    from localrun.model.mask import Mask

    mask = Mask(surroundings.confidential())
    text = mask.text("".join(traceback.format_exception(error)))
    sys.stderr.write(text)
    stored = None
    try:
        if mask and mask.is_needed(payload.dumps(error)):
            files.remove(path)  # its masked text alone goes back
        else:
            stored = payload.store(error, path)
    except Exception as unpicklable:  # noqa: BLE001 - then its text alone goes back
        sys.stderr.write(mask.text(f"localrun: the exception itself can't be passed on: {unpicklable}\n"))
        files.remove(path)
    summary = mask.text("".join(traceback.format_exception_only(error)).strip())
    what = mask.text(what)
    outcome = {"reason": reason, "message": f"{what}: {summary}", "error": summary, "traceback": text}
    return json.dumps(outcome | {"exception": stored and stored.to_record()}).encode(), 1


def _flush_on_a_timer() -> None:
    """Let people see what a function prints, without a write for every line."""

    def flush_forever() -> None:
        while not stop.wait(_FLUSH_S):
            _flush()

    stop = threading.Event()
    threading.Thread(target=flush_forever, name="localrun-flush", daemon=True).start()


def _flush() -> None:
    for stream in (sys.__stdout__, sys.__stderr__):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            pass  # closed by the user, or a full disk: not this thread's to report
