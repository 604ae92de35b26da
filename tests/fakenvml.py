"""GPUs without a GPU: a small ``libnvidia-ml.so.1`` that says what a text file says (`nvml/fake_nvml.c`).

The real nvidia-ml-py finds it by ``LD_LIBRARY_PATH`` in processes started in `FakeNvml.environment`; what a method
changes is what the next call of any such process sees.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).resolve().parent / "nvml" / "fake_nvml.c"
LIBRARY = "libnvidia-ml.so.1"
H100, GIB = "NVIDIA H100 80GB HBM3", 1 << 30
# NVML's error numbers.
NOT_SUPPORTED, NO_PERMISSION, DRIVER_NOT_LOADED, GPU_IS_LOST, MISMATCH, UNKNOWN = 3, 4, 9, 15, 18, 999


@functools.cache
def built() -> Path:
    """The folder in which the library lies, built once a session."""
    folder = Path(tempfile.mkdtemp(prefix="fake-nvml-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(0o755)  # for tests that become another user
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", f"-Wl,-soname,{LIBRARY}"]
    subprocess.run(["gcc", *flags, "-o", str(folder / LIBRARY), str(SOURCE)], check=True)
    return folder


class FakeNvml:
    """A machine's GPUs as its driver tells of them; ``folder`` is where the file lies that says it."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "nvml.state"
        self._driver = True
        self._gpus: dict[str, str] = {}
        self._processes: dict[tuple[str, int], str] = {}
        self._faults: dict[tuple[str, str, str], str] = {}
        self._write()

    def environment(self) -> dict[str, str]:
        """The variables by which a process finds this driver."""
        before = [part for part in os.environ.get("LD_LIBRARY_PATH", "").split(":") if part and part != str(built())]
        return {"LD_LIBRARY_PATH": ":".join([str(built()), *before]), "FAKE_NVML_STATE": str(self.state)}

    def add_gpu(
        self,
        uuid: str | None = None,
        *,
        name: str = H100,
        bus: int | None = None,
        total: int = 80 * GIB,
        used: int = 0,
        utilization: int = 0,
        temperature: int = 40,
        mig: bool = False,
    ) -> str:
        """Put one more GPU in, and return its uuid; -1 is a value that it doesn't support."""
        number = len(self._gpus)
        uuid = uuid or f"GPU-{number:08x}-0000-4000-8000-{number:012x}"
        bus_id = f"00000000:{16 + number if bus is None else bus:02X}:00.0"
        values = (uuid, bus_id, total, used, utilization, temperature, int(mig), name)
        self._gpus[uuid] = "\t".join(map(str, ("gpu", *values)))
        self._write()
        return uuid

    def add_gpus(self, count: int, **values: object) -> list[str]:
        """Put several equal GPUs in; their uuids."""
        return [self.add_gpu(**values) for _ in range(count)]  # type: ignore[arg-type]

    def add_mig(
        self, parent: str, number: int, *, total: int = 10 * GIB, used: int = 0, name: str = f"{H100} MIG 1g.10gb"
    ) -> str:
        """Make an instance on a GPU that is in MIG mode; its uuid."""
        uuid = f"MIG-{number:08x}{parent.removeprefix('GPU-')[8:]}"
        self._gpus[uuid] = "\t".join(map(str, ("mig", uuid, parent, number, total, used, name)))
        self._write()
        return uuid

    def remove_gpu(self, uuid: str) -> None:
        """Take a GPU out: its handles are lost."""
        del self._gpus[uuid]
        self._write()

    def set_process(self, uuid: str, pid: int, memory: int | str | None = GIB) -> None:
        """Let a process compute on a GPU, with so much memory, or an ``"unknown"`` amount; None ends it."""
        if memory is None:
            self._processes.pop((uuid, pid), None)
        else:
            self._processes[uuid, pid] = f"process\t{uuid}\t{pid}\t{memory}"
        self._write()

    def set_error(self, code: int, uuid: str = "*", function: str = "*") -> None:
        """Let a function (as NVML names it, without ``_v2``), or all, fail on a GPU, or all; 0 lets it work again."""
        self._set("error", uuid, function, code)

    def set_delay(self, seconds: float, uuid: str = "*", function: str = "*") -> None:
        """Let a function, or all, take so long on a GPU, or all; 0 lets it answer at once again."""
        self._set("delay", uuid, function, seconds)

    def set_driver(self, present: bool) -> None:
        """Load or unload the driver: without it the library is there and says that nothing is behind it."""
        self._driver = present
        self._write()

    def _set(self, kind: str, uuid: str, function: str, value: float) -> None:
        if value:
            self._faults[kind, uuid, function] = f"{kind}\t{uuid}\t{function}\t{value}"
        else:
            self._faults.pop((kind, uuid, function), None)
        self._write()

    def _write(self) -> None:
        if not self._driver:
            self.state.unlink(missing_ok=True)
            return
        lines = ["driver\t550.54.15\t12040", *self._gpus.values(), *self._processes.values(), *self._faults.values()]
        temporary = self.state.with_suffix(".tmp")
        temporary.write_text("\n".join([*lines, ""]))
        temporary.replace(self.state)
