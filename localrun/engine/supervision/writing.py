"""Writing a run's record as its supervisor: steps on the way, which don't wait for a disk, and the end, which does."""

from __future__ import annotations

import time
from collections.abc import Callable

from localrun.errors import LocalrunError
from localrun.model import record as records
from localrun.model.folder import RunFolder
from localrun.model.record import Record

_RETRY_S = 1.0


class Writing:
    """The record of one run; ``log`` hears of what can't be written."""

    def __init__(self, folder: RunFolder, run: str, log: Callable[[str], None]) -> None:
        self._folder = folder
        self._run = run
        self._log = log
        self._unwritten: Callable[[Record], None] | None = None
        self._due = 0.0

    def due(self, now: float) -> float:
        """Seconds until `catch_up` has something to write."""
        return float("inf") if self._unwritten is None else max(0.0, self._due - now)

    def note(self, change: Callable[[Record], None]) -> bool:
        """Write a step on the way into the record; False if the disk refuses now. The run doesn't wait for it."""
        try:
            records.update(self._folder, self._after_the_unwritten(change))
        except OSError as error:
            self._log(f"run {self._run}: {unwritable(self._folder, error)}")
            return False
        except LocalrunError as error:
            self._log(f"run {self._run}: its record can't be written: {error}")
        self._unwritten = None
        return True

    def note_sometime(self, change: Callable[[Record], None]) -> None:
        """Write a step now or, where the disk refuses, with the next one or when `catch_up` finds that it doesn't."""
        self._unwritten = self._after_the_unwritten(change)
        self._due = time.monotonic()
        self.catch_up()

    def catch_up(self) -> None:
        """Write the step that is due; where the disk refuses, again later."""
        now = time.monotonic()
        if self.due(now) == 0 and not self.note(lambda record: None):
            self._due = now + _RETRY_S

    def _after_the_unwritten(self, change: Callable[[Record], None]) -> Callable[[Record], None]:
        before = self._unwritten
        if before is None:
            return change

        def both(record: Record) -> None:
            before(record)
            change(record)

        return both

    def end(self, change: Callable[[Record], None], when_refused: Callable[[], None]) -> Record | None:
        """Write the end, again and again while the disk refuses; None if the run or its record is gone.

        ``when_refused`` is called when it refuses first: nothing is to be kept from others while it can't be written.
        """
        told = False
        while True:
            try:
                record = records.update(self._folder, self._after_the_unwritten(change), sync=True)
                self._unwritten = None
                return record
            except LocalrunError as error:
                self._log(f"run {self._run}: its record can't be written: {error}")
                return None
            except OSError as error:
                if not told:
                    self._log(f"run {self._run}: {unwritable(self._folder, error)}; trying until it can be")
                    when_refused()
                    told = True
            time.sleep(_RETRY_S)


def unwritable(folder: RunFolder, error: OSError) -> str:
    """What is wrong with a run's folder, and what to do."""
    return f"its folder {folder.path} can't be written ({error.strerror}): free space or make it writable"
