"""The process that asks the NVIDIA driver about its GPUs, and says what it hears, a line of JSON at a time.

It is executed by `probe` as a file (``python -P nvml.py FD SECONDS``), never imported: the driver's library is loaded
here and nowhere else, so that only this process hangs or crashes with it. Every device is asked by a thread of its
own, so that one on which the driver hangs costs nothing of what is known of the others; `answer` puts the lines
together. It imports nothing of localrun, because its start is what a question costs.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading  # which pynvml has imported anyway
import time

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
    """Write what the driver says to a descriptor and leave; the kernel ends us if that takes too long."""
    signal.setitimer(signal.ITIMER_REAL, seconds + 1)  # whoever asked may be dead by then
    os.set_inheritable(fd, False)
    os.closerange(fd + 1, os.sysconf("SC_OPEN_MAX"))  # no lock of whoever asked lives on in here
    lock = threading.Lock()

    def say(**line: Any) -> None:
        rest = json.dumps(line).encode() + b"\n"
        with lock:
            while rest:
                rest = rest[os.write(fd, rest) :]

    ask(say)
    say(cost=time.process_time())
    os._exit(0)


def ask(say: Callable[..., None]) -> None:
    """Say all that is known of the driver and its devices."""
    try:
        import pynvml
    except ImportError as error:
        say(problem=f"nvidia-ml-py is not installed for {sys.executable}: {error}")
        return
    try:
        pynvml.nvmlInit()
        _Driver(pynvml, say).ask()
    except pynvml.NVMLError as error:
        if error.value not in _NO_DRIVER:
            say(problem=f"the NVIDIA driver refuses to answer: {_text(error)}")


def _text(error: Any) -> str:
    """An NVML error in words and with its number."""
    try:
        words = str(error)
    except Exception:  # noqa: BLE001 - the words come from the driver's library
        words = "error"
    return f"{words.rstrip('.')} (NVML {error.value})"


class _Driver:
    """The driver's answers, put into words. An error of one device is that device's problem alone."""

    def __init__(self, pynvml: Any, say: Callable[..., None]) -> None:
        self._nvml = pynvml
        self._say = say
        self._users: dict[int, str] = {}

    def ask(self) -> None:
        """Say what the driver is and how many devices it has, and of each what is known."""
        nvml = self._nvml
        count = nvml.nvmlDeviceGetCount()
        driver = self._version(nvml.nvmlSystemGetDriverVersion)
        cuda = self._version(nvml.nvmlSystemGetCudaDriverVersion_v2)
        self._say(count=count, driver=driver or "unknown", cuda=cuda and f"{cuda // 1000}.{cuda % 1000 // 10}")
        threads = [threading.Thread(target=self._device, args=(number,)) for number in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _version(self, ask: Callable[..., Any]) -> Any:
        """What is only shown: no error of it is one."""
        try:
            return ask()
        except self._nvml.NVMLError:
            return None

    def _device(self, number: int) -> None:
        """Say what a device is, and then how it, or each MIG instance on it, is; or the problem if something fails."""
        gpu: dict[str, Any] = {"uuid": "", "name": "", "pci_bus_id": ""}
        try:
            found = self._asked(number, gpu)
        except self._nvml.NVMLError as error:
            found = [gpu | {"problem": _text(error)}]
        except Exception as error:  # noqa: BLE001 - of the driver's library, or of what it said
            found = [gpu | {"problem": f"what the driver says of it can't be understood: {error!r}"}]
        self._say(device=number, gpus=found)

    def _asked(self, number: int, gpu: dict[str, Any]) -> list[dict[str, Any]]:
        nvml = self._nvml
        handle = nvml.nvmlDeviceGetHandleByIndex(number)
        gpu["uuid"] = nvml.nvmlDeviceGetUUID(handle)
        gpu["pci_bus_id"] = nvml.nvmlDeviceGetPciInfo(handle).busId
        gpu["name"] = nvml.nvmlDeviceGetName(handle)
        self._say(device=number, known=gpu)
        gpu["temperature"] = self._optional(nvml.nvmlDeviceGetTemperature, handle, _CELSIUS)
        return self._instances(handle, gpu) if self._is_divided(handle) else [gpu | self._state(handle)]

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


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
