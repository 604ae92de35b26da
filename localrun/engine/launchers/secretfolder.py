"""The user's secrets on disk, and what a run gets of them. Loaded only where there are some.

    <home>/secrets/<name>/about.json   secret_type, key, mount_path
    <home>/secrets/<name>/secret       the value's bytes: the one file that has them

Folders are 0700 and files 0600. Whoever reads goes from the outer folder inwards by descriptor, follows no link, and
refuses what others could have read. Changes are made under one lock, each by one rename.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Collection

from localrun import files
from localrun.engine.queue import Queue
from localrun.errors import SecretExistsError, SecretNotFoundError, SystemFailureError
from localrun.model.secret import MOUNTED, Secret
from localrun.settings import CONFIDENTIAL

_LOCK = ".lock"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class SecretFolder:
    """The secrets of one home folder."""

    def __init__(self, home: str) -> None:
        self._home = home
        self.path = f"{home}/secrets"

    def names(self) -> list[str]:
        """The names of all secrets, sorted."""
        try:
            folder = _open(self.path, _FOLDER)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._unusable(error) from None
        try:
            return sorted(name for name in os.listdir(folder) if not name.startswith("."))
        finally:
            os.close(folder)

    def read(self, name: str, *, with_value: bool = False) -> Secret:
        """The secret of that name; its value, as bytes, only if asked for.

        Raises:
            SecretNotFoundError: there is none.
            SystemFailureError: its files are damaged, links, or readable by others.
        """
        opened: list[int] = []
        try:
            opened.append(_open(self.path, _FOLDER))
            opened.append(_open(name, _FOLDER, opened[0]))
            about = json.loads(_read(opened[1], "about.json"))
            value = _read(opened[1], "secret") if with_value else None
            return Secret(name, about["secret_type"], value, about["key"], about["mount_path"])
        except FileNotFoundError:
            raise SecretNotFoundError(f"secret {name}: there is none of that name") from None
        except (OSError, ValueError, KeyError, TypeError) as error:  # none of their texts has a value in it
            what = error.strerror if isinstance(error, OSError) else "it is damaged; remove it"
            raise SystemFailureError(f"secret {name}: {self.path}/{name} can't be read: {what}") from None
        finally:
            for fd in opened:
                os.close(fd)

    def create(self, secret: Secret) -> None:
        """Keep a secret whose fields have been checked.

        Raises:
            SecretExistsError: one has its name, or gives runs the same variable. Nothing was changed.
        """
        with self._changing():
            for other in map(self.read, self.names()):
                if other.name == secret.name:
                    raise SecretExistsError(f"secret {secret.name} exists already: delete it first, or use its name")
                if other.variable == secret.variable:
                    raise SecretExistsError(f"secret {other.name} has the variable {secret.variable} already")
            try:
                self._write(secret)
            except OSError as error:
                self._clear()
                raise SystemFailureError(f"secret {secret.name} could not be kept: {error.strerror}") from None

    def _write(self, secret: Secret) -> None:
        """Make a secret's folder, whole or not at all."""
        assert isinstance(secret.value, bytes), "not checked"
        about = {"secret_type": secret.secret_type, "key": secret.key, "mount_path": secret.mount_path}
        building = f"{self.path}/.{secret.name}.new"
        os.mkdir(building, 0o700)
        for name, data in (("about.json", json.dumps(about).encode()), ("secret", secret.value)):
            fd = files.create(f"{building}/{name}", data)
            os.fsync(fd)
            os.close(fd)
        os.rename(building, f"{self.path}/{secret.name}")

    def remove(self, names: Collection[str]) -> None:
        """Remove these secrets; SecretNotFoundError, and none is removed, if one of them isn't there."""
        with self._changing():
            for name in names:
                self.read(name)
            for name in set(names):
                os.rename(f"{self.path}/{name}", f"{self.path}/.{name}.old")
            self._clear()

    def environment(self, names: Collection[str] | None, taken: Collection[str]) -> dict[str, str]:
        """The variables of a run that gets these secrets, or all there are (None), and the one that says which.

        Those ``taken`` by the run's own ``env_variables`` are left out. SecretNotFoundError if a named one is gone.
        """
        variables = {}
        for name in self.names() if names is None else names:
            try:
                secret = self.read(name, with_value=True)
            except SecretNotFoundError:
                if names is None:
                    continue  # deleted this moment
                raise SecretNotFoundError(
                    f"secret {name}: it was deleted after the run was submitted: create it and start the run again"
                ) from None
            assert isinstance(secret.value, bytes), "asked for"
            is_mounted = secret.secret_type == MOUNTED
            variables[secret.variable] = f"{self.path}/{name}/secret" if is_mounted else os.fsdecode(secret.value)
        ours = {name: value for name, value in variables.items() if name not in taken}
        return ours | {CONFIDENTIAL: " ".join(ours)} if ours else {}

    def values(self) -> list[bytes]:
        """The values of all secrets, to be hidden where output is shown; those that no run could read are left out."""
        try:
            names = self.names()
        except SystemFailureError:
            return []
        found = []
        for name in names:
            try:
                secret = self.read(name, with_value=True)
            except (SecretNotFoundError, SystemFailureError):
                continue
            assert isinstance(secret.value, bytes), "asked for"
            found.append(secret.value)
        return found

    def mounted(self, names: Collection[str] | None) -> list[tuple[str, str, str]]:
        """The mounted ones of these secrets, or of all: variable, file, and the file's place in a container.

        SecretNotFoundError if a named one is gone.
        """
        found = []
        for name in self.names() if names is None else names:
            try:
                secret = self.read(name)
            except SecretNotFoundError:
                if names is None:
                    continue  # deleted this moment
                raise
            if secret.secret_type == MOUNTED:
                found.append((secret.variable, f"{self.path}/{name}/secret", f"{secret.mount_path}/secret"))
        return found

    def _changing(self) -> files.ByteLock:
        """The lock under which secrets change, held, with what a killed process left half-made cleared away."""
        Queue(self._home).prepare()  # which sees to it that no other user can put something else in our folder's place
        try:
            os.makedirs(self.path, mode=0o700, exist_ok=True)
            os.close(_open(self.path, _FOLDER))
            lock = files.ByteLock.acquire(f"{self.path}/{_LOCK}")
        except OSError as error:
            raise self._unusable(error) from None
        self._clear()
        return lock

    def _unusable(self, error: OSError) -> SystemFailureError:
        return SystemFailureError(f"secrets: {self.path} can't be used: {error.strerror}")

    def _clear(self) -> None:
        import shutil

        for name in os.listdir(self.path):
            if name.startswith(".") and name != _LOCK:
                shutil.rmtree(f"{self.path}/{name}", ignore_errors=True)


def _open(path: str, flags: int, inside: int | None = None) -> int:
    """A descriptor of a file or folder that is this user's alone; PermissionError if it isn't."""
    fd = os.open(path, flags, dir_fd=inside)
    info = os.fstat(fd)
    if info.st_uid != os.geteuid() or stat.S_IMODE(info.st_mode) & 0o077:
        os.close(fd)
        raise PermissionError(errno.EACCES, f"{path} is another user's, or others may read it: chmod go= it")
    return fd


def _read(folder: int, name: str) -> bytes:
    fd = _open(name, _FILE, folder)
    with os.fdopen(fd, "rb") as file:
        return file.read()
