"""What git says of the repository around a folder, asked by a process of its own while other things are done.

What the repository's settings name is not executed for it (monitor, pager, hooks, external diff, text conversion), but
for the filters without which its files can't be compared. Nothing in it is written, and a git that takes too long is
given up. A process that submits many runs asks twice, and from then
on only when the kernel shows, by the times of all tracked files, their folders and git's own files, that something may
have changed. What stays unseen by that is what appears inside an untracked folder.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from typing import Any, NamedTuple

from localrun import files

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
_Looks = list[tuple[int, int] | None]


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
        self.fd, its = os.pipe2(os.O_CLOEXEC)
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
                proof = None if tracked is None else self._proof(self._root, self._answer, tracked)
                _known[self._root] = _Known(self._answer, proof)
            except _TooSlowError as error:
                self._answer = _nothing(self._root, str(error))
                _known[self._root] = _Known(self._answer, _Proof([], []))
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

    def _proof(self, root: str, answer: dict[str, Any], tracked: _Process) -> _Proof | None:
        """How what was looked at looks, if it did so already when git was asked; None if that can't be told."""
        paths = _looked_at(root, tracked.answer(self._deadline)[0], answer["branch"])
        looks = _looks(paths or ())
        latest = max((look[0] for look in looks if look is not None), default=0)
        return None if paths is None or latest > self._asked_at - _TICK_NS else _Proof(paths, looks)

    def close(self) -> None:
        """Ask no more."""
        for process in self._asked:
            process.close()


class _Proof(NamedTuple):
    """What an answer depends on, and how it looked."""

    paths: list[bytes]
    looks: _Looks


class _Known(NamedTuple):
    """An answer of git's, and what proves that it would be the same now; None if nothing does."""

    answer: dict[str, Any]
    proof: _Proof | None

    def is_valid(self) -> bool:
        return self.proof is not None and _looks(self.proof.paths) == self.proof.looks


_known: dict[str, _Known] = {}  # by the repository's root


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


def _looked_at(root: str, tracked: bytes, branch: str | None) -> list[bytes] | None:
    """Every path whose change could change git's answer; None with submodules, which are repositories of their own."""
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
    gits += [f"{common}/{name}" for name in ("config", "packed-refs", "info/exclude", "info/attributes")]
    gits += [f"{common}/reftable/tables.list", *([f"{common}/refs/heads/{branch}"] if branch else [])]
    before = os.fsencode(root)
    return [*map(os.fsencode, gits), *(b"%s/%s" % (before, name) for name in (*sorted(folders), *names))]


def _git_folders(root: str) -> tuple[str, str]:
    """Where git keeps what is this working tree's, and what is the repository's."""
    own = f"{root}/.git"
    try:
        if not os.path.isdir(own):  # a file that says where: of a further working tree, say
            own = os.path.join(root, os.fsdecode(files.read(own)).removeprefix("gitdir: ").rstrip("\n"))
        return own, os.path.join(own, os.fsdecode(files.read(f"{own}/commondir")).rstrip("\n"))
    except OSError:
        return own, own


def _looks(paths: list[bytes] | tuple[()]) -> _Looks:
    """When each of these last changed in any way, and which file it is; None for what isn't there."""
    looks: _Looks = []
    for path in paths:
        try:
            seen = os.lstat(path)
        except OSError:
            looks.append(None)
        else:
            looks.append((seen.st_ctime_ns, seen.st_ino))
    return looks
