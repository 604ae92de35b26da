"""Who can have written what is about to be unpickled: loading a pickle, or starting a run, executes what it says.

A file is trusted if it and its run folder belong to this user, or to root, and nobody else may write them. Their group
counts as others. A folder that holds ``.untrusted`` came from elsewhere, whoever owns it by now: the file says where
from. This module decides and refuses; that somebody says ``trust=True``, and so takes it upon himself, is its callers'.
"""

from __future__ import annotations

import os
import stat

from localrun import files
from localrun.errors import UntrustedRunError
from localrun.model.folder import RunFolder

_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS_MAY_ENTER = stat.S_IXGRP | stat.S_IXOTH


def check_file(path: str | os.PathLike[str], opened: os.stat_result) -> None:
    """Refuse a file of a run folder, as the open descriptor shows it, that others can have written.

    Raises:
        UntrustedRunError: says who, and what to do.
    """
    folder, _, name = os.fspath(path).rpartition("/")  # this is on the way of every cached value
    why = _of_folder(RunFolder(folder or ".")) or _of_owner(name, opened)
    if why:
        raise UntrustedRunError(
            f"{os.fspath(path)} was not loaded, which would execute code: {why}. If you trust it, say trust=True"
        )


def check_run(folder: RunFolder) -> None:
    """Refuse a run that others can have written, before it is started or its function taken.

    Raises:
        UntrustedRunError: says who, and what to do.
    """
    why = refusal(folder)
    if why:
        raise UntrustedRunError(
            f"the run in {folder.path} is not executed: {why}. If you trust it, load it with trust=True, "
            "or have it run again by `localrun replay --trust`"
        )


def refusal(folder: RunFolder) -> str | None:
    """Why a run is not to be executed; None if only this user or root can have written what that executes or reads.

    The folders that its program works in count where others can reach them. What they hold may be what the user's own
    umask makes of it, as they themselves may; where they are links to another disk, that is the user's own affair.
    """
    if why := _of_folder(folder):
        return why  # and of a remote nothing is fetched for that
    for path in (folder.record, folder.function, folder.inputs, folder.parameters, folder.provenance):
        if why := _of_owner_if_there(path):
            return why
    if os.stat(folder.path).st_mode & _OTHERS_MAY_ENTER:
        for path in (folder.checkpoints, folder.code, folder.work):
            if not os.path.islink(path) and (why := _of_owner_if_there(path)):
                return why
    return None


def mark(folder: RunFolder, origin: str) -> None:
    """Have a folder of our own say that what is in it came from elsewhere."""
    files.replace(folder.untrusted, origin.encode(errors="replace"))


def _of_folder(folder: RunFolder) -> str | None:
    if os.path.lexists(folder.untrusted):
        return f"it came from {_origin(folder)}"
    return _of_owner("its folder", os.stat(folder.path))


def _of_owner_if_there(path: str) -> str | None:
    try:
        return _of_owner(os.path.basename(path), os.lstat(path))
    except FileNotFoundError:
        return None  # a command run has no function, and not every run parameters


def _of_owner(what: str, info: os.stat_result) -> str | None:
    if stat.S_ISLNK(info.st_mode):
        return f"{what} is a symbolic link"
    if info.st_uid not in (os.geteuid(), 0):
        return f"{what} belongs to {_user(info.st_uid)}"
    if info.st_mode & _OTHERS_MAY_WRITE:
        return f"{what} can be written by others than {_user(info.st_uid)} (mode {stat.S_IMODE(info.st_mode):o})"
    return None


def _origin(folder: RunFolder) -> str:
    try:
        return files.read(folder.untrusted)[:500].decode(errors="replace").strip() or "elsewhere"
    except OSError:
        return "elsewhere"


def _user(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
