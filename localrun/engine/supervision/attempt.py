"""The processes of one attempt at a run: which rank each one is, which have exited, and what to call that.

Before the ranks there may be a stage, one process that stands in rank 0's place and whose end is called by a judge of
its own. Starting, watching and ending them is the supervisor's, what one is the launcher's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from localrun import files
from localrun.engine.launchers import ranks
from localrun.engine.launchers.process import ProcessLauncher
from localrun.engine.supervision import outcome
from localrun.engine.supervision.exits import Exits
from localrun.engine.supervision.outcome import Cause, Ending
from localrun.model import record as records
from localrun.model.folder import RunFolder
from localrun.model.status import RunStatus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

Judge: TypeAlias = "Callable[[int, Mapping[str, Any] | None], Ending]"


class Attempt:
    """What works for the run, children of this process. Orphans of the run become its children too."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self.launcher: ProcessLauncher  # from the claim on
        self.ranks: dict[int, int] = {}  # pid → rank
        self.stage: Judge | None = None  # what calls the end of what is at work, or has failed, before the ranks
        self.exited = 0  # children so far, adopted orphans among them
        self._exits: dict[int, int] = {}  # rank → wait status
        self._order: Exits | None = None
        self._endings: dict[int, Ending] = {}  # by rank
        self._failed: int | None = None  # the first rank that did

    def add_rank(self, pid: int, rank: int) -> None:
        """Take in a rank that was just started."""
        self.ranks[pid] = rank
        self._order = self._order or Exits()
        self._order.add(pid, rank)

    def pass_stage(self) -> None:
        """Have nothing in mind any more of a stage that succeeded."""
        self.stage = None
        self.ranks, self._exits, self._endings = {}, {}, {}

    def reap(self) -> bool:
        """Collect the children that have exited; True if any are left."""
        while True:
            try:
                pid, wait_status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            self.exited += 1
            if pid in self.ranks:
                self._exits[self.ranks[pid]] = self.launcher.wait_status(wait_status)

    def is_over(self, record: Mapping[str, Any]) -> bool:
        """True if a rank has failed, or all have exited."""
        return self.has_failed(record) or len(self._exits) == len(self.ranks)

    def has_failed(self, record: Mapping[str, Any]) -> bool:
        """True if a rank has failed; the first one that did is kept in mind."""
        order = list(self._exits) if self._order is None else self._order.in_order()
        for rank in [rank for rank in order if rank in self._exits and rank not in self._endings]:
            self._endings[rank] = self._ended(records.resumption_index(dict(record)), record, rank)
            if self._failed is None and self._endings[rank].status is not RunStatus.COMPLETED:
                self._failed = rank
        return self._failed is not None

    def ending(self, record: Mapping[str, Any], cause: Cause | None) -> Ending:
        """How the attempt ended; ``cause`` is why it was ended, if it didn't end by itself."""
        if cause is not None:
            return outcome.stopped(cause, self._exits)
        self.has_failed(record)
        if self._failed is None and record["request"].get("nproc_per_node"):
            return outcome.all_completed(self._endings)
        ending = self._endings[self._failed or 0]
        several = ranks.count(record["request"]) > 1 and self.stage is None
        return ending._replace(message=f"rank {self._failed}: {ending.message}") if several else ending

    def close(self, record: Mapping[str, Any]) -> None:
        """Keep nothing that only the ending was made of."""
        if self._order is not None:
            self._order.close()
        if record["fn_name"] is not None:
            for rank in range(ranks.count(record["request"])):
                files.remove(self._folder.outcome(records.resumption_index(dict(record)), rank))

    def _ended(self, resumption: int, record: Mapping[str, Any], rank: int) -> Ending:
        wait_status = self._exits[rank]
        if self.stage is not None:
            said = self._outcome(resumption, rank)
            files.remove(self._folder.outcome(resumption, rank))
            return self.stage(wait_status, said)
        ending = self.launcher.ended(rank, resumption, wait_status)
        if ending is not None:
            return ending
        if record["fn_name"] is None:
            return outcome.command_ended(wait_status, rank)
        return outcome.function_ended(wait_status, self._outcome(resumption, rank), rank)

    def _outcome(self, resumption: int, rank: int) -> dict[str, Any] | None:
        try:
            said: dict[str, Any] = files.read_json(self._folder.outcome(resumption, rank))
        except (OSError, ValueError):
            return None
        return said
