"""A port for the ranks of a run to meet at: free, and no other run's of this machine.

A port stays a run's by a lease, like a GPU: what is merely free now may be given to another run before the ranks bind
it. The range lies below those from which systems take ports for outgoing connections.
"""

from __future__ import annotations

import socket

from localrun.engine.gpus.leases import Lease
from localrun.errors import SystemFailureError

_FIRST, _COUNT = 20_000, 10_000
_ATTEMPTS = 200


def take(*, run: str, uid: str) -> tuple[int, Lease]:
    """A port for this run (its name and uid), and the lease that keeps it.

    Raises:
        SystemFailureError: none was to be had.
    """
    start = int(uid, 16)  # so that runs that start together seldom try the same one
    for attempt in range(_ATTEMPTS):
        port = _FIRST + (start + attempt) % _COUNT
        lease = Lease.try_acquire(f"port-{port}", run=run, uid=uid)
        if lease is None:
            continue
        if _is_free(port):
            return port, lease
        lease.release(remove=True)
    raise SystemFailureError(f"no free port was found in {_ATTEMPTS} from {_FIRST + start % _COUNT} on")


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
