"""Where a run lies, or is to lie: from what a user says, a system and a path or a URL, to a place."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping
from typing import Any

from localrun import files, settings
from localrun.api.moving.local import LocalPlace
from localrun.api.moving.remote import WITH_RENAME, RemotePlace, file_system
from localrun.errors import RunConfigError
from localrun.model.urls import shown

Place = LocalPlace | RemotePlace

_HERE = ("here", "file", "local")
_OTHER_NAMES = {"azure": "abfs", "az": "abfs", "adl": "abfs", "gcs": "gs", "s3a": "s3", "ssh": "sftp"}
_RUNS = ".localrun/runs"  # on other machines, below the folder in which one arrives


def is_url(path: object) -> bool:
    """True if a path says on which system it is."""
    return isinstance(path, str) and "://" in path


def find(
    system: str | None,
    path: str | os.PathLike[str] | None,
    data_config: Mapping[str, Any] | None,
    name: str | None,
) -> Place:
    """The place of a run: the folder ``path`` on that system, or a URL; without a path, that of the run of that name.

    Without a path it is in the runs folder there: here ``LOCALRUN_RUNS_DIR`` or that of the home folder, elsewhere
    ``.localrun/runs`` below where one arrives (over SFTP the login's own folder). A bucket or a container has no such
    place: there a path is needed.

    Raises:
        RunConfigError: there is no such system, the path contradicts it, or is needed.
    """
    protocol, path = _system_of(system, path)
    if not isinstance(data_config, Mapping | None):
        raise RunConfigError("data_config: must be a mapping, of what the file system takes")
    options = dict(data_config or {})
    if protocol in _HERE:
        return LocalPlace(_local(path, name))
    if path is not None and is_url(path):
        options = {**_said_by(protocol, path), **options}
    return _remote(protocol, path, options, name)


def _system_of(system: str | None, path: str | os.PathLike[str] | None) -> tuple[str, str | None]:
    if path is None and is_url(system):
        system, path = None, system
    path = None if path is None else files.text_of(path, "path", "a path or a URL")
    said = path.partition("://")[0].lower() if path is not None and is_url(path) else None
    if system is not None and not isinstance(system, str):
        raise RunConfigError("system: must be 'here' or the name of a file system of fsspec's, such as 's3' or 'sftp'")
    asked = (system or said or "here").lower()
    asked, said = _OTHER_NAMES.get(asked, asked), _OTHER_NAMES.get(said or "", said)
    if said is not None and said != asked and not {said, asked} <= {*_HERE}:
        raise RunConfigError(f"path: {shown(path or '')} is not on the system {system!r}")
    return asked, path


def _local(path: str | None, name: str | None) -> str:
    from localrun.model.names import validate_name

    if path is not None and is_url(path):
        path = path.partition("://")[2]
    return settings.run_folder(validate_name(name) if path is None else "", path)


def _said_by(protocol: str, url: str) -> dict[str, Any]:
    """What a URL says besides the path: a host, a user, a password."""
    said: dict[str, Any] = file_system(protocol)._get_kwargs_from_urls(url)
    return said


def _remote(protocol: str, path: str | None, options: dict[str, Any], name: str | None) -> RemotePlace:
    kind = file_system(protocol)
    if path is None:
        path = _default(protocol, options, name)
    elif "::" in path:
        raise RunConfigError(f"path: {shown(path)}: a file inside another can't hold a run")
    stripped = str(kind._strip_protocol(path)).rstrip("/")
    if protocol in WITH_RENAME and not stripped.startswith("/"):
        stripped = posixpath.join(_arrival(protocol, options), stripped)
    if not stripped.strip("/"):
        raise RunConfigError(f"path: {shown(path)!r} names no folder on {protocol}")
    return RemotePlace(protocol, stripped, _url(protocol, stripped, options), options)


def _default(protocol: str, options: Mapping[str, Any], name: str | None) -> str:
    from localrun.model.names import validate_name

    if protocol not in (*WITH_RENAME, "memory"):
        raise RunConfigError(f"path: {protocol} has no folder for runs: say which, as in path='bucket/folder'")
    return f"{_RUNS}/{validate_name(name)}"


def _arrival(protocol: str, options: Mapping[str, Any]) -> str:
    """The folder in which one arrives on an SFTP server."""
    place = RemotePlace(protocol, "", f"{protocol}://{options.get('host', '')}", options)
    with place.connected() as fs:
        return str(fs.ftp.normalize("."))


def _url(protocol: str, path: str, options: Mapping[str, Any]) -> str:
    """How the place is shown, and loaded again: without anything secret."""
    host = options.get("host")
    if host is None:
        return shown(path if is_url(path) else f"{protocol}://{path.lstrip('/')}")
    port = f":{options['port']}" if options.get("port") else ""
    return f"{protocol}://{host}{port}/{path.lstrip('/')}"
