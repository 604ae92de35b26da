"""The GPUs of this machine as localrun sees them, and which of them a run may have: data and pure policy.

How they are found out about is `probe`'s; who holds one is `leases`'. Order is that of the PCI bus everywhere
(``CUDA_DEVICE_ORDER=PCI_BUS_ID``). A GPU in MIG mode is represented by its instances, in their order: it can't be used
itself. (Named tuples and not dataclasses, whose import every fork of the dispatcher would pay for.)
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple


class GpuProcess(NamedTuple):
    """A process that computes on a GPU; memory in bytes, None where the driver doesn't say.

    ``user`` and ``command`` are None for a process that can't be seen from here (of another container, say).
    """

    pid: int
    user: str | None
    command: str | None
    memory: int | None


class Gpu(NamedTuple):
    """A whole GPU or a MIG instance; memory in bytes, utilization in percent, temperature in degrees Celsius.

    ``index`` counts whole GPUs in PCI order; an instance has that of the GPU it lies on, and its own ``mig_index``.
    ``driver`` is its driver's version.
    Where ``problem`` says what is wrong the GPU must not be given out, and anything else may be unknown: the uuid "",
    other fields None. ``memory_total`` can be None for a sound one too: where it shares the machine's memory.
    """

    index: int  # type: ignore[assignment]  # a tuple's own method is of no use here
    uuid: str
    name: str
    pci_bus_id: str
    mig_index: int | None = None
    memory_total: int | None = None
    memory_used: int | None = None
    utilization: int | None = None
    temperature: int | None = None
    parent: str | None = None
    processes: tuple[GpuProcess, ...] = ()
    problem: str | None = None
    driver: str | None = None

    @property
    def is_mig(self) -> bool:
        """True for a MIG instance."""
        return self.mig_index is not None

    @property
    def label(self) -> str:
        """How people call it: "3", and "3:0" the first instance on it (as container engines do)."""
        return f"{self.index}" if self.mig_index is None else f"{self.index}:{self.mig_index}"

    @property
    def rank(self) -> tuple[bool, int, int]:
        """What to sort by where one is chosen: whole GPUs first, then PCI order."""
        return self.is_mig, self.index, self.mig_index or 0


class Inventory(NamedTuple):
    """What was found out: no driver is no problem (``driver`` None, ``gpus`` empty), just no GPUs.

    With a ``problem`` nothing is known, and no GPU may be given out. ``missing`` are the entries of ``LOCALRUN_GPUS``
    that name no GPU there is.
    """

    gpus: tuple[Gpu, ...] = ()
    problem: str | None = None
    driver: str | None = None
    cuda: str | None = None
    missing: tuple[str, ...] = ()

    def get(self, uuid: str) -> Gpu | None:
        """The GPU of that uuid, if there is one."""
        return next((gpu for gpu in self.gpus if gpu.uuid == uuid), None)

    def usable(self) -> tuple[Gpu, ...]:
        """Those with which nothing is wrong."""
        return tuple(gpu for gpu in self.gpus if gpu.problem is None)

    def only(self, chosen: Sequence[str] | None) -> Inventory:
        """Only the GPUs that these entries (indices, labels, uuids) name; None means all.

        The entry of a GPU in MIG mode stands for all its instances.
        """
        if chosen is None or self.problem is not None:
            return self
        missing = tuple(entry for entry in chosen if not any(is_among(gpu, (entry,)) for gpu in self.gpus))
        return self._replace(gpus=tuple(gpu for gpu in self.gpus if is_among(gpu, chosen)), missing=missing)


def is_among(gpu: Gpu, chosen: Collection[str]) -> bool:
    """True if one of these entries of ``LOCALRUN_GPUS`` names a GPU."""
    names = {str(gpu.index), gpu.label, gpu.uuid.lower(), (gpu.parent or "").lower()} - {""}
    return any(entry.lower() in names for entry in chosen)


def matches(gpu: Gpu, gpu_type: str | None = None, gpu_memory: int | None = None) -> bool:
    """True if a GPU is of a type, and has at least so much memory (bytes) in all; or may, where a problem hides that.

    A type is words of the GPU's name in their order, whatever the case and with or without what stands between them:
    ``h100``, ``H 100``, ``H100-80GB`` and ``nvidia_h100`` mean ``NVIDIA H100 80GB HBM3``. Words are whole: ``a100`` is
    no ``A1000``. A type with ``mig`` in it means instances alone; others mean both, and whoever chooses prefers whole
    GPUs (`Gpu.rank`).
    """
    return _has(gpu, gpu_memory or 0) and _is(gpu, _words(gpu_type or ""))


def _has(gpu: Gpu, memory: int) -> bool:
    if gpu.memory_total is None:
        return not memory or gpu.problem is not None
    return gpu.memory_total >= memory


def _is(gpu: Gpu, wanted: Sequence[str]) -> bool:
    wants_instance = "mig" in wanted and not gpu.is_mig
    if gpu.problem is not None and (wants_instance or not gpu.name):
        return True
    return not wants_instance and _in_order(wanted, _words(gpu.name))


def is_type(name: str, gpu_type: str) -> bool:
    """True if a GPU of that name is of a type, as `matches` has it."""
    return _in_order(_words(gpu_type), _words(name))


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", name.lower().replace("mig", " mig "))


def _in_order(wanted: Sequence[str], words: Sequence[str]) -> bool:
    """True if the wanted words, some of them written together, are some whole words, one after the other."""
    if not wanted:
        return True
    for start in range(len(words)):
        for count in range(1, len(wanted) + 1):
            end = _end("".join(wanted[:count]), words, start)
            if end is not None and _in_order(wanted[count:], words[end:]):
                return True
    return False


def _end(want: str, words: Sequence[str], start: int) -> int | None:
    """Behind the words that make up the wanted one from ``start`` on; None if they don't."""
    written = ""
    for end in range(start, len(words)):
        written += words[end]
        if written == want:
            return end + 1
        if not want.startswith(written):
            return None
    return None


def foreign(gpu: Gpu, ours: Collection[int] = ()) -> tuple[GpuProcess, ...]:
    """The processes, besides ``ours`` (pids), that hold memory of a GPU, or of which nobody knows whether they do."""
    return tuple(process for process in gpu.processes if process.pid not in ours and process.memory != 0)


def types(gpus: Iterable[Gpu]) -> str:
    """What there is, in words, for the refusal of a request: "2 x NVIDIA H100 80GB HBM3, 1 x …", or "none"."""
    counts: dict[str, int] = {}
    for gpu in gpus:
        name = gpu.name or "unknown"
        counts[name] = counts.get(name, 0) + 1
    return ", ".join(f"{count} x {name}" for name, count in counts.items()) or "none"
