"""Whether files may have changed since they were looked at: the kernel tells of it, or else their times do.

Looking at each of thousands of files for each of thousands of runs would cost more than the runs. So the folders are
watched by inotify, where that sees every change, which is on local file systems; and only when it tells of something,
or can't be used, the files are looked at one by one. What goes unseen is a file that is given another name elsewhere
while it is watched, and then written by that name.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import threading

from localrun.engine.watch import Watch

_Look = tuple[int, int, int, bool]  # time of the last change of any kind, file, device, seen by inotify

# Of a file in a watched folder: written, changed in its attributes, closed after a mapping of it; or made, moved, gone.
_EVENTS = 0x2 | 0x4 | 0x8 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x800
_MOST_FOLDERS = 1000  # other programs of the user's need watches, too
_libc = ctypes.CDLL(None, use_errno=True)
# ext, xfs, btrfs, tmpfs, overlayfs, zfs, f2fs, bcachefs, by the number that statfs(2) gives.
_LOCAL = {0xEF53, 0x58465342, 0x9123683E, 0x01021994, 0x794C7630, 0x2FC12FC1, 0xF2F52010, 0xCA451A4E}


class Evidence:
    """How some files and folders looked when this was made. ``folders`` are watched: the files have to lie in them."""

    def __init__(self, folders: list[bytes], files: list[bytes]) -> None:
        self._paths = [*folders, *files]
        self._lock = threading.Lock()
        self._watch = _watching(folders)  # first, so that whatever changes behind the look is told
        self._looks = [_look(path) for path in self._paths]
        self.latest = max((look[0] for look in self._looks if look is not None), default=0)
        if self._watch is not None and not _are_seen(self._paths[0], self._looks):
            self.close()

    def holds(self) -> bool:
        """True if nothing has changed."""
        with self._lock:
            told = self._watch is None or _has_told(self._watch)
            if not told and _look(self._paths[0]) == self._looks[0]:
                return True  # and it is still the same place
            return [_look(path) for path in self._paths] == self._looks

    def close(self) -> None:
        """Give the watch back."""
        watch, self._watch = self._watch, None
        if watch is not None:
            with watch:
                pass


def _look(path: bytes) -> _Look | None:
    """How a file looks; None if it isn't there."""
    try:
        seen = os.lstat(path)
    except OSError:
        return None
    # One of several names of a file may lie elsewhere, and what is written by that one is told there.
    return seen.st_ctime_ns, seen.st_ino, seen.st_dev, stat.S_ISDIR(seen.st_mode) or seen.st_nlink == 1


def _watching(folders: list[bytes]) -> Watch | None:
    """A watch on these folders; None if it can't be had, or one of them isn't there."""
    if len(folders) > _MOST_FOLDERS:
        return None
    watch = Watch.borrow()
    if watch.fd is None or not all(watch.add(os.fsdecode(path), _EVENTS) for path in folders):
        with watch:
            return None
    return watch


def _are_seen(first: bytes, looks: list[_Look | None]) -> bool:
    """True if inotify sees whatever is done to files that look so."""
    there = [look for look in looks if look is not None]
    return len({device for _, _, device, _ in there}) == 1 and all(look[3] for look in there) and _is_local(first)


def _is_local(path: bytes) -> bool:
    about = ctypes.create_string_buffer(512)
    return _libc.statfs(path, about) == 0 and struct.unpack_from("l", about)[0] in _LOCAL


def _has_told(watch: Watch) -> bool:
    """True if anything was told since the last time, be it that too much was to be told."""
    told = False
    assert watch.fd is not None, "it was borrowed for that"
    try:
        while os.read(watch.fd, 1 << 16):
            told = True
    except BlockingIOError:
        pass
    return told
