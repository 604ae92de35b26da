"""What happens around the code of a traced block: ``with localrun.run(name=...) as run:``.

Owns the order of things at its beginning and end, and what an exception means. The record is `block`'s, the output
`capture`'s, the artifacts `current`'s.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

from localrun import files, settings
from localrun.api import newrecord
from localrun.api.output import masking
from localrun.api.provenance.gather import Gathering
from localrun.api.tracing import current
from localrun.engine.queue import Queue
from localrun.engine.supervision import conclusion
from localrun.engine.supervision.outcome import Ending
from localrun.engine.tracing import block
from localrun.engine.tracing.output import capture
from localrun.engine.tracing.output.undisturbed import Undisturbed
from localrun.errors import LocalrunError, SystemFailureError
from localrun.model import record as records
from localrun.model.config import RunConfig
from localrun.model.folder import RunFolder
from localrun.model.record import Record
from localrun.model.request import Request
from localrun.model.status import CONTEXT, Reason, RunStatus

if TYPE_CHECKING:
    from localrun.api.tracing.block import Block
    from localrun.engine.tracing.files.audit import Watch


class _Entered(NamedTuple):
    run: Block
    thread: threading.Thread
    watch: Watch | None  # of the files that it opens


_entered: dict[str, _Entered] = {}  # by uid


def new(name: str | None, path: str | os.PathLike[str] | None, fields: Mapping[str, Any]) -> tuple[Record, RunFolder]:
    """The record of a block that is to be entered, and where it will lie; nothing is made yet.

    Raises:
        RunConfigError: the name can't be one.
    """
    config = RunConfig(name=name)
    config.cpus = 0  # it takes no part in the queue
    request = Request.from_config(config, needs_command=False)
    base = request.name or (os.path.basename(files.absolute(path, "path")) if path is not None else None)
    chosen = base or f"block-{os.urandom(3).hex()}"
    folder = settings.run_folder(chosen, path)
    record = newrecord.make(
        chosen, config, request, {"run_type": CONTEXT, **fields}, Queue(settings.home()), folder
    )
    record["submission"] = {"folder": folder}
    return record, RunFolder(folder, record["uid"])


def enter(run: Block) -> None:
    """Make the run of a block, RUNNING, and lead this process's output into its log.

    Raises:
        RunExistsError: a run of its name or in its place has not ended. SystemFailureError: it can't be written there.
    """
    is_entered = False
    try:
        with Undisturbed():
            _enter(run)
            is_entered = True
    except BaseException as error:
        if is_entered:  # the handler of a signal that came meanwhile raised it
            leave(run, error)
        raise


def _enter(run: Block) -> None:
    record, folder = run._record, run._folder
    if records.status(record) is not RunStatus.PENDING or run.is_deleted:
        place = None if run.is_deleted else folder.path
        record, folder = new(run.name, place, run._options.fields)
    if run._options.dryrun:
        for status in (RunStatus.QUEUED, RunStatus.STARTING, RunStatus.RUNNING):
            records.advance(record, status)
        run._record, run._folder, run._is_dry = record, folder, True
        return
    try:
        with Gathering(record["cwd"]) as provenance:
            block.begin(Queue(record["home"]), record, folder.path, provenance.file, delete=run._options.overwrite)
    except OSError as error:
        raise _not_begun(folder, record, error) from error
    run._record, run._folder = record, RunFolder(folder.path, record["uid"])
    watch = None
    try:
        watch = _watch_files(run)  # before another process is started that would be in the way of its own
        capture.begin(run._folder)
        current.enter(run._folder)
        _entered[run.run_uid] = _Entered(run, threading.current_thread(), watch)
    except BaseException as error:
        current.leave(run._folder)
        try:
            if watch is not None:
                watch.stop()
            capture.end(run._folder)
        finally:
            _end(run, error)
        if isinstance(error, OSError):
            raise _not_begun(run._folder, record, error) from error
        raise


def _not_begun(folder: RunFolder, record: Record, error: OSError) -> SystemFailureError:
    why = f"{error.strerror or error} ({error.filename or folder.path})"
    return SystemFailureError(f"run {record['name']} could not be begun in {folder.path}: {why}")


def _watch_files(run: Block) -> Watch | None:
    if run._options.trace_files is False:
        return None
    from localrun.engine.tracing.files import audit

    try:
        return audit.start(run._folder, run._options.trace_files)
    except OSError as error:
        text = f"the files that run {run.name} opens can't be recorded: {error.strerror or error}"
        warnings.warn(text, RuntimeWarning, stacklevel=2)
        return None


def leave(run: Block, error: BaseException | None) -> None:
    """Give the streams back, and write how the block ended.

    Raises:
        SystemFailureError: that can't be written; if the block raised too, it is said there instead.
    """
    with Undisturbed():
        run._leave = None
        if run._options.dryrun:
            conclusion.conclude(run._record, _ending(error))
        elif block.is_mine(run.run_uid):  # else this is a forked child, whose parent goes on
            _leave(run, error)


def _leave(run: Block, error: BaseException | None) -> None:
    entered = _entered.pop(run.run_uid)
    current.leave(run._folder)
    try:
        with ExitStack() as afterwards:  # each of it, whatever comes of the others
            afterwards.callback(_end, run, error)
            afterwards.callback(capture.end, run._folder)
            if entered.watch is not None:
                afterwards.callback(entered.watch.stop)
    except (OSError, LocalrunError) as unwritten:
        text = f"run {run.name}: its output, or how it ended, could not be written to {run.path}: {unwritten}"
        if error is None:
            raise SystemFailureError(text) from unwritten
        BaseException.add_note(error, text)
    except Warning as warning:  # to somebody for whom they are errors
        if error is None:
            raise
        BaseException.add_note(error, str(warning))


def _end(run: Block, error: BaseException | None) -> None:
    try:
        ending = _ending(error)
    except Exception as untold:  # noqa: BLE001 - the error is an object of the user's, whose code runs here
        text = f"{type(error).__qualname__} (and {type(untold).__qualname__} as it was to be told)"
        ending = Ending(RunStatus.FAILED, Reason.ERROR, f"the block raised: {text}", 1, error=text)
    run._record = block.end(Queue(run._record["home"]), run._folder, ending)


@atexit.register
def _leave_all() -> None:
    """The program is over, and a block was never left, because it is in a generator, say, that nobody closed.

    A thread that is still at work in one is cut off by the end of the process, and that is what its record will say.
    """
    watched = False
    for run, thread, watch in reversed(_entered.copy().values()):
        if block.is_mine(run.run_uid) and (thread is threading.main_thread() or not thread.is_alive()):
            leave(run, getattr(sys, "last_value", None))
            watched = watched or watch is not None
    if watched:
        from localrun.engine.tracing.files import audit

        audit.settle()


def _ending(error: BaseException | None) -> Ending:
    """What an exception, or none, makes of the block."""
    code = 0 if error is None else exit_code(error)
    if error is None or code == 0:
        return Ending(RunStatus.COMPLETED, Reason.COMPLETED, "the block ended", exit_code=0)
    told = traceback.format_exception_only(error), traceback.format_exception(error)
    mask = masking.current()
    summary, text = ("".join(lines) if mask is None else mask.text("".join(lines)) for lines in told)
    message = f"the block raised: {summary.strip()}"
    interrupt = signal.SIGINT.name if isinstance(error, KeyboardInterrupt) else None
    return Ending(RunStatus.FAILED, Reason.ERROR, message, code, interrupt, error=summary.strip(), traceback=text)


def exit_code(error: BaseException) -> int:
    """The exit code that an interpreter would make of an exception; 0 for those that only end something."""
    if isinstance(error, GeneratorExit):
        return 0
    if isinstance(error, SystemExit):
        code = error.code
        return 0 if code is None else int(code) & 0xFF if isinstance(code, int) else 1
    return 128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
