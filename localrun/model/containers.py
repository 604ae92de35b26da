"""What a configuration's container fields must be: image, volumes, pull and network, checked and spelled out.

Whether the machine has the image and the folders isn't asked here. Loaded only for configurations that have an image.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from localrun.errors import RunConfigError
from localrun.model.config import described

# What would hide the image's own programs, or can't be mounted over.
_SYSTEM = ("/", "/bin", "/dev", "/etc", "/lib", "/lib64", "/proc", "/sbin", "/sys", "/usr")
_OURS = "/.localrun"


def validate_image(value: Any, field: str) -> str | None:
    """The name of an image; None for an empty one, which asks for a process."""
    return _name(value, field, "an image") if value != "" else None


def validate_network(value: Any, field: str) -> str:
    """The name of a network of the engine's; the machine's own for an empty one."""
    return _name(value, field, "a network") if value != "" else "host"


def validate_volumes(value: Any, field: str) -> list[dict[str, Any]]:
    """Folders and files of the machine in a container, from "HOST:CONTAINER[:ro]"; HOST may begin with ~ or a dot."""
    if not isinstance(value, list):
        raise RunConfigError(f"{field}: must be a list of 'HOST:CONTAINER[:ro]', not {described(value)}")
    volumes = [_volume(each, f"{field}[{index}]") for index, each in enumerate(value)]
    taken: set[str] = set()
    for index, volume in enumerate(volumes):
        if volume["target"] in taken:
            raise RunConfigError(f"{field}[{index}]: {volume['target']} is another volume's place already")
        taken.add(volume["target"])
    return volumes


def check_together(values: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuse what doesn't go together: container fields without an image, and an image with what needs a process.

    ``values`` are converted ones by name, ``given`` those fields that are for containers, by dotted path.
    """
    if not values.get("image"):
        for path, value in given.items():
            if value and value != "missing":
                raise RunConfigError(f"{path}: is for containers: set image, too")
    for index, integration in enumerate(values.get("integrations", ())):
        if values.get("image") and ("packages" in integration or integration["pip_install"]):
            raise RunConfigError(
                f"integrations[{index}]: packages can't be installed into a container: use an image that has them"
            )


def check_working_folder(path: str) -> None:
    """Refuse a working folder that can't be a container's: it is there at its own path, over what the image has."""
    if path in _SYSTEM:
        raise RunConfigError(f"cwd: {path} is the image's own: choose another working folder for a run with an image")


def _volume(value: Any, where: str) -> dict[str, Any]:
    source, target, *mode = [*_text(value, where).split(":"), ""][:3] if isinstance(value, str) else ["", ""]
    if not isinstance(value, str) or value.count(":") not in (1, 2) or not source:
        raise RunConfigError(f"{where}: must be 'HOST:CONTAINER' or 'HOST:CONTAINER:ro', not {described(value)}")
    if mode not in ([""], ["ro"], ["rw"]):
        raise RunConfigError(f"{where}: the last part must be ro or rw, not {described(mode[0])}")
    if not source.startswith(("/", "~", ".")):
        raise RunConfigError(f"{where}: the folder on this machine must begin with /, ~ or a dot: {described(source)}")
    if not target.startswith("/") or os.path.normpath(target) in ("/", _OURS):
        raise RunConfigError(f"{where}: the place in the container must be an absolute path: {described(target)}")
    return {
        "source": os.path.abspath(os.path.expanduser(source)),
        "target": os.path.normpath(target),
        "read_only": mode == ["ro"],
    }


def _name(value: Any, field: str, what: str) -> str:
    """A name as engines take it: without blanks, and no option."""
    text = _text(value, field)
    if text.startswith("-") or not text.isprintable() or " " in text:
        raise RunConfigError(f"{field}: must be the name of {what}, not {described(value)}")
    return text


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise RunConfigError(f"{where}: must be text, not {described(value)}")
    return value
