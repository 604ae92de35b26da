"""Whose a module is: the user's own, or an installed package's, the interpreter's, or localrun's."""

from __future__ import annotations

import os
import sys
from functools import cache, lru_cache
from types import ModuleType
from typing import Any


def is_user_module(module: str | ModuleType) -> bool:
    """True if a module belongs to the user's own project: ``__main__``, notebooks, files that aren't installed.

    localrun is never the user's. Code that an editable install points to is. A namespace package is the user's if a
    part of it is. A module without a file goes with the package it says it is in (``torch.ops``, ``six.moves``).
    """
    name = module if isinstance(module, str) else str(module.__name__)
    top = name.partition(".")[0]
    if name == "__main__" or top == "localrun":
        return name == "__main__"
    places = _places(name if isinstance(module, str) else module)
    if not places and top != name:
        return is_user_module(top)
    return not places or any(not _is_installed(place) for place in places)


def _places(module: str | ModuleType) -> list[str]:
    """The absolute files or folders of a module; none if it has none, a name without a slash if it is built in."""
    found = sys.modules.get(module) if isinstance(module, str) else module
    if found is None and isinstance(module, str):
        found = _unloaded(module.partition(".")[0])  # its parent would be imported to find it
    if found is None:
        return []
    spec = getattr(found, "__spec__", None) or found
    origin = getattr(found, "__file__", None) or getattr(spec, "origin", None)
    if isinstance(origin, str) and (os.path.isabs(origin) or origin in ("built-in", "frozen")):
        return [origin]
    folders = getattr(found, "__path__", None) or getattr(spec, "submodule_search_locations", None) or ()
    return [folder for folder in folders if isinstance(folder, str)]


def _unloaded(name: str) -> Any:
    from importlib.util import find_spec

    try:
        return find_spec(name)
    except (ImportError, ValueError):
        return None


@lru_cache(maxsize=4096)
def _is_installed(place: str) -> bool:
    """True for a path of the standard library or an installed package, and for the origin of a built-in module."""
    if not os.path.isabs(place):
        return True
    return any(_is_under_installed(path) for path in {place, os.path.realpath(place)})


def _is_under_installed(path: str) -> bool:
    # By name as well as by folder: other environments' packages may be on the path, and a virtual environment may lie
    # in the project's folder.
    parts = path.split(os.sep)
    return "site-packages" in parts or "dist-packages" in parts or path.startswith(_installed_folders())


@cache
def _installed_folders() -> tuple[str, ...]:
    """The standard library's folders and archive, and the site's; sysconfig would take 5 ms to say the same."""
    import site

    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    prefixes = {sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix}
    folders = {os.path.join(prefix, lib, version) for prefix in prefixes for lib in {"lib", sys.platlibdir}}
    folders |= {os.path.dirname(os.__file__), *site.getsitepackages(), site.getusersitepackages()}
    folders |= {os.path.join(os.path.dirname(folder), version.replace(".", "") + ".zip") for folder in folders}
    return tuple(os.path.join(folder, "") for folder in folders | {os.path.realpath(folder) for folder in folders})
