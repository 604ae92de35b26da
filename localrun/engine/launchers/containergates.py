"""The gates of a run's containers: named pipes beside the logs, at which each rank waits until all of them are there.

Ranks that share the first one's network and memory must find it alive; and what has not come to its gate has done
nothing of the user's. A gate that closes unopened, because its supervisor was killed, lets nobody through.
"""

from __future__ import annotations

import errno
import os

from localrun import files
from localrun.engine.launchers.process import CannotStartError
from localrun.model.folder import RunFolder

# In the container, before the user's shell: wait, and write to the logs.
WAIT = """
umask "$1"
read -r go <"$2" || exit 125
exec >>"$3" 2>>"$4"
shift 4
"""


class Gates:
    """The gates of one run."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._held: dict[str, int] = {}  # a gate at which somebody waits → its other end

    def build(self, resumption: int, rank: int) -> str:
        """Make a rank's gate; returns its path.

        Raises:
            CannotStartError: the file system refuses, as one that knows no named pipes does.
        """
        path = self._folder.gate(resumption, rank)
        try:
            files.remove(path)
            os.mkfifo(path, 0o600)
        except OSError as error:
            raise CannotStartError(f"a named pipe can't be made at {path}: {error.strerror}") from None
        return path

    def is_reached(self, gate: str) -> bool:
        """True once somebody waits there; from then on we hold the other end."""
        try:
            self._held[gate] = os.open(gate, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise CannotStartError(f"{gate} can't be opened: {error.strerror}") from None
            return False
        return True

    def open(self) -> None:
        """Let everyone through who waits."""
        for gate, end in self._held.items():
            try:
                os.write(end, b"\n")
            except BrokenPipeError:
                pass  # killed there
            os.close(end)
            files.remove(gate)
        self._held.clear()
