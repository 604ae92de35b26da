"""The process that asks the NVIDIA driver about its GPUs, and prints one JSON document of what it said.

It is executed by `probe` as a file (``python -P nvml.py FD SECONDS``), never imported: the driver's library is loaded
here and nowhere else, so that only this process hangs or crashes with it. It imports nothing of localrun, because its
start is what a question costs.
"""

from __future__ import annotations

import json
import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself would take 5 ms to import
    from collections.abc import Callable
    from typing import Any

# What NVML says of a value that the device simply doesn't have, or not now, or not for us.
_NOT_SUPPORTED, _NO_PERMISSION, _NOT_FOUND, _FUNCTION_NOT_FOUND, _NO_DATA, _NOT_READY = 3, 4, 6, 13, 21, 27
_NOT_GIVEN = (_NOT_SUPPORTED, _NO_PERMISSION, _FUNCTION_NOT_FOUND, _NO_DATA, _NOT_READY)
_UNSUPPORTED = (_NOT_SUPPORTED, _FUNCTION_NOT_FOUND)
# No library, or no kernel module behind it: a machine without NVIDIA GPUs.
_NO_DRIVER = (9, 12)
_CELSIUS = 0
_COMMAND_LENGTH = 200


def main(fd: int, seconds: float) -> None:
    """Write the inventory, as JSON, to a descriptor and leave; the kernel ends us if that takes too long."""
    signal.setitimer(signal.ITIMER_REAL, seconds + 1)  # whoever asked may be dead by then
    os.set_inheritable(fd, False)
    os.closerange(fd + 1, os.sysconf("SC_OPEN_MAX"))  # no lock of whoever asked lives on in here
    answer = json.dumps(inventory()).encode()
    while answer:
        answer = answer[os.write(fd, answer) :]
    os._exit(0)


def inventory() -> dict[str, Any]:
    """What `gpus.decode` makes an ``Inventory`` of."""
    try:
        import pynvml
    except ImportError as error:
        return {"gpus": [], "problem": f"nvidia-ml-py is not installed for {sys.executable}: {error}"}
    try:
        pynvml.nvmlInit()
        return _Driver(pynvml).inventory()
    except pynvml.NVMLError as error:
        if error.value in _NO_DRIVER:
            return {"gpus": []}
        return {"gpus": [], "problem": f"the NVIDIA driver refuses to answer: {_text(error)}"}


def _text(error: Any) -> str:
    """An NVML error in words and with its number."""
    try:
        words = str(error)
    except Exception:  # noqa: BLE001 - the words come from the driver's library
        words = "error"
    return f"{words.rstrip('.')} (NVML {error.value})"


class _Driver:
    """The driver's answers, put into words. An error of one device is that device's problem alone."""

    def __init__(self, pynvml: Any) -> None:
        self._nvml = pynvml
        self._users: dict[int, str] = {}

    def inventory(self) -> dict[str, Any]:
        """All that is known of the driver and its devices."""
        nvml = self._nvml
        driver = self._optional(nvml.nvmlSystemGetDriverVersion)
        cuda = self._optional(nvml.nvmlSystemGetCudaDriverVersion_v2)
        found = []
        for place, group in enumerate(self._devices()):
            found += [{**gpu, "index": place} for gpu in group]
        return {
            "gpus": found,
            "driver": driver or "unknown",
            "cuda": cuda and f"{cuda // 1000}.{cuda % 1000 // 10}",
        }

    def _devices(self) -> list[list[dict[str, Any]]]:
        """Each device as the one GPU or the instances that it is, in PCI order."""
        known: list[tuple[int, list[dict[str, Any]]]] = []
        unknown: list[tuple[int, list[dict[str, Any]]]] = []
        for number in range(self._nvml.nvmlDeviceGetCount()):
            group = self._device(number)
            (known if group[0]["pci_bus_id"] else unknown).append((number, group))
        ordered = [group for _, group in sorted(known, key=lambda each: _bus_order(each[1][0]["pci_bus_id"]))]
        for number, group in unknown:  # NVML's own order is most likely the same: it keeps the others' indices
            ordered.insert(number, group)
        return ordered

    def _device(self, number: int) -> list[dict[str, Any]]:
        """A device, or the MIG instances on it; as far as known, with the problem, where something fails."""
        gpu: dict[str, Any] = {"uuid": "", "name": "", "pci_bus_id": ""}
        nvml = self._nvml
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(number)
            gpu["uuid"] = nvml.nvmlDeviceGetUUID(handle)
            gpu["pci_bus_id"] = nvml.nvmlDeviceGetPciInfo(handle).busId
            gpu["name"] = nvml.nvmlDeviceGetName(handle)
            gpu["temperature"] = self._optional(nvml.nvmlDeviceGetTemperature, handle, _CELSIUS)
            if self._is_divided(handle):
                return self._instances(handle, gpu)
            gpu |= self._state(handle)
        except nvml.NVMLError as error:
            gpu["problem"] = _text(error)
        return [gpu]

    def _is_divided(self, handle: Any) -> bool:
        mode = self._optional(self._nvml.nvmlDeviceGetMigMode, handle)
        return mode is not None and mode[0] == 1

    def _instances(self, handle: Any, parent: dict[str, Any]) -> list[dict[str, Any]]:
        nvml = self._nvml
        found = []
        for number in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
            gpu = parent | {"uuid": "", "parent": parent["uuid"], "mig_index": number}
            try:
                instance = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
                gpu["uuid"] = nvml.nvmlDeviceGetUUID(instance)
                gpu["name"] = self._instance_name(instance, parent["name"])
                gpu |= self._state(instance)
            except nvml.NVMLError as error:
                if error.value == _NOT_FOUND:  # no instance was made there
                    continue
                gpu["problem"] = _text(error)
            found.append(gpu)
        return found or [parent | {"problem": "MIG is enabled on it, and it has no instances"}]

    def _instance_name(self, instance: Any, parent: str) -> str:
        """Such as ``NVIDIA A100-SXM4-40GB MIG 1g.5gb``; made up where the driver gives the whole GPU's."""
        name: str | None = self._optional(self._nvml.nvmlDeviceGetName, instance)
        if name and "mig" in name.lower():
            return name
        has = self._optional(self._nvml.nvmlDeviceGetAttributes_v2, instance)
        if has is None:
            return f"{parent} MIG"
        return f"{parent} MIG {has.gpuInstanceSliceCount}g.{(has.memorySizeMB + 1023) // 1024}gb"

    def _state(self, handle: Any) -> dict[str, Any]:
        """What changes from moment to moment. The processes must be known: without them nobody knows if it is free."""
        nvml = self._nvml
        memory = self._optional(nvml.nvmlDeviceGetMemoryInfo, handle, but=_UNSUPPORTED)
        rates = self._optional(nvml.nvmlDeviceGetUtilizationRates, handle)
        return {
            "memory_total": memory and memory.total,
            "memory_used": memory and memory.used,
            "utilization": rates and rates.gpu,
            "processes": [self._process(each) for each in nvml.nvmlDeviceGetComputeRunningProcesses(handle)],
        }

    def _optional(self, ask: Callable[..., Any], *arguments: Any, but: tuple[int, ...] = _NOT_GIVEN) -> Any:
        """The answer, or None if this device gives none; any other error is one."""
        try:
            return ask(*arguments)
        except self._nvml.NVMLError as error:
            if error.value in but:
                return None
            raise

    def _process(self, told: Any) -> dict[str, Any]:
        user, command = None, None
        try:
            user = self._user(os.stat(f"/proc/{told.pid}").st_uid)
            command = _command(told.pid)
        except OSError:  # it has ended, or lives where we can't see
            pass
        return {"pid": told.pid, "user": user, "command": command, "memory": told.usedGpuMemory}

    def _user(self, uid: int) -> str:
        if uid not in self._users:
            import pwd

            try:
                self._users[uid] = pwd.getpwuid(uid).pw_name
            except KeyError:
                self._users[uid] = str(uid)
        return self._users[uid]


def _command(pid: int) -> str:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        words = file.read(4096).replace(b"\0", b" ").decode(errors="replace").strip()
    if not words:  # it has overwritten its command line
        with open(f"/proc/{pid}/comm", "rb") as file:
            words = file.read().decode(errors="replace").strip()
    return words if len(words) <= _COMMAND_LENGTH else f"{words[: _COMMAND_LENGTH - 1]}…"


def _bus_order(bus_id: str) -> tuple[int, ...]:
    """The numbers in a bus id such as ``00000000:81:00.0``."""
    return tuple(int(part, 16) for part in bus_id.replace(".", ":").split(":"))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
