"""Running a run again, here and now: what is not as it was then, and the new run."""

from __future__ import annotations

import os
from typing import Any

from localrun.api import control, submit
from localrun.api.provenance.code import has_commit
from localrun.api.provenance.compare import Difference, differences
from localrun.api.provenance.gather import Gathering
from localrun.api.run import Run
from localrun.engine.gpus import inventory, probe
from localrun.errors import RunConfigError, UntrustedRunError
from localrun.model.folder import RunFolder
from localrun.model.trust import refusal


def differences_here(run: Run, *, trust: bool = False) -> list[Difference]:
    """What is not as it was when the run was submitted: code, packages, machine, GPUs, its working folder.

    To compare files git executes what the settings of their repository say. In a folder that an untrusted run names,
    which may have come along with it, nobody looks at the code: that is told as a difference.
    """
    then = run.provenance
    gpus = then.pop("gpus") or []
    driver, _ = then.pop("driver"), then.pop("image_id")
    is_trusted = trust or run.is_trusted
    is_here = _is_here(run) if is_trusted else os.path.isdir(run.cwd or "")
    is_looked_at = is_here and is_trusted
    with Gathering(run.cwd if is_looked_at and not run.config.integrations else None) as gathering:
        here = gathering.mapping()
    found: list[Difference] = []
    if not is_looked_at and not run.config.integrations:
        here["git"] = None  # of a folder that it has nothing to do with
        commit = (then.get("git") or {}).get("commit")
        if not is_here:
            found.append(Difference("working folder", run.cwd, None))
            if untracked := (then.get("git") or {}).get("untracked"):
                found.append(Difference("untracked", ", ".join(untracked), None))  # these no archive has
        elif commit:
            found.append(Difference("code", commit, "not looked at: the run is not trusted"))
    return [*found, *_of_gpus(gpus, driver), *differences(then, here)]


def _of_gpus(gpus: list[dict[str, Any]], driver: str | None) -> list[Difference]:
    """What is missing of the GPUs that a run had, and whether their driver is another."""
    if not gpus:
        return []
    there = probe.inventory()
    names, ours = [gpu.name for gpu in there.gpus], [gpu["name"] for gpu in gpus]
    found = []
    if any(names.count(name) < ours.count(name) for name in ours):
        had = ", ".join(f"{ours.count(name)} x {name}" for name in dict.fromkeys(ours))
        found.append(Difference("GPUs", had, inventory.types(there.gpus)))
    if driver != there.driver:
        found.append(Difference("driver", driver, there.driver))
    return found


def replay(run: Run, name: str | None = None, *, trust: bool = False) -> Run:
    """Queue a run again as a new one: its configuration, and its commands or its function and inputs.

    It works in the folder that it worked in then. If that isn't here, or what is there is no repository with its
    commit, a command run works in the code that came with it; a function, which brings its code along, works in the
    present folder.

    Raises:
        UntrustedRunError: others can have written it, and nobody has said to trust it (403).
        RunConfigError: it can't be run: a traced block, or one whose code is nowhere (400).
    """
    control.refuse_block(run._record)
    if not (trust or run.is_trusted):
        why = refusal(RunFolder(run.path))
        raise UntrustedRunError(f"run {run.name} is not executed: {why}. If you trust it, say so (--trust)")
    return submit.clone(run, name, {"cwd": _working_folder(run)})


def _is_here(run: Run) -> bool:
    """True if the folder that a run worked in is here: of one that brought code along, in a repository of that code."""
    if not os.path.isdir(run.cwd or ""):
        return False
    return not os.path.isdir(RunFolder(run.path).code) or has_commit(run.provenance.get("git") or {})


def _working_folder(run: Run) -> str | None:
    if run.config.integrations or _is_here(run):
        return None  # as it is
    if run.fn_name is not None:
        return os.getcwd()
    code, within = RunFolder(run.path).code, (run.provenance.get("git") or {}).get("folder") or "."
    folder = os.path.normpath(os.path.join(code, within))
    if not (folder == code or folder.startswith(f"{code}/")) or not os.path.isdir(folder):
        raise RunConfigError(f"run {run.name} worked in {run.cwd}, which isn't here, and no code came with it")
    return folder
