"""The launcher of process runs with integrations: a process more, before the ranks, and their folder and packages.

Loaded for such runs only.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from localrun.engine.launchers import venv
from localrun.engine.launchers.process import WORKER, CannotStartError, ProcessLauncher
from localrun.model.integrations import needs_venv

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PROGRAM = (
    "import sys; root, folder, resumption = sys.argv[1:]; sys.path.append(root); "
    "from localrun.engine.launchers.preparation import main; main(folder, int(resumption))"
)
_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(WORKER)))


class PreparedLauncher(ProcessLauncher):
    """Starts the integrations of one run, and after them its ranks, with what they have installed."""

    _venv: str | None = None

    def check(self) -> None:
        """Make the run's own working folder and go there."""
        # Not as the record has it: the run may have been renamed since its submission.
        self._record = {**self._record, "cwd": self._folder.work}
        try:
            os.makedirs(self._folder.work, mode=0o700, exist_ok=True)
        except OSError as error:
            raise CannotStartError(f"its working folder can't be made: {error.strerror}") from None
        super().check()

    def prepare(self, resumption: int, context: Mapping[str, Any]) -> int:
        """Start what carries out the integrations, with rank 0's environment and logs; returns its pid."""
        python = self._record["python"]
        argv = [python["executable"], "-P", "-c", _PROGRAM, _ROOT, self._folder.path, str(resumption)]
        pid = self._spawn(argv, 0, resumption, context)
        if needs_venv(self._record["request"]["integrations"]):
            self._venv = self._folder.venv
            theirs = {"executable": venv.executable(self._venv), "path": venv.import_path(python["path"])}
            self._record = {**self._record, "python": {**python, **theirs}}
        return pid

    def _environment(self, rank: int, resumption: int, context: Mapping[str, Any]) -> dict[str, str]:
        environment = super()._environment(rank, resumption, context)
        return environment if self._venv is None else venv.environment(self._venv, environment)
