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
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from localrun import files, settings
from localrun.api import newrecord
from localrun.api.output import masking
from localrun.api.provenance.gather import Gathering
from localrun.api.tracing import current
from localrun.engine.queue import Queue
from localrun.engine.supervision import conclusion
from localrun.engine.supervision.outcome import Cause, Ending
from localrun.engine.tracing import block, capture
from localrun.errors import LocalrunError, SystemFailureError
from localrun.model import record as records
from localrun.model.config import RunConfig
from localrun.model.folder import RunFolder
from localrun.model.record import Record
from localrun.model.request import Request
from localrun.model.status import CONTEXT, Reason, RunStatus

if TYPE_CHECKING:
    from localrun.api.tracing.block import Block
    from localrun.engine.tracing.audit import Watch

_entered: dict[str, tuple[Block, threading.Thread]] = {}  # by uid
_watches: dict[str, Watch] = {}  # of the files that they open; by uid, too


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
    folder = settings.run_folder(chosen, None if path is None else os.fspath(path))
    record = newrecord.make(
        chosen, config, request, {"run_type": CONTEXT, **fields}, Queue(settings.home()), folder
    )
    record["submission"] = {"folder": folder}
    return record, RunFolder(folder, record["uid"])


def enter(run: Block) -> None:
    """Make the run of a block, RUNNING, and lead this process's output into its log.

    Raises:
        RunExistsError: a run of its name or in its place has not ended.
        RunConfigError: ``trace_files`` is no list of folders.
    """
    _check_files(run)
    if run._options.dryrun:
        for status in (RunStatus.QUEUED, RunStatus.STARTING, RunStatus.RUNNING):
            records.advance(run._record, status)
        return
    record, folder = run._record, run._folder
    if records.status(record) is not RunStatus.PENDING or run.is_deleted:
        place = None if run.is_deleted else folder.path
        record, folder = new(run.name, place, {})
    with Gathering(record["cwd"]) as provenance:
        block.begin(Queue(record["home"]), record, folder.path, provenance.file, delete=run._options.overwrite)
    run._record, run._folder = record, RunFolder(folder.path, record["uid"])
    try:
        capture.begin(run._folder)
        current.enter(run._folder)
        _entered[run.run_uid] = run, threading.current_thread()
        _watch_files(run)
    except BaseException as error:
        block.end(Queue(run._record["home"]), run._folder, _ending(error, None))
        raise


def leave(run: Block, error: BaseException | None) -> None:
    """Give the streams back, and write how the block ended.

    Raises:
        SystemFailureError: the record can't be written; if the block raised too, that is said there instead.
    """
    run._leave = None
    if run._options.dryrun:
        conclusion.conclude(run._record, _ending(error, None))
        return
    if not block.is_mine(run.run_uid):
        return  # a forked child, whose parent goes on
    del _entered[run.run_uid]
    try:
        try:
            _watch_files_no_more(run)
        finally:
            current.leave(run._folder)
    finally:
        try:
            capture.end(run._folder)
        finally:
            _write_end(run, error)


def _check_files(run: Block) -> None:
    if run._options.trace_files:
        from localrun.engine.tracing import audit

        audit.check(run._options.trace_files)


def _watch_files(run: Block) -> None:
    if run._options.trace_files:
        from localrun.engine.tracing import audit

        _watches[run.run_uid] = audit.start(run._folder, run._options.trace_files)


def _watch_files_no_more(run: Block) -> None:
    if run.run_uid in _watches:
        from localrun.engine.tracing import audit

        audit.stop(_watches.pop(run.run_uid))


def _write_end(run: Block, error: BaseException | None) -> None:
    try:
        cause = conclusion.stop_cause(records.read(run._folder))
        run._record = block.end(Queue(run._record["home"]), run._folder, _ending(error, cause))
    except (OSError, LocalrunError) as unwritten:
        text = f"run {run.name}: how the block ended could not be written to {run.path}: {unwritten}"
        if error is None:
            raise SystemFailureError(text) from unwritten
        error.add_note(text)


@atexit.register
def _leave_all() -> None:
    """The program is over, and a block was never left, because it is in a generator, say, that nobody closed.

    A thread that is still at work in one is cut off by the end of the process, and that is what its record will say.
    """
    for run, thread in reversed(_entered.copy().values()):
        if block.is_mine(run.run_uid) and (thread is threading.main_thread() or not thread.is_alive()):
            leave(run, getattr(sys, "last_value", None))


def _ending(error: BaseException | None, stop: Cause | None) -> Ending:
    """What an exception, or none, makes of the block; ``stop`` says that somebody asked for its end."""
    code = 0 if error is None else exit_code(error)
    if code == 0:
        return Ending(RunStatus.COMPLETED, Reason.COMPLETED, "the block ended", exit_code=0)
    if stop is not None and isinstance(error, KeyboardInterrupt):
        return Ending(stop.status, stop.reason, stop.message, exit_code=code, signal=signal.SIGINT.name)
    mask = masking.current()

    def masked(text: str) -> str:
        return text if mask is None else mask.text(text)

    summary = masked("".join(traceback.format_exception_only(error)).strip())
    text = masked("".join(traceback.format_exception(error)))
    message = f"the block raised: {summary}"
    return Ending(RunStatus.FAILED, Reason.ERROR, message, exit_code=code, error=summary, traceback=text)


def exit_code(error: BaseException) -> int:
    """The exit code that an interpreter would make of an exception; 0 for those that only end something."""
    if isinstance(error, GeneratorExit):
        return 0
    if isinstance(error, SystemExit):
        code = error.code
        return 0 if code is None else int(code) & 0xFF if isinstance(code, int) else 1
    return 128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
