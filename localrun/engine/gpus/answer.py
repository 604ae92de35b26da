"""What the process that asks the driver says (`nvml`), line by line, and the inventory that it makes.

It may stop in the middle: where the driver hangs on one device, what is known of the others still counts.
"""

from __future__ import annotations

import json
from typing import Any

from localrun.engine.gpus.inventory import Gpu, GpuProcess, Inventory


class Answer:
    """The lines so far: ``is_whole`` with the last one, which says the ``cost`` of them all, in seconds of CPU."""

    def __init__(self) -> None:
        self.is_whole = False
        self.cost = 0.0
        self._rest = b""
        self._said: dict[str, Any] = {}
        self._known: dict[int, dict[str, Any]] = {}
        self._devices: dict[int, list[Gpu]] = {}

    @property
    def has_devices(self) -> bool:
        """True once something is known of one."""
        return bool(self._devices)

    def add(self, data: bytes) -> None:
        """Take in what has come.

        Raises:
            ValueError: it is no answer.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            try:
                self._take(json.loads(line))
            except (AttributeError, KeyError, TypeError) as error:
                raise ValueError(f"not an answer: {error}") from error

    def _take(self, line: Any) -> None:
        if not isinstance(line, dict):
            raise TypeError("no object")
        if "gpus" in line:
            self._devices[line["device"]] = [_gpu(fields) for fields in line["gpus"]]
        elif "known" in line:
            self._known[line["device"]] = line["known"]
        elif "cost" in line:
            self.cost, self.is_whole = float(line["cost"]), True
        else:
            self._said |= line

    def inventory(self, silence: str) -> Inventory:
        """The GPUs, in PCI order; ``silence`` is what is wrong with those of which nothing was said, or with all."""
        if not self.is_whole and not self._devices:
            return Inventory(problem=silence)
        groups = {number: self._device(number, silence) for number in range(self._said.get("count", 0))}
        driver = self._said.get("driver")
        gpus = tuple(
            gpu._replace(index=place, driver=driver)
            for place, number in enumerate(_order(groups))
            for gpu in groups[number]
        )
        return Inventory(gpus, self._said.get("problem"), driver, self._said.get("cuda"))

    def _device(self, number: int, silence: str) -> list[Gpu]:
        nothing = {"uuid": "", "name": "", "pci_bus_id": ""}
        return self._devices.get(number) or [_gpu({**nothing, **self._known.get(number, {}), "problem": silence})]


def _gpu(fields: dict[str, Any]) -> Gpu:
    processes = tuple(GpuProcess(**process) for process in fields.get("processes", ()))
    return Gpu(**{"index": 0, **fields, "processes": processes})


def _order(groups: dict[int, list[Gpu]]) -> list[int]:
    """NVML's numbers in PCI order."""
    known = [number for number in groups if groups[number][0].pci_bus_id]
    order = sorted(known, key=lambda number: _bus_order(groups[number][0].pci_bus_id))
    for number in sorted(groups.keys() - known):  # NVML's order is most likely the same: the others keep their indices
        order.insert(number, number)
    return order


def _bus_order(bus_id: str) -> tuple[int, ...]:
    """The numbers in a bus id such as ``00000000:81:00.0``."""
    return tuple(int(part, 16) for part in bus_id.replace(".", ":").split(":"))
