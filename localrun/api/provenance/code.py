"""The code that a run was submitted from, read back from its repository: the recorded commit with the recorded diff.

Nothing is checked out and nothing in the repository is written: what the diff adds goes to a temporary store of
objects, and no filter, hook or attribute that the repository names has a say. Untracked files are not known.
"""

from __future__ import annotations

import os
import posixpath
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from typing import IO, Any, NamedTuple

from localrun.api.provenance import git

_LINK, _SUBMODULE, _EXECUTABLE = "120000", "160000", "100755"


class CodeUnavailableError(Exception):
    """The repository doesn't have that code any more; the text says what is missing."""


class File(NamedTuple):
    """A tracked file: its path from the repository's root, whether it can be executed, its content."""

    path: str
    executable: bool
    data: bytes


class Code:
    """The tracked files of a provenance's ``git``. To be used in a ``with`` block.

    ``left_out`` are those that are no plain files: submodules, and links to anything but another of the files.
    """

    def __init__(self, recorded: Mapping[str, Any]) -> None:
        self._recorded = recorded
        self._root = recorded.get("root") or ""
        self._environment = git.environment(self._root)
        self.left_out: list[str] = []

    def __enter__(self) -> Code:
        if not self._recorded.get("commit"):
            raise CodeUnavailableError(self._recorded.get("problem") or "no commit was recorded")
        if not os.path.isdir(self._root):
            raise CodeUnavailableError(f"its repository {self._root} is not here")
        self._temporary = tempfile.TemporaryDirectory(prefix="localrun-code-")
        try:
            self._read()
        except BaseException:
            self._temporary.cleanup()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._temporary.cleanup()

    def _read(self) -> None:
        """Have the commit, with the diff on top, in an index of our own."""
        commit = self._recorded["commit"]
        objects = os.path.join(self._root, os.fsdecode(self._git("rev-parse", "--git-path", "objects")).rstrip("\n"))
        quoted = objects.replace("\\", "\\\\").replace('"', '\\"')
        os.mkdir(f"{self._temporary.name}/objects")
        self._environment |= {
            "GIT_INDEX_FILE": f"{self._temporary.name}/index",
            "GIT_OBJECT_DIRECTORY": f"{self._temporary.name}/objects",
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": f'"{quoted}"',
        }
        try:
            self._git("read-tree", f"{commit}^{{commit}}")
        except CodeUnavailableError:
            raise CodeUnavailableError(f"its repository {self._root} has no commit {commit} any more") from None
        if self._recorded.get("diff") is None:
            raise CodeUnavailableError(f"its diff was not kept: it has {self._recorded.get('diff_size')} bytes")
        diff = self._recorded["diff"].encode("utf-8", "surrogateescape")
        if diff:
            try:
                self._git("apply", "--cached", "--binary", "--whitespace=nowarn", "-", given=diff)
            except CodeUnavailableError:
                why = "a secret is masked in it" if self._recorded.get("masked") else "it is damaged"
                raise CodeUnavailableError(f"its diff can't be applied to {commit}: {why}") from None

    def _git(self, *words: str, given: bytes = b"") -> bytes:
        try:
            done = subprocess.run(git.command(self._root, *words), input=given, env=self._environment,
                                  capture_output=True, check=False)  # fmt: skip
        except FileNotFoundError:
            raise CodeUnavailableError("git is not installed") from None
        if done.returncode:
            raise CodeUnavailableError(f"git {words[0]}: {os.fsdecode(done.stderr).strip()}")
        return done.stdout

    def files(self) -> Iterator[File]:
        """The files, one after the other."""
        entries = {}
        for line in os.fsdecode(self._git("ls-files", "--stage", "-z")).split("\0")[:-1]:
            about, _, path = line.partition("\t")
            entries[path] = about.split(" ")[:2]
        reader = subprocess.Popen(git.command(self._root, "cat-file", "--batch"), env=self._environment,
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
        with reader:
            assert reader.stdin is not None and reader.stdout is not None, "both are pipes"
            for path, (mode, name) in entries.items():
                if mode == _LINK:
                    target = os.fsdecode(_object(reader.stdin, reader.stdout, name))
                    mode, name = entries.get(posixpath.normpath(posixpath.join(posixpath.dirname(path), target)),
                                             [_LINK, name])  # fmt: skip
                if mode in (_LINK, _SUBMODULE):
                    self.left_out.append(path)
                    continue
                yield File(path, mode == _EXECUTABLE, _object(reader.stdin, reader.stdout, name))
            reader.stdin.close()


def has_commit(recorded: Mapping[str, Any]) -> bool:
    """True if the repository of a provenance's ``git`` is here, and has its commit."""
    commit, root = recorded.get("commit"), recorded.get("root")
    if not commit or not os.path.isdir(root or ""):
        return False
    try:
        Code(recorded)._git("cat-file", "-e", f"{commit}^{{commit}}")
        return True
    except CodeUnavailableError:
        return False


def _object(asked: IO[bytes], answer: IO[bytes], name: str) -> bytes:
    """The content of an object, by its name."""
    asked.write(f"{name}\n".encode())
    asked.flush()
    _, _, size = answer.readline().rpartition(b" ")
    if not size.strip().isdigit():
        raise CodeUnavailableError(f"the repository lacks the object {name}")
    data = answer.read(int(size))
    answer.read(1)
    return data
