"""What came of a run: its result or its exception, what it was given, and whether all that is stored is as it was."""

from __future__ import annotations

import os
from typing import Any, Self

from localrun.api.output import logs
from localrun.api.recorded import Recorded
from localrun.api.tracing import current
from localrun.errors import ResultUnavailableError, RunFailedError, RunStoppedError
from localrun.model.folder import RunFolder
from localrun.model.status import RunStatus

_LOG_LINES_IN_ERRORS = 5


class RemoteTraceback(Exception):  # noqa: N818 - it is the cause of an error, shown above it
    """The traceback of an exception that was raised in a run, attached as its cause."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class Outcome(Recorded):
    """A run that can be waited for, and has an outcome then."""

    _trusted = False  # somebody said that it may be executed, whoever wrote it

    def wait(self, timeout: float | None = None) -> Self:
        """Wait until the run has ended; returns self. RunTimeoutError after ``timeout`` seconds."""
        raise NotImplementedError

    def refresh(self) -> Self:
        """Read the record again, in place. Returns self."""
        raise NotImplementedError

    def stdout(self, rank: int | None = None) -> str:
        """What the latest resumption wrote to its standard output, of the lowest rank or this one."""
        raise NotImplementedError

    def stderr(self, rank: int | None = None) -> str:
        """What the latest resumption wrote to its standard error, of the lowest rank or this one."""
        raise NotImplementedError

    def result(
        self, timeout: float | None = None, rank: int | None = None, *, mmap: bool = False, trust: bool = False
    ) -> Any:
        """Wait for the end, and return what came of the run.

        A function's return value (with ``nproc_per_node`` the list of its ranks', or with ``rank`` that one's),
        or its own exception raised with the run's traceback as its cause; a command's stdout if it completed, its
        stderr if not. ``trust``: a result that others can have written is loaded, too, which executes what it says.

        Large NumPy arrays (from 256 KiB on) are read into memory of their own, and are writable. With ``mmap`` they
        stay in the run's folder and are read-only: nothing is read before it is looked at. The result file must then
        stay as it is; moving and deleting the run does no harm. Masked arrays, memory maps, other subclasses and arrays
        of objects are unpickled as anything else is.

        Raises:
            RunFailedError: it failed and its exception can't be raised here.
            RunStoppedError: it was stopped.
            ResultUnavailableError: the result file is missing, cut short or altered.
            UntrustedRunError: others can have written it, and nobody said that they are trusted.
            RunTimeoutError: it has not ended after ``timeout`` seconds.
            ValueError: there is no such rank.
        """
        if rank is not None and (type(rank) is not int or rank not in range(self.nproc_per_node or 1)):
            raise ValueError(f"rank: run {self.name} has ranks 0 to {(self.nproc_per_node or 1) - 1}, not {rank!r}")
        return self.wait(timeout)._outcome(rank, mmap=mmap, trust=trust)

    def _outcome(self, rank: int | None = None, *, mmap: bool = False, trust: bool = False) -> Any:
        """What came of the run, which has ended."""
        self._note_use()
        if self.run_type != "FUNCTION":
            return self.stdout(rank) if self.status is RunStatus.COMPLETED else self.stderr(rank)
        error = self._error(trust)
        if error is not None:
            raise error
        if self.nproc_per_node is None or rank is not None:
            return self._load_result(rank, mmap, trust)
        return [self._load_result(each, mmap, trust) for each in range(self.nproc_per_node)]

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the end, and return the exception with which the run ended; None if it completed."""
        self.wait(timeout)._note_use()
        return self._error(trust=False)

    def _error(self, trust: bool) -> BaseException | None:
        if self.status is RunStatus.COMPLETED:
            return None
        if self.status is RunStatus.STOPPED:
            return RunStoppedError(f"run {self.name} was stopped: {self.message}")
        return self._own_exception(trust) or RunFailedError(self._failure())

    def _own_exception(self, trust: bool) -> BaseException | None:
        from localrun.model.pickles import ledger, payload

        path, stored = ledger.exception(self._folder, self._record)
        if self._record.get("error") is None or not os.path.exists(path):
            return None
        try:
            error = payload.load(path, stored, trusted=trust or self._trusted)
        except Exception:  # noqa: BLE001 - whatever keeps it from being unpickled here: its text is in the record
            return None
        if not isinstance(error, Exception):  # SystemExit and its like would end the caller instead of telling it
            return None
        error.__cause__ = RemoteTraceback(self.error_traceback)
        return error

    def _failure(self) -> str:
        """What went wrong, with the end of the log and where the rest of it is."""
        from localrun.api.output import masking

        rank = self.failed_rank or 0
        written, mask = logs.text(self._folder, self.resumption_count, rank), masking.current()
        log = (written if mask is None else mask.data(written)).decode(errors="replace").splitlines()
        tail = "".join(f"\n    {line}" for line in log[-_LOG_LINES_IN_ERRORS:])
        where = RunFolder(self.path).resumption_logs(self.resumption_count)
        return f"run {self.name} {self.status}, {self.reason}: {self.message}{tail}\nIts log: {where}"

    def _load_result(self, rank: int | None, mmap: bool, trust: bool) -> Any:
        from localrun.model.pickles import ledger, payload

        def load() -> Any:
            path, stored = ledger.result(self._folder, self._record, rank)
            return payload.load(path, stored, mapped=mmap, trusted=trust or self._trusted)

        seen = self._folder.path, self._record["result"]
        try:
            return load()
        except ResultUnavailableError:
            self.refresh()
            if seen == (self._folder.path, self._record["result"]) or self.status is not RunStatus.COMPLETED:
                raise
            return load()  # it made way for another run at this moment

    def inputs(self, *, trust: bool = False) -> dict[str, Any]:
        """A function's inputs: ``{"args": [...], "kwargs": {...}}``; of any other run, both empty.

        ``trust``: they are loaded although others can have written them, which executes what they say.
        """
        from localrun.model.pickles import ledger, payload

        self._note_use()
        if self.run_type != "FUNCTION":
            return {"args": [], "kwargs": {}}
        path, stored = ledger.inputs(self._folder, self._record)
        loaded: dict[str, Any] = payload.load(path, stored, trusted=trust or self._trusted)
        return loaded

    def verify(self) -> Self:
        """Read all that is stored of the run and compare it with the record: what it was given and what it returned.

        That is the function, its inputs, the parameters, and the result (every rank's) or the exception, each whole,
        by size and SHA-256. Logs, checkpoints and files of the user's own have no digests. Returns self.

        Raises:
            ResultUnavailableError: a file, which it names, is missing, cut short or altered.
        """
        from localrun.model.pickles import ledger, payload

        self.refresh()
        for name, stored in ledger.entries(self._record):
            payload.verify(self._folder.stored(name), stored)
        return self

    def _note_use(self) -> None:
        """Have this run among the artifacts of those that the asking code is part of."""
        users = current.folders()
        if users:
            from localrun.api.tracing import noting

            noting.note_use(users, self._folder, self._record)
