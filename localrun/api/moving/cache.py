"""This process's private folder for what it reads from remotes, gone when the process is.

It lies in the temporary directory, locked for as long as the process lives: what a killed process left, the next one
that needs such a folder removes.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile

from localrun import files

_PREFIX = "localrun-cache-"


def folder() -> str:
    """A new empty folder, readable by this user alone."""
    return tempfile.mkdtemp(dir=_root(os.getpid()))


@functools.cache
def _root(pid: int) -> str:
    """The folder of this process (a forked one has its own)."""
    _sweep()
    path = tempfile.mkdtemp(prefix=_PREFIX)
    files.ByteLock.acquire(f"{path}/.lock")  # held until the process ends
    atexit.register(_remove, path, pid)
    return path


def _remove(path: str, pid: int) -> None:
    if os.getpid() == pid:  # not in a fork, which leaves by the same exits
        shutil.rmtree(path, ignore_errors=True)


def _sweep() -> None:
    """Remove the folders of processes that were killed."""
    with os.scandir(tempfile.gettempdir()) as entries:
        found = [each.path for each in entries if each.name.startswith(_PREFIX)]
    for path in found:
        try:
            is_ours = os.lstat(path).st_uid == os.geteuid()
            if not is_ours or files.is_locked(f"{path}/.lock") or not os.path.exists(f"{path}/.lock"):
                continue  # in use, or about to be
        except OSError:
            continue  # another process has just removed it
        shutil.rmtree(path, ignore_errors=True)
