"""What git says of the repository around a folder, asked by a process of its own while other things are done.

What the repository's settings name is not executed for it (monitor, pager, hooks, external diff, text conversion), but
for the filters without which its files can't be compared. Nothing in it is written, and a git that takes too long is
given up. A process that submits many runs asks twice, and from then on only when a tracked file, a folder of
such files or one of git's own files has changed (`unchanged`). What stays unseen by that is what appears inside an
untracked folder.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from typing import Any, NamedTuple

from localrun import files
from localrun.api.provenance.unchanged import Evidence

TIMEOUT_S = 5.0
LARGEST_DIFF = 10 << 20
MOST_UNTRACKED = 1000

_STATUS = (
    "status", "--porcelain=v2", "--branch", "-z", "--untracked-files=normal", "--ignored=no", "--no-renames",
    "--no-ahead-behind", "--ignore-submodules=dirty",
)  # fmt: skip
_DIFF = (
    "diff", "HEAD", "--binary", "--full-index", "--no-ext-diff", "--no-textconv", "--no-color", "--no-renames",
    "--no-relative", "--src-prefix=a/", "--dst-prefix=b/", "--unified=3", "--submodule=short",
    "--ignore-submodules=dirty", "--",
)  # fmt: skip
_TRACKED = ("ls-files", "--stage", "-z")
_SUBMODULE = b"160000"
_ALL_SIGNALS = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
# A change so shortly before git was asked may have been made after it looked: the kernel's clock ticks that slowly.
_TICK_NS = 100_000_000


def root_of(folder: str) -> str | None:
    """The root of the repository that a folder (without links in its path) lies in; None if there is none."""
    while not os.path.lexists(f"{folder}/.git"):
        parent = os.path.dirname(folder)
        if parent == folder:
            return None
        folder = parent
    return folder


def environment(root: str) -> dict[str, str]:
    """The environment for a git that is to look at the repository at ``root`` and no other, and asks nobody anything.

    Of git's own variables those that lead to another repository, or have programs executed, are left out.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or name.startswith(("GIT_CONFIG", "GIT_EXEC_PATH"))
    }
    return kept | {
        "GIT_CEILING_DIRECTORIES": os.path.dirname(root), "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0",
        "GIT_NO_LAZY_FETCH": "1", "LC_ALL": "C",
    }  # fmt: skip


def command(root: str, *words: str) -> list[str]:
    """A git command about the repository at ``root``."""
    return ["git", "-C", root, "--no-pager", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", *words]


class GitError(Exception):
    """Git can't say; the text says why."""


class _TooSlowError(GitError):
    """It would be so again, run for run: this process doesn't ask any more."""


class _Process:
    """A git command under way. Its answer is read from the pipe ``fd``; whoever doesn't want it any more closes it."""

    def __init__(self, root: str, *words: str) -> None:
        self._what = words[0]
        try:
            self.fd, its = os.pipe2(os.O_CLOEXEC)
        except OSError as error:  # no descriptors left
            raise GitError(f"git: {error.strerror}") from None
        actions = [
            (os.POSIX_SPAWN_DUP2, its, 1),
            *((os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 2)),
        ]
        try:
            self._pid: int | None = os.posix_spawnp(
                "git", command(root, *words), environment(root), file_actions=actions,
                setsigmask=(), setsigdef=_ALL_SIGNALS,
            )  # fmt: skip
        except OSError as error:
            os.close(self.fd)
            missing = isinstance(error, FileNotFoundError)
            raise GitError("git is not installed" if missing else f"git: {error.strerror}") from None
        finally:
            os.close(its)

    def answer(self, deadline: float, most: int | None = None) -> tuple[bytes, int]:
        """All that it says, or the beginning of ``most`` bytes, and how much it said. GitError if it fails."""
        pieces, size = [], 0
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        while poll.poll(max(deadline - time.monotonic(), 0) * 1000):
            piece = os.read(self.fd, 1 << 16)
            if not piece:
                break
            if most is None or size < most:
                pieces.append(piece)
            size += len(piece)
        else:
            raise _TooSlowError(f"git {self._what} took more than {TIMEOUT_S:g} s")
        code = self._reap()
        if code:
            raise GitError(f"git {self._what} refuses this repository (exit code {code})")
        return b"".join(pieces), size

    def _reap(self) -> int:
        """Its exit code; 0 if somebody else, who collects all children, was first."""
        pid, self._pid = self._pid, None
        assert pid is not None, "it was asked twice"
        try:
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        except ChildProcessError:
            return 0

    def close(self) -> None:
        """Have done with it, killing it if it hasn't ended."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        if self._pid is not None:
            try:
                os.kill(self._pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            # One that hangs in the kernel, on a file server say, must not hang us.
            threading.Thread(target=self._reap, name="localrun-git", daemon=True).start()


class Question:
    """What git says of the repository around a folder: asked when this is made, if need be; `answer` waits for it.

    ``close`` it, answered or not.
    """

    def __init__(self, folder: str) -> None:
        self.folder = os.path.realpath(folder)
        self._root = root_of(self.folder)
        self._asked: list[_Process] = []
        self._answer: dict[str, Any] | None = None
        self._deadline = time.monotonic() + TIMEOUT_S
        if self._root is None:
            self._answer = _nothing(None, "no repository")
            return
        known = _known.get(self._root)
        if known is not None and known.is_valid():
            self._answer = known.answer
            return
        self._asked_at = time.time_ns()
        try:
            self._asked.append(_Process(self._root, *_STATUS))
            if known is not None:  # the second question of this process: there may be many more
                self._asked.append(_Process(self._root, *_TRACKED))
        except GitError as error:
            self._answer = _nothing(self._root, str(error))

    def answer(self) -> dict[str, Any]:
        """Root, commit, branch, diff and its size, untracked; ``problem`` says why they are None, if they are."""
        if self._answer is None:
            assert self._root is not None, "nobody was asked"
            try:
                tracked = self._asked[1] if len(self._asked) > 1 else None
                self._answer = self._ask(self._root)
                evidence = None if tracked is None else self._evidence(self._root, self._answer, tracked)
                _keep(self._root, _Known(self._answer, evidence))
            except _TooSlowError as error:
                self._answer = _nothing(self._root, str(error))
                _keep(self._root, _Known(self._answer, None, is_final=True))
            except GitError as error:
                self._answer = _nothing(self._root, str(error))
        return self._answer

    def _ask(self, root: str) -> dict[str, Any]:
        status, _ = self._asked[0].answer(self._deadline)
        answer = _said(root, status)
        if answer.pop("changed") and answer["commit"] is not None:
            difference = _Process(root, *_DIFF)
            self._asked.append(difference)
            diff, size = difference.answer(self._deadline, LARGEST_DIFF + 1)
            kept = diff.decode("utf-8", "surrogateescape") if size <= LARGEST_DIFF else None
            answer |= {"diff": kept, "diff_size": size}
        return answer

    def _evidence(self, root: str, answer: dict[str, Any], tracked: _Process) -> Evidence | None:
        """How what git looked at looks, if it did so already when git was asked; None if that can't be told."""
        paths = _looked_at(root, tracked.answer(self._deadline)[0], answer["branch"])
        if paths is None:
            return None
        evidence = Evidence(*paths)
        if evidence.latest <= self._asked_at - _TICK_NS:
            return evidence
        evidence.close()
        return None

    def close(self) -> None:
        """Ask no more."""
        for process in self._asked:
            process.close()


class _Known(NamedTuple):
    """An answer of git's, and the evidence that it would be the same now, if there is any."""

    answer: dict[str, Any]
    evidence: Evidence | None
    is_final: bool = False

    def is_valid(self) -> bool:
        return self.is_final or (self.evidence is not None and self.evidence.holds())


_known: dict[str, _Known] = {}  # by the repository's root
# A forked child would take from its parent what the kernel tells it.
os.register_at_fork(after_in_child=_known.clear)


def _keep(root: str, known: _Known) -> None:
    before = _known.pop(root, None)
    _known[root] = known
    if before is not None and before.evidence is not None:
        before.evidence.close()


def _nothing(root: str | None, problem: str | None) -> dict[str, Any]:
    return {
        "root": root, "commit": None, "branch": None, "diff": None, "diff_size": None, "untracked": None,
        "problem": problem,
    }  # fmt: skip


def _said(root: str, status: bytes) -> dict[str, Any]:
    """What ``git status`` says; ``changed`` if a tracked file is not as at the commit."""
    answer = _nothing(root, None) | {"diff": "", "diff_size": 0, "changed": False}
    untracked = []
    for line in os.fsdecode(status).split("\0"):
        if line.startswith("# branch.oid "):
            commit = line.removeprefix("# branch.oid ")
            answer["commit"] = None if commit == "(initial)" else commit
        elif line.startswith("# branch.head "):
            branch = line.removeprefix("# branch.head ")
            answer["branch"] = None if branch == "(detached)" else branch
        elif line.startswith("? "):
            untracked.append(line.removeprefix("? "))
        elif line.startswith(("1 ", "2 ", "u ")):
            answer["changed"] = True
    if answer["commit"] is None:
        answer |= {"diff": None, "diff_size": None, "problem": "no commit yet"}
    answer["untracked"] = untracked[:MOST_UNTRACKED]
    if len(untracked) > MOST_UNTRACKED:
        answer["untracked"].append(f"… and {len(untracked) - MOST_UNTRACKED} more")
    return answer


def _looked_at(root: str, tracked: bytes, branch: str | None) -> tuple[list[bytes], list[bytes]] | None:
    """The folders and the files in them whose change could change git's answer, the root first.

    None with submodules, which are repositories of their own.
    """
    entries = tracked.split(b"\0")[:-1]
    if any(entry.startswith(_SUBMODULE) for entry in entries):
        return None
    names = dict.fromkeys(entry.partition(b"\t")[2] for entry in entries)
    folders = {b""}
    for name in names:
        folder = os.path.dirname(name)
        while folder not in folders:
            folders.add(folder)
            folder = os.path.dirname(folder)
    own, common = _git_folders(root)
    gits = [f"{root}/.git", f"{own}/HEAD", f"{own}/index", f"{own}/config.worktree"]
    gits += [f"{common}/config", f"{common}/packed-refs", *([f"{common}/refs/heads/{branch}"] if branch else [])]
    places = [name for name in ("info", "reftable") if os.path.isdir(f"{common}/{name}")]  # not every one has them
    gits += [f"{common}/{place}/{name}" for place in places for name in ("exclude", "attributes", "tables.list")]
    before = os.fsencode(root)
    watched = dict.fromkeys(os.path.dirname(path) for path in gits)
    found = [before, *(b"%s/%s" % (before, name) for name in sorted(folders - {b""})), *map(os.fsencode, watched)]
    return found, [*map(os.fsencode, gits), *(b"%s/%s" % (before, name) for name in names)]


def _git_folders(root: str) -> tuple[str, str]:
    """Where git keeps what is this working tree's, and what is the repository's."""
    own = f"{root}/.git"
    try:
        if not os.path.isdir(own):  # a file that says where: of a further working tree, say
            own = os.path.join(root, os.fsdecode(files.read(own)).removeprefix("gitdir: ").rstrip("\n"))
        return own, os.path.join(own, os.fsdecode(files.read(f"{own}/commondir")).rstrip("\n"))
    except OSError:
        return own, own
