"""What the dispatcher knows of the GPUs: the last inventory, how old it is, and who has which.

The driver is asked by a process of its own (`probe`), and only while a run waits for GPUs. A GPU is given out on an
inventory that was begun after the run was first seen waiting, and heard moments ago: what a foreign process did before
that is in it. Without such an inventory runs that want GPUs wait, and nobody else does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable

from localrun.engine.gpus import leasefolder, leases
from localrun.engine.gpus.inventory import Gpu, Inventory, foreign
from localrun.engine.gpus.probe import Probe, is_stuck, may_have_gpus
from localrun.engine.scheduling import placement
from localrun.engine.scheduling.placement import GpuNeed, Slot, Use
from localrun.errors import LocalrunError

_FRESH_S = 1.0
_PATIENCE_S = 4.0
_SELDOM_S = 10.0


class GpuWatch:
    """The dispatcher's view of the GPUs. ``log`` is told, once each, what keeps them from being seen."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._tell_of_folder()
        self._probe: Probe | None = None
        self._asked_at = 0.0
        self._inventory = Inventory()
        self._begun_at = self._heard_at = float("-inf")
        self._not_before = float("-inf")  # a driver that has failed is given time
        self._told: str | None = None

    def _tell_of_folder(self) -> None:
        try:
            notice = leasefolder.folder().notice
        except LocalrunError as error:
            notice = error.message
        if notice is not None:
            self._log(notice)

    @property
    def fd(self) -> int:
        """What becomes readable when the driver answers; -1 while it is not being asked."""
        return -1 if self._probe is None else self._probe.fd

    @property
    def deadline(self) -> float:
        """When the driver has taken too long, of the monotonic clock."""
        return float("inf") if self._probe is None else self._probe.deadline

    def seen_at(self) -> float:
        """When the inventory was begun, of the monotonic clock, if it can be gone by; else minus infinity.

        It is fresh from when it was heard on: a driver that takes long would else never be believed.
        """
        is_fresh = time.monotonic() - self._heard_at <= _FRESH_S and self._inventory.problem is None
        return self._begun_at if is_fresh else float("-inf")

    def is_enough(self, since: float, needs: Iterable[GpuNeed], ours: Collection[str]) -> bool:
        """True if there is no need to ask again: it was done after ``since``, and can't be told from now.

        What runs of ours alone keep from those in need changes when they end. Others are looked after now and then.
        """
        now = time.monotonic()
        if self._begun_at <= since or self._inventory.problem is not None or now - self._heard_at > _SELDOM_S:
            return False
        slots = self.slots(ours)
        return now - self._heard_at <= _FRESH_S or not any(placement.can_change(need, slots) for need in needs)

    def ask(self) -> bool:
        """Ask the driver, unless it is being asked; True if that has just begun. A machine without one is known."""
        if self._probe is not None:
            return False
        now = time.monotonic()
        if now < self._not_before:
            return False
        if not may_have_gpus():
            self._inventory, self._begun_at, self._heard_at = Inventory(), now, now
            return False
        if is_stuck():
            self._take(Inventory(problem="the driver hangs"))
            return False
        try:
            self._probe, self._asked_at = Probe.start(), now
        except OSError as error:
            self._take(Inventory(problem=f"the driver can't be asked: {error.strerror}"))
            return False
        return True

    def read(self) -> bool:
        """Take what the driver has answered, or give it up when its time is over; True if it is no longer asked."""
        assert self._probe is not None
        found = self._probe.read()
        if found is None and time.monotonic() >= self._probe.deadline:
            found = self._probe.give_up()
        if found is None:
            return False
        self._probe.close()
        self._probe = None
        self._begun_at, self._heard_at = self._asked_at, time.monotonic()
        self._take(found)
        return True

    def _take(self, found: Inventory) -> None:
        self._inventory = found
        if found.problem is not None:
            self._not_before = time.monotonic() + _PATIENCE_S
        if found.problem not in (None, self._told):
            self._log(f"GPUs: {found.problem}; runs that need some wait")
        self._told = found.problem

    def slots(self, ours: Collection[str]) -> tuple[Slot, ...]:
        """The GPUs and what they are used for; ``ours`` are the uuids of those that active runs of this queue have."""
        return slots_of(self._inventory, ours)


def slots_of(inventory: Inventory, ours: Collection[str]) -> tuple[Slot, ...]:
    """The GPUs of an inventory that was just taken, and what they are used for."""
    return tuple(Slot(gpu, _use(gpu, ours)) for gpu in inventory.gpus)


def _use(gpu: Gpu, ours: Collection[str]) -> Use:
    if gpu.problem is not None:
        return Use.BROKEN
    if gpu.uuid in ours:
        return Use.OURS
    try:
        if leases.holder(gpu.uuid) is not None:
            return Use.THEIRS
        leases.check(gpu.uuid)
    except LocalrunError:
        return Use.THEIRS  # nobody can tell, or it can't be leased
    # A run's processes, too: it may have lost its lease together with all who looked after it.
    return Use.FOREIGN if foreign(gpu) else Use.FREE
