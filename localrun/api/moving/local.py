"""A run folder on this machine as a place that is copied from, or to: no link in it is followed."""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

from localrun.api.moving.manifest import Contents, Entry, is_copied, leads_inside
from localrun.files import make_folders
from localrun.model.folder import RunFolder

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe in its place must not be waited for
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class LocalPlace:
    """A folder of this machine's."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.url = folder

    def contents(self) -> Contents:
        """What there is to copy. Pipes, sockets, devices and links that lead out of the folder are left out."""
        files: dict[str, Entry] = {}
        links: dict[str, str] = {}
        folders, left_out = [], []
        pending = [""]
        while pending:
            inside = pending.pop()
            names = [f"{inside}{name}" for name in sorted(os.listdir(f"{self.folder}/{inside}"))]
            if inside and not names:
                folders.append(inside[:-1])
            for name in filter(is_copied, names):
                info = os.lstat(f"{self.folder}/{name}")
                if stat.S_ISDIR(info.st_mode):
                    pending.append(f"{name}/")
                elif stat.S_ISREG(info.st_mode):
                    files[name] = Entry(info.st_size, None, bool(info.st_mode & stat.S_IXUSR))
                elif stat.S_ISLNK(info.st_mode) and (target := self.target(name)):
                    links[name] = target
                else:
                    left_out.append(name)
        return Contents(files, links, tuple(folders), tuple(left_out))

    def target(self, name: str) -> str | None:
        """Where a link leads, relative to its own folder; None if that is outside the run's folder."""
        inside = os.path.realpath(self.folder)
        target, real = os.readlink(f"{inside}/{name}"), os.path.realpath(f"{inside}/{name}")
        if not real.startswith(f"{inside}/"):
            return None
        there = os.path.dirname(os.path.normpath(f"{inside}/{os.path.dirname(name)}/{target}"))
        if leads_inside(name, target) and os.path.realpath(there) == there:
            return target
        return os.path.relpath(real, os.path.dirname(f"{inside}/{name}"))

    def reading(self, name: str) -> BinaryIO:
        """A file, open for reading."""
        *folders, base = name.split("/")
        inside = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for folder in folders:
                outer, inside = inside, os.open(folder, _FOLDER, dir_fd=inside)
                os.close(outer)
            file = os.open(base, _FILE, dir_fd=inside)
        finally:
            os.close(inside)
        return open(file, "rb")

    def writing(self, name: str, *, executable: bool = False) -> BinaryIO:
        """A new file, open for writing."""
        path = f"{self.folder}/{name}"
        make_folders(os.path.dirname(path))
        return open(os.open(path, _NEW, 0o700 if executable else 0o600), "wb")

    def finish(self, contents: Contents) -> None:
        """Add what is no file, with a folder for checkpoints if there is none, and have all survive a power cut."""
        for folder in contents.folders:
            make_folders(f"{self.folder}/{folder}")
        for name, target in contents.links.items():
            make_folders(os.path.dirname(f"{self.folder}/{name}"))
            os.symlink(target, f"{self.folder}/{name}")
        checkpoints = RunFolder(self.folder).checkpoints
        if not os.path.lexists(checkpoints):
            os.mkdir(checkpoints, 0o700)
        for folder, _, names in os.walk(self.folder):
            for path in (folder, *(f"{folder}/{name}" for name in names)):
                _sync(path)


def _sync(path: str) -> None:
    if not os.path.islink(path):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
