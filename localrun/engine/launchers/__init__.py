"""How the processes of a run are started, found and signalled: one module per kind of run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from localrun.engine.launchers.process import LostProcessLauncher, ProcessLauncher
from localrun.model.folder import RunFolder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def launcher_of(record: Mapping[str, Any], folder: RunFolder, leases: Sequence[int]) -> ProcessLauncher:
    """The launcher for what a run asks for; ``leases`` are the descriptors that its ranks carry on."""
    if record["request"].get("image"):
        from localrun.engine.launchers.container import ContainerLauncher

        return ContainerLauncher(record, folder, leases)
    if not record["request"].get("integrations"):
        return ProcessLauncher(record, folder, leases)
    from localrun.engine.launchers.prepared import PreparedLauncher

    return PreparedLauncher(record, folder, leases)


def load_container_launcher() -> None:
    """Have it loaded in this process, once, for all supervisors that are forked from it."""
    import localrun.engine.launchers.container  # noqa: F401


def lost_launcher_of(record: Mapping[str, Any], folder: RunFolder, dispatcher: int) -> ProcessLauncher:
    """The launcher of a run whose supervisor was lost: to find and end what is left of it. ``dispatcher`` is a pid."""
    if not record["request"].get("image"):
        return LostProcessLauncher(record, folder, dispatcher=dispatcher)
    from localrun.engine.launchers.lostcontainer import LostContainerLauncher

    return LostContainerLauncher(record, folder, dispatcher=dispatcher)
