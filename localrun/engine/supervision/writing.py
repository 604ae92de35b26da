"""Writing a run's record as its supervisor: steps on the way, which don't wait for a disk, and the end, which does."""

from __future__ import annotations

import time
from collections.abc import Callable

from localrun.errors import LocalrunError
from localrun.model import record as records
from localrun.model.folder import RunFolder
from localrun.model.record import Record

RETRY_S = 1.0


class Writing:
    """The record of one run; ``log`` hears of what can't be written."""

    def __init__(self, folder: RunFolder, run: str, log: Callable[[str], None]) -> None:
        self._folder = folder
        self._run = run
        self._log = log
        self._unwritten: Callable[[Record], None] | None = None

    @property
    def is_behind(self) -> bool:
        """True while a step is to be written that the disk refused."""
        return self._unwritten is not None

    def note(self, change: Callable[[Record], None]) -> bool:
        """Write a step on the way into the record; False if the disk refuses now. The run doesn't wait for it."""
        try:
            records.update(self._folder, change)
        except OSError as error:
            self._log(f"run {self._run}: {unwritable(self._folder, error)}")
            return False
        except LocalrunError as error:
            self._log(f"run {self._run}: its record can't be written: {error}")
        return True

    def note_sometime(self, change: Callable[[Record], None]) -> None:
        """Write a step now or, where the disk refuses, when `catch_up` finds that it doesn't."""
        self._unwritten = None if self.note(change) else change

    def catch_up(self) -> None:
        """Write the step that could not be."""
        if self._unwritten is not None and self.note(self._unwritten):
            self._unwritten = None

    def end(self, change: Callable[[Record], None], when_refused: Callable[[], None]) -> Record | None:
        """Write the end, again and again while the disk refuses; None if the run or its record is gone.

        ``when_refused`` is called when it refuses first: nothing is to be kept from others while it can't be written.
        """
        told = False
        while True:
            try:
                return records.update(self._folder, change, sync=True)
            except LocalrunError as error:
                self._log(f"run {self._run}: its record can't be written: {error}")
                return None
            except OSError as error:
                if not told:
                    self._log(f"run {self._run}: {unwritable(self._folder, error)}; trying until it can be")
                    when_refused()
                    told = True
            time.sleep(RETRY_S)


def unwritable(folder: RunFolder, error: OSError) -> str:
    """What is wrong with a run's folder, and what to do."""
    return f"its folder {folder.path} can't be written ({error.strerror}): free space or make it writable"
