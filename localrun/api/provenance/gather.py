"""The provenance of a run that is submitted from this process: ``provenance.json``, as text.

It is gathered while the submission goes on, and is complete before the run can start: what the run itself changes is
not in it. What is only known at the start (GPUs, driver, image) is in the record, and `Run.provenance` has both.
Whoever reads it may be somebody else: the values of the user's secrets are left out, and so are those of
``env_variables`` in the command line.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from localrun import __version__, files
from localrun.api.output import masking
from localrun.api.provenance import git, packages

if TYPE_CHECKING:
    from localrun.model.mask import Mask

SCHEMA = 1


class Gathering:
    """What a run in the folder ``cwd`` depends on. Git is at work from when this is made to `file`.

    To be used in a ``with`` block: a submission that fails leaves no process behind.
    """

    def __init__(self, cwd: str | None = None, variables: Mapping[str, str] | None = None) -> None:
        self._cwd = files.absolute(cwd or ".", "cwd")
        self._variables = variables or {}
        self._question = git.Question(self._cwd)
        self._file: bytes | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._question.close()

    def file(self) -> bytes:
        """The content of ``provenance.json``; waits for git."""
        if self._file is None:
            mask = masking.current()
            parts = {
                "schema": f"{SCHEMA}",
                "localrun": json.dumps(__version__),
                "argv": json.dumps([self._shown(str(word), mask) for word in sys.argv]),
                "cwd": json.dumps(self._cwd),
                "git": self._git(mask),
                "python": _python_text(sys.executable),
                "machine": _machine_text(len(os.sched_getaffinity(0)), os.uname().nodename),
                "packages": _packages_text(),
            }
            lines = (f'  "{name}": {text}' for name, text in parts.items())
            self._file = ("{\n" + ",\n".join(lines) + "\n}\n").encode()
        return self._file

    def mapping(self) -> dict[str, Any]:
        """The same as it is read from a run's folder."""
        found: dict[str, Any] = json.loads(self.file())
        return found

    def _shown(self, word: str, mask: Mask | None) -> str:
        for name, value in self._variables.items():
            word = word.replace(f"{name}={value}", f"{name}=***")
        return word if mask is None else mask.text(word)

    def _git(self, mask: Mask | None) -> str:
        """What git says, with where in the repository the run works."""
        answer = self._question.answer()
        root = answer["root"]
        folder = None if root is None else os.path.relpath(self._question.folder, root)
        return f'{{"folder": {json.dumps(folder)}, {_git_text(answer, mask)[1:]}'


# A text is made once, and again when what it says has changed: a process may submit thousands of runs.

_git_made: tuple[dict[str, Any], Mask | None, str] | None = None
_packages_made: tuple[dict[str, str], str] | None = None


def _git_text(answer: dict[str, Any], mask: Mask | None) -> str:
    global _git_made
    made = _git_made
    if made is None or made[0] is not answer or made[1] != mask:
        made = _git_made = (answer, mask, json.dumps(_masked(answer, mask)))
    return made[2]


def _masked(answer: dict[str, Any], mask: Mask | None) -> dict[str, Any]:
    """Git's answer without the values of secrets; ``masked`` if the diff is another for it."""
    diff, untracked = answer["diff"], answer["untracked"]
    if mask is not None:
        diff = diff and mask.text(diff)
        untracked = untracked and [mask.text(name) for name in untracked]
    return {**answer, "diff": diff, "untracked": untracked, "masked": diff != answer["diff"]}


def _packages_text() -> str:
    global _packages_made
    made, found = _packages_made, packages.installed()
    if made is None or made[0] is not found:
        made = _packages_made = (found, json.dumps(found))
    return made[1]


@functools.cache
def _python_text(executable: str) -> str:
    version = ".".join(map(str, sys.version_info[:3]))
    facts = {"executable": executable, "version": version, "implementation": sys.implementation.name}
    return json.dumps({**facts, "build": sys.version})


@functools.cache
def _machine_text(usable_cpus: int, host: str) -> str:
    system = os.uname()
    return json.dumps({
        "host": host, "kernel": f"{system.sysname} {system.release}", "architecture": system.machine,
        "cpu": _cpu_model(), "cpus": os.cpu_count(), "usable_cpus": usable_cpus,
        "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
    })  # fmt: skip


def _cpu_model() -> str | None:
    """The model's name, of the first CPU: the kernel makes up the file as it is read, for hundreds of them."""
    try:
        with open("/proc/cpuinfo", "rb", buffering=0) as file:
            lines = file.read(4096).decode(errors="replace").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)
