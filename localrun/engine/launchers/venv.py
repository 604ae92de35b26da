"""The virtual environment of a run whose integrations install Python packages: made, and used by its processes.

It is the run's own; what the submitter's interpreter has installed is there too, behind what the run installs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

# In an import path: the place of what the interpreter itself finds, the environment's packages.
OWN = ""


def executable(path: str) -> str:
    """Its Python interpreter."""
    return f"{path}/bin/python"


def environment(path: str, given: Mapping[str, str]) -> dict[str, str]:
    """Environment variables, changed so that processes find it first, as its ``activate`` does."""
    changed = {name: value for name, value in given.items() if name != "PYTHONHOME"}
    return changed | {"VIRTUAL_ENV": path, "PATH": f"{path}/bin:{given.get('PATH', os.defpath)}"}


def import_path(submitters: Sequence[str]) -> list[str]:
    """The submitter's import path for an interpreter of the environment: its installed packages give way to `OWN`."""
    return [*(entry for entry in submitters if not _is_of_packages(entry)), OWN]


def create(path: str, submitters: Sequence[str]) -> None:
    """Make it, with the interpreter of this process; ``submitters`` is the import path whose packages it has too."""
    import sysconfig
    import venv
    from importlib.util import find_spec

    venv.create(path, system_site_packages=True, symlinks=True, with_pip=find_spec("pip") is None)
    # The system's are not the submitter's if that is in a virtual environment itself. A line of code, not a path,
    # because only then are the .pth files there read, by which editable packages are found.
    lines = [f"import site; site.addsitedir({entry!r})\n" for entry in submitters if _is_of_packages(entry)]
    packages = sysconfig.get_path("purelib", "venv", {"base": path, "platbase": path})
    with open(f"{packages}/localrun_submitter.pth", "w", encoding="utf-8") as file:
        file.writelines(lines)


def _is_of_packages(entry: str) -> bool:
    return entry.endswith(("site-packages", "dist-packages"))
