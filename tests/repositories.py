"""Real git repositories for tests, with nothing of the user's own settings in them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

SETTINGS = ("-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")


def git(root: Path, *words: str) -> str:
    """What a git command says."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(
        ["git", "-C", str(root), *SETTINGS, *words],
        env=environment, capture_output=True, text=True, errors="surrogateescape",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def repository(root: Path, **contents: str) -> Path:
    """A new repository at ``root`` with a commit of these files, their names without ``.txt``; on the branch main."""
    root.mkdir(parents=True, exist_ok=True)
    git(root, "init", "--quiet", "--initial-branch=main")
    for name, text in contents.items():
        (root / f"{name}.txt").write_text(text)
    if contents:
        commit(root)
    return root


def commit(root: Path) -> str:
    """Commit all that is there; the new commit."""
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "more")
    return git(root, "rev-parse", "HEAD").strip()
