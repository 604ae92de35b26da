"""What a run does before its ranks start: its integrations carried out, in order, in a process of the run.

It is executed in the submitter's interpreter, with rank 0's environment and logs; what git and pip say goes to the
latter's stderr, so that stdout stays the ranks'. Which of them failed it says in rank 0's outcome file. Each attempt at
the run begins anew: what an earlier one cloned and installed is removed, and nothing else in the working folder.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from localrun import files
from localrun.engine.launchers import venv
from localrun.engine.launchers.process import SYS_PATH
from localrun.model import record as records
from localrun.model.folder import RunFolder
from localrun.model.integrations import described_integration, needs_venv

# Of a git command that the submitter is in, a hook say: they would lead ours to its repository.
_GIT_OF_ANOTHER = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX")
# For pip with a folder of wheels: no file of settings and no other folder leads it elsewhere.
_NOWHERE_ELSE = {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": None}


class Step(NamedTuple):
    """A program to execute: what people call it, and its folder, relative to the run's working folder.

    ``says`` is what its failure means, and ``environment`` what it has besides (None: not at all).
    """

    name: str
    argv: list[str]
    cwd: str = "."
    says: str | None = None
    environment: Mapping[str, str | None] = {}


def main(path: str, resumption: int) -> None:
    """Prepare the run in that folder; leave with the exit code of what failed."""
    folder = RunFolder(path)
    record = records.read(folder)
    integrations = record["request"]["integrations"]
    environment = {name: value for name, value in os.environ.items() if name not in (*_GIT_OF_ANOTHER, SYS_PATH)}
    # Nobody is there to be asked, and a user's own pip.conf must not lead what is installed out of the run.
    environment |= {"GIT_TERMINAL_PROMPT": "0", "PIP_USER": "0"}
    _clear(folder, integrations)
    if needs_venv(integrations):
        venv.create(folder.venv, record["python"]["path"])
    for index, integration in enumerate(integrations):
        what = f"integrations[{index}] ({described_integration(integration)})"
        _say(what)
        for step in steps(integration, folder.venv):
            code = _execute(step, folder.work, environment)
            if code:
                why = step.says if step.says and code <= 128 else f"{step.name} ended with exit code {code}"
                _fail(folder.outcome(resumption, 0), f"{what}: {why}", code)


def steps(integration: Mapping[str, Any], environment: str) -> list[Step]:
    """The programs that carry out an integration; ``environment`` is the run's virtual one."""
    pip = [venv.executable(environment), "-m", "pip", "--disable-pip-version-check", "--no-input", "install"]
    if integration["integration_type"] == "pip_packages":
        source = ["--no-index", "--find-links", integration["find_links"]] if integration["find_links"] else []
        upgrade = ["--upgrade"] if integration["upgrade"] else []
        alone = _NOWHERE_ELSE if source else {}
        argv = [*pip, *source, *upgrade, *integration["packages"]]
        return [Step("pip install", argv, environment=alone)]
    path = integration["path"]
    branch = ["--branch", integration["git_branch"]] if integration["git_branch"] else []
    found = [Step("git clone", ["git", "clone", *branch, "--", integration["git_repo"], path])]
    if integration["git_commit"]:
        commit = integration["git_commit"]
        says = f"git_commit {commit}: the repository has no such commit"
        found.append(Step("git cat-file", ["git", "cat-file", "-e", f"{commit}^{{commit}}"], path, says))
        checkout = ["git", "-c", "advice.detachedHead=false", "checkout", "--detach", commit, "--"]
        found.append(Step("git checkout", checkout, path))
    if integration["pip_install"]:
        found.append(Step("pip install", [*pip, *integration["pip_install"]], path))
    return found


def _clear(folder: RunFolder, integrations: Sequence[Mapping[str, Any]]) -> None:
    """Remove what an earlier attempt made: the virtual environment, and the folders in which repositories lie."""
    import shutil

    made = {integration["path"].partition("/")[0] for integration in integrations if "path" in integration}
    for place in (folder.venv, *(f"{folder.work}/{name}" for name in sorted(made))):
        if os.path.islink(place) or os.path.isfile(place):
            os.unlink(place)
        elif os.path.isdir(place):
            shutil.rmtree(place)


def _execute(step: Step, work: str, environment: Mapping[str, str]) -> int:
    """Execute a step; its exit code as a shell has it."""
    given = {name: value for name, value in {**environment, **step.environment}.items() if value is not None}
    try:
        code = subprocess.call(step.argv, cwd=f"{work}/{step.cwd}", env=given, stdout=sys.stderr)
    except FileNotFoundError as error:
        _say(f"{error.filename}: {error.strerror}")
        return 127
    return code if code >= 0 else 128 - code


def _fail(outcome: str, message: str, code: int) -> None:
    import json

    _say(message)
    os.close(files.create(outcome, json.dumps({"message": message}).encode()))
    sys.exit(code)


def _say(line: str) -> None:
    print(f"localrun: {line}", file=sys.stderr, flush=True)
