"""What is in a rank's container besides its image: folders and files of the machine, and what is executed there.

The run folder and the working folder are at their own places. A function's worker needs localrun and cloudpickle as
they are outside, and nothing else; it is executed by the image's Python.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

from localrun import files
from localrun.engine.launchers import containerargs, sequence
from localrun.engine.launchers.containerargs import Mount
from localrun.engine.launchers.containergates import WAIT
from localrun.engine.launchers.process import WORKER, CannotStartError
from localrun.model.folder import RunFolder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Where localrun itself lies in a container that runs a function.
_ROOT = "/.localrun"
_PARAMETERS = "/mnt/config/parameters.yaml"
_PACKAGE = os.path.dirname(os.path.dirname(WORKER))


def mounts(record: Mapping[str, Any], folder: RunFolder, secrets: Sequence[tuple[str, str, str]]) -> list[Mount]:
    """What of the machine is in the containers of a run; ``secrets`` are variable, file and place of those that are."""
    asked = [Mount(each["source"], each["target"], each["read_only"]) for each in record["request"]["volumes"]]
    asked += [Mount(source, target, read_only=True) for _, source, target in secrets]
    asked += [Mount(each, each) for each in (folder.path, record["cwd"])]
    if os.path.exists(folder.parameters):
        asked.append(Mount(folder.parameters, _PARAMETERS, read_only=True))
    if record["fn_name"] is not None:
        asked += [
            Mount(source, f"{_ROOT}/{os.path.basename(source)}", read_only=True)
            for source in (_PACKAGE, _cloudpickle(record["python"]["path"]))
        ]
    return without_doubles(asked)


def make_places(mounted: Sequence[Mount]) -> None:
    """Make the places of mounts that lie in a folder of the machine which is mounted itself.

    They appear there, and made by the engine they would be root's.
    """
    for mount in mounted:
        around = [each for each in mounted if mount.target.startswith(f"{each.target}/")]
        if not around:
            continue
        outer = max(around, key=lambda each: len(each.target))
        place = outer.source + mount.target.removeprefix(outer.target)
        try:
            is_folder = os.path.isdir(mount.source)
            os.makedirs(place if is_folder else os.path.dirname(place), exist_ok=True)
            if not is_folder and not os.path.lexists(place):
                os.close(files.create(place, b""))
        except OSError:
            pass  # the engine says best what is wrong with it


def command(
    record: Mapping[str, Any], folder: RunFolder, rank: int, resumption: int, context: Mapping[str, Any]
) -> list[str]:
    """What is executed for a rank, from the gate on."""
    gate, out, err = folder.gate(resumption, rank), folder.stdout(resumption, rank), folder.stderr(resumption, rank)
    begin = [f"{context['umask']:o}", gate, out, err]
    if record["fn_name"] is None:
        argv = sequence.argv(record["cmds"], folder.commands(resumption, rank))
        return containerargs.shell(argv[1:], WAIT, begin)
    python = record["python"]
    version = ".".join(python["version"].split(".")[:2])
    project = [entry for entry in python["path"] if _is_of_project(entry, record["cwd"])]
    several = [str(rank)] * bool(record["request"]["nproc_per_node"])
    own = [folder.path, str(resumption), str(rank), *several]
    inside = f"{_ROOT}/localrun/engine/inside.py"
    return ["python3", inside, *begin, folder.outcome(resumption, rank), version, "\n".join(project), *own]


def without_doubles(mounts: Iterable[Mount]) -> list[Mount]:
    """The mounts with each place taken once: the first counts."""
    return list({mount.target: mount for mount in reversed(list(mounts))}.values())[::-1]


def _is_of_project(entry: str, cwd: str) -> bool:
    """True for a place of the import path that is in the container, too, and isn't full of the machine's packages."""
    is_inside = entry == cwd or entry.startswith(f"{cwd}/")
    return is_inside and not any(part in entry for part in ("site-packages", "dist-packages", "/lib/python"))


def _cloudpickle(path: Sequence[str]) -> str:
    """The folder of the submitter's cloudpickle, which is all that a worker needs besides localrun."""
    for entry in path:
        if os.path.exists(f"{entry}/cloudpickle/__init__.py"):
            return f"{entry}/cloudpickle"
    raise CannotStartError("cloudpickle isn't on the import path any more: install it again")
