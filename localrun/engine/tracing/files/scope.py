"""Which files count where a run records all that it opens: the user's own, not those of the machinery below."""

from __future__ import annotations

import os
import sys

from localrun.model.folder import RunFolder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import TypeAlias

    Folders: TypeAlias = tuple[list[str], list[str]]  # the roots, and those left out

_NOT_FILES = ("/proc", "/sys", "/dev")
_OF_PYTHON = {"site-packages", "dist-packages", "__pycache__"}


class Scope:
    """Files in these folders, but not in hidden ones in them, in Python's, in those of runs, or in those left out.

    What is left out doesn't count for folders inside it: of a project that lies in its own environment, or of the
    working folder in a run's folder, the files are recorded. All are meant under the names they are given and under
    their real ones. The root of the file system counts for no folder.
    """

    def __init__(self, roots: Iterable[str], left_out: Iterable[str]) -> None:
        self._roots = sorted(_with_real(roots) - {"/"}, key=len, reverse=True)
        self._left_out = _with_real(left_out)
        self._known: dict[str, bool] = {}

    def __contains__(self, path: str) -> bool:
        """True if the file at this absolute path counts."""
        folder = path.rpartition("/")[0]
        if folder not in self._known:
            self._known[folder] = self._has_folder(folder)
        return self._known[folder]

    def leaves_out(self, path: str) -> bool:
        """True if what lies there is left out, whatever else it is in."""
        root = self._root(path)
        return any(_is_in(path, out) and (root is None or not _is_in(root, out)) for out in self._left_out)

    def _has_folder(self, folder: str) -> bool:
        root = self._root(folder)
        if root is None or self.leaves_out(folder):
            return False
        parts = folder[len(root) :].split("/")
        if any(part.startswith(".") or part in _OF_PYTHON for part in parts):
            return False
        return not any(_is_run("/".join([root, *parts[1:end]])) for end in range(2, len(parts) + 1))

    def _root(self, path: str) -> str | None:
        return next((root for root in self._roots if _is_in(path, root)), None)


def of_user(runs: Iterable[str]) -> Folders:
    """What a `Scope` of the working folder and the home folder is made of; ``runs`` are folders of localrun's own."""
    return chosen([os.getcwd(), os.path.expanduser("~")], runs)


def chosen(folders: Sequence[str | os.PathLike[str]], runs: Iterable[str]) -> Folders:
    """The same for these folders."""
    python = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}
    left_out = [*_NOT_FILES, *map(os.path.abspath, [*python, *runs])]
    return [os.path.abspath(os.fspath(folder)) for folder in folders], left_out


def _with_real(folders: Iterable[str]) -> set[str]:
    return {name for folder in folders for name in (folder, os.path.realpath(folder))}


def _is_run(folder: str) -> bool:
    """True for the folder of a run, wherever it is."""
    run = RunFolder(folder)
    return os.path.exists(run.lock) and os.path.exists(run.record)


def _is_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")
