"""What a supervisor holds machine-wide for its run: the leases of its GPUs, and of the port where its ranks meet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from localrun.errors import LocalrunError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from localrun.engine.gpus.inventory import Gpu
    from localrun.engine.gpus.leases import Lease


class Holdings:
    """The leases of one run (its name and uid). ``gpus`` are those chosen for it, none of them taken yet."""

    def __init__(self, gpus: Sequence[Gpu], *, run: str, uid: str, log: Callable[[str], None]) -> None:
        self.gpus = gpus
        self.port: int | None = None
        self._run = run
        self._uid = uid
        self._log = log
        self._leases: list[Lease] = []
        self._port_lease: Lease | None = None

    def take_gpus(self) -> bool:
        """Take the leases of all GPUs; False, and none is taken, if another user was quicker."""
        if not self.gpus:
            return True
        from localrun.engine.gpus.leases import acquire_all

        try:
            leases = acquire_all((gpu.uuid for gpu in self.gpus), run=self._run, uid=self._uid)
        except LocalrunError as error:
            self._log(f"run {self._run} waits: {error}")
            return False
        self._leases += leases or []
        return leases is not None

    def take_again(self, record: Mapping[str, Any]) -> None:
        """Keep the GPUs of a run whose supervisor was lost from others until its end is written.

        Processes that still have a lease from it keep that themselves as long as they live: to be called again then.
        """
        held = {lease.uuid for lease in self._leases}
        for uuid in (gpu["uuid"] for gpu in record["gpus"] if gpu["uuid"] not in held):
            from localrun.engine.gpus.leases import Lease

            try:
                lease = Lease.try_acquire(uuid, run=self._run, uid=self._uid)
            except LocalrunError as error:
                self._log(f"run {self._run}: {error}")
                continue
            if lease is not None:
                self._leases.append(lease)

    def take_port(self) -> None:
        """Take a port.

        Raises:
            SystemFailureError: none was to be had.
        """
        from localrun.engine.gpus import ports

        self.port, self._port_lease = ports.take(run=self._run, uid=self._uid)

    def fds(self) -> list[int]:
        """The descriptors that hold the leases, for the run's processes to have too."""
        return [lease.fd for lease in (*self._leases, self._port_lease) if lease is not None]

    def in_record(self) -> list[dict[str, Any]]:
        """The GPUs as a record lists them."""
        return [
            {"index": gpu.label if gpu.is_mig else gpu.index, "uuid": gpu.uuid, "name": gpu.name} for gpu in self.gpus
        ]

    @property
    def driver(self) -> str | None:
        """The version of the GPUs' driver; None without GPUs."""
        return self.gpus[0].driver if self.gpus else None

    def release(self) -> None:
        """Give everything back."""
        for lease in self._leases:
            lease.release()
        if self._port_lease is not None:
            self._port_lease.release(remove=True)  # there are thousands of ports
        self._leases, self._port_lease = [], None
