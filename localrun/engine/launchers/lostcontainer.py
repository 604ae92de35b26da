"""The launcher of a container run whose supervisor was killed: finds what is left of it, and ends that.

Its processes carry the run's mark, and its containers the run's label, so that neither depends on the other.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from localrun.engine import processes
from localrun.engine.launchers import containerprocesses
from localrun.engine.launchers.containerengine import ContainerEngine
from localrun.engine.launchers.process import LostProcessLauncher
from localrun.errors import SystemFailureError
from localrun.model.folder import RunFolder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MAKING_S = 1.0


class LostContainerLauncher(LostProcessLauncher):
    """Finds the containers of a run whose supervisor was killed, by the run's mark and by their label."""

    def __init__(self, record: Mapping[str, Any], folder: RunFolder, *, dispatcher: int) -> None:
        super().__init__(record, folder, dispatcher=dispatcher)
        self._engine = ContainerEngine(**record["request"]["engine"])

    def signal(self, number: int) -> list[processes.Process]:
        """Send a signal to every process in the containers, and to the clients what ends them at last."""
        found = self.alive()
        containerprocesses.send(found, number, {rank["pid"] for rank in self._record["ranks"]})
        return found

    def clear(self) -> bool:
        """Remove the run's containers, of whatever attempt; False if the engine can't be reached.

        Where there is none the engine may be making one yet, for a client that was killed: then a second look tells.
        """
        try:
            found = self._engine.containers(self._record["uid"])
        except SystemFailureError:
            return False
        if not found:
            time.sleep(_MAKING_S)
        return clear(self._engine, self._record["uid"])


def clear(engine: ContainerEngine, uid: str) -> bool:
    """Remove the containers of the run of that uid, of whatever attempt; False if the engine can't be reached."""
    try:
        engine.remove(engine.containers(uid))
    except SystemFailureError:
        return False
    return True
