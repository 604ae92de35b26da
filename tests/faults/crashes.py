"""Crashes at a chosen step: a process of localrun kills itself (SIGKILL) before its Nth change of a file or process.

The step is set by the environment, through a ``sitecustomize`` that counts audit events. The product knows nothing of
it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_SITECUSTOMIZE = """
import os, sys

ROLE, STEP, FLAG = os.environ["CRASH_ROLE"], int(os.environ["CRASH_STEP"]), os.environ["CRASH_FLAG"]
EVENTS = {
    "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.fork", "os.kill", "os.posix_spawn", "os.chdir",
    "fcntl.fcntl", "os.truncate", "os.symlink", "os.putenv",
}
role, count = None, 0

def arm(name):
    global role, count
    role, count = name, 0

def hook(event, args):
    global count
    if role != ROLE:
        return
    if event == "open":
        if not isinstance(args[2], int) or not args[2] & (os.O_WRONLY | os.O_RDWR):
            return
    elif event not in EVENTS:
        return
    count += 1
    if count == STEP:
        arm(None)
        try:
            os.close(os.open(FLAG, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        os.write(os.open(FLAG, os.O_WRONLY), f"{ROLE} before {event} {args}".encode(errors="replace"))
        os.kill(os.getpid(), 9)

def forked():
    arm({"spawner": "dispatcher", "dispatcher": "supervisor"}.get(role))

argv = sys.orig_argv
if any("localrun.engine.dispatch.service" in each for each in argv):
    arm("spawner")
elif any(each.endswith("engine/worker.py") for each in argv):
    arm("worker")
os.register_at_fork(after_in_child=forked)
sys.addaudithook(hook)
"""


class Crash:
    """One crash to come. A submitter's child arms itself: ``import sitecustomize; sitecustomize.arm("submitter")``."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._flag = place / "crashed"
        self._monkeypatch = monkeypatch
        folder = place / "crashing"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(_SITECUSTOMIZE)
        monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{os.environ['PYTHONPATH']}")
        self.set("nobody", 0)

    def set(self, role: str, step: int) -> None:
        """Let the next process of that role crash before that step."""
        self._flag.unlink(missing_ok=True)
        self._monkeypatch.setenv("CRASH_ROLE", role)
        self._monkeypatch.setenv("CRASH_STEP", str(step))
        self._monkeypatch.setenv("CRASH_FLAG", str(self._flag))

    @property
    def happened(self) -> str:
        """Where it crashed; empty if it hasn't."""
        try:
            return self._flag.read_text()
        except FileNotFoundError:
            return ""
