"""What the tests share: waiting for a condition, Python children, and the processes and locks of one home folder.

Processes and locks are looked at here by means of the kernel alone, not of localrun: what is tested must not be the
judge of itself.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

REPOSITORY = Path(__file__).resolve().parent.parent
CPUS = len(os.sched_getaffinity(0))
TERMINAL = {"COMPLETED", "STOPPED", "FAILED"}
ACTIVE = {"STARTING", "RUNNING", "TERMINATING"}

T = TypeVar("T")


def wait_until(condition: Callable[[], T], timeout: float = 30.0, what: str = "") -> T:
    """Ask until the answer is true, and return it; AssertionError with the last answer after ``timeout`` seconds.

    A condition that raises an AssertionError is not true yet; the error is shown if it stays so.
    """
    deadline = time.monotonic() + timeout
    pause = 0.001
    while True:
        try:
            answer: Any = condition()
        except AssertionError as error:
            answer, failure = None, error
        else:
            failure = None
        if answer:
            return answer  # type: ignore[no-any-return]
        if time.monotonic() >= deadline:
            last = f"last: {answer!r}" if failure is None else f"last: {failure}"
            raise AssertionError(f"not within {timeout:g} s: {what or 'the condition'}; {last}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


# -- Python children --------------------------------------------------------------------------------------------------


def start_python(code: str, *args: object, script: Path | None = None, **popen: Any) -> subprocess.Popen[str]:
    """Start a Python child on this code (``sys.argv[1:]`` are ``args``), its output in pipes as text.

    With ``script`` the code is written there and executed as a file.
    """
    code = textwrap.dedent(code)
    if script is None:
        argv = [sys.executable, "-c", code]
    else:
        script.write_text(code)
        argv = [sys.executable, str(script)]
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | popen
    child = subprocess.Popen([*argv, *map(str, args)], **options)
    _children.append(child)
    return child


_children: list[subprocess.Popen[str]] = []


def end_children() -> None:
    """Kill the children that a test that failed has left."""
    while _children:
        child = _children.pop()
        if child.poll() is None:
            child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout, child.stderr):
            if stream is not None:
                stream.close()


def run_python(code: str, *args: object, timeout: float = 60, ok: bool = True, **options: Any) -> Any:
    """Run a Python child to its end: the ``CompletedProcess``. Its failure is ours unless ``ok`` is false."""
    child = start_python(code, *args, **options)
    try:
        out, err = child.communicate(timeout=timeout)
    finally:
        if child.poll() is None:
            child.kill()
            child.communicate()
    done = subprocess.CompletedProcess(child.args, child.returncode, out, err)
    assert not ok or done.returncode == 0, f"the child failed ({done.returncode}):\n{out}\n{err}"
    return done


# -- processes --------------------------------------------------------------------------------------------------------


class Seen(NamedTuple):
    """A process as /proc shows it; ``start`` tells it from a later one of the same pid."""

    pid: int
    start: int
    state: str
    command: str

    def __str__(self) -> str:
        return f"{self.pid} ({self.state}): {self.command[:120]!r}"


def look(pid: int) -> Seen | None:
    """A process that is there and not wholly dead: one whose first thread has ended may have others."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()
    state, threads, start = fields[0].decode(), int(fields[17]), int(fields[19])
    return None if state in "ZX" and threads <= 1 else Seen(pid, start, state, command)


def is_alive(pid: int) -> bool:
    """True if there is a process of that pid that is not a zombie."""
    return look(pid) is not None


def find_processes(*entries: str) -> list[Seen]:
    """The processes, but not this one, in whose environment one of these ``NAME=value`` was when they were executed."""
    wanted = {os.fsencode(entry) for entry in entries}
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            environment = Path(f"/proc/{name}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if not wanted.isdisjoint(environment):
            process = look(int(name))
            if process is not None:
                found.append(process)
    return found


def witness_at_work(home: str | os.PathLike[str]) -> Seen:
    """The process that looks at the files which a block opens, once it does: at first it is a shell that waits."""

    def found() -> list[Seen]:
        there = find_processes(f"LOCALRUN_HOME={os.fspath(home)}")
        return [each for each in there if "witnessprogram" in each.command and not each.command.startswith("/bin/sh")]

    (process,) = wait_until(found)
    return process



def kill(pid: int | None, number: int = signal.SIGKILL) -> bool:
    """Signal a process; False if it is gone already."""
    if pid is None or pid <= 1:
        return False
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


# -- locks ------------------------------------------------------------------------------------------------------------

_FLOCK = "hhqqi4x"


def is_locked(path: str | Path, byte: int) -> bool:
    """True if an open file description holds the lock on that byte."""
    return _holder(path, byte, fcntl.F_OFD_GETLK) is not None


def _holder(path: str | Path, byte: int, command: int) -> int | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        answer = fcntl.fcntl(fd, command, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))
    finally:
        os.close(fd)
    kind, _, _, _, pid = struct.unpack(_FLOCK, answer)
    return None if kind == fcntl.F_UNLCK else pid


# -- a home -----------------------------------------------------------------------------------------------------------


def record_of(path: str | Path) -> dict[str, Any]:
    """The record in a run folder, as it is now."""
    record: dict[str, Any] = json.loads(Path(path, "config.json").read_bytes())
    return record


class Home:
    """A home folder of a test's own, and all that belongs to it: records, processes, the dispatcher.

    ``place`` is the folder in and below which its runs lie.
    """

    def __init__(self, path: Path, place: Path) -> None:
        self.path = path
        self.place = place
        self.runs = path / "runs"
        self.queue = path / "queue"

    def dispatcher(self) -> int | None:
        """The pid of the live dispatcher."""
        return _holder(self.queue / "dispatcher.lock", 0, fcntl.F_GETLK)

    def record(self, name: str) -> dict[str, Any]:
        """The record of the run of that name."""
        return record_of(self.runs / name)

    def status(self, name: str) -> str:
        """The status of the run of that name."""
        return str(self.record(name)["status"])

    def supervisor(self, name: str) -> int | None:
        """The pid of a run's supervisor, if its record names one."""
        supervisor = self.record(name)["supervisor"]
        return None if supervisor is None else int(supervisor["pid"])

    def rank(self, name: str) -> int | None:
        """The pid of a run's first rank, if its record names one."""
        ranks = self.record(name)["ranks"]
        return int(ranks[0]["pid"]) if ranks else None

    def freeze(self, name: str) -> int:
        """Stop the supervisor of a RUNNING run while it holds no lock but the run's; its pid, to be continued."""
        wait_until(lambda: self.status(name) == "RUNNING")
        wait_until(lambda: not is_locked(self.runs / name / ".lock", 0))
        supervisor = self.supervisor(name)
        assert supervisor is not None
        kill(supervisor, signal.SIGSTOP)
        return supervisor

    def tickets(self, *states: str) -> list[str]:
        """The names of the files in these folders of the queue, or in all of them."""
        found = []
        for state in states or ("submitting", "waiting", "active", "ending"):
            try:
                found += os.listdir(self.queue / state)
            except FileNotFoundError:
                continue
        return sorted(found)

    def records(self) -> dict[str, dict[str, Any]]:
        """Every readable record of this home, archived ones and those at a ``path=`` too, by folder."""
        found = {}
        for folder, folders, files in os.walk(self.place):
            if "config.json" in files:
                folders.clear()
                try:
                    record = record_of(folder)
                except (ValueError, OSError, RecursionError):
                    continue
                if isinstance(record, dict) and record.get("home") == str(self.path):
                    found[folder] = record
        return found

    def active(self) -> dict[str, dict[str, Any]]:
        """The runs that have not ended, by folder."""
        return {path: record for path, record in self.records().items() if record["status"] not in TERMINAL}

    def unguarded(self) -> list[str]:
        """The runs with an active status that nobody stands behind."""
        return [
            f"{path}: {record['status']}"
            for path, record in self.records().items()
            if record["status"] in ACTIVE and not is_locked(f"{path}/.lock", 1)
        ]

    def processes(self) -> list[Seen]:
        """The processes that were executed in this home's environment or are marked as a run's of it."""
        uids = [record["uid"] for record in self.records().values()]
        return find_processes(f"LOCALRUN_HOME={self.path}", *(f"LOCALRUN_RUN_UID={uid}" for uid in uids))

    def leftovers(self) -> list[Seen]:
        """The processes of this home besides the dispatcher."""
        dispatcher = self.dispatcher()
        return [process for process in self.processes() if process.pid != dispatcher]

    def check(self, timeout: float = 15.0) -> None:
        """Fail if a run is active with nobody behind it, or if a process is left although all runs have ended."""
        if self.dispatcher() is None:  # nobody is there to put it right
            timeout = min(timeout, 2.0)
        wait_until(lambda: _is_empty(self.unguarded()), timeout, "every active run has a supervisor")
        if not self.active():
            wait_until(lambda: _is_empty(self.leftovers()), timeout, "no process is left of runs that have ended")

    def end(self) -> None:
        """Kill all that belongs to this home."""
        dispatcher = self.dispatcher()
        if dispatcher is not None:
            kill(dispatcher, signal.SIGTERM)
        wait_until(lambda: not [kill(process.pid) for process in self.processes()], 30, "all its processes are gone")

    def all_ended(self, *names: str, timeout: float = 60.0) -> dict[str, str]:
        """Wait until these runs, or all, have ended, without touching localrun; their statuses by name."""

        def statuses() -> dict[str, str]:
            records = [self.record(name) for name in names] if names else list(self.records().values())
            found = {record["name"]: record["status"] for record in records}
            running = {name: status for name, status in found.items() if status not in TERMINAL}
            assert not running, running
            return found

        return wait_until(statuses, timeout, "all runs have ended")


def _is_empty(found: list[Any]) -> bool:
    assert not found, "\n".join(map(str, found))
    return True


@contextmanager
def small_disk(place: Path, size: str = "1m") -> Iterator[Path]:
    """A file system of its own of that size, mounted at ``place``; skips where mounting isn't permitted."""
    import pytest

    place.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(place)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"mounting a file system isn't permitted here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path, leave: int = 0) -> Path:
    """Fill the file system with one file, up to ``leave`` bytes; removing it gives the space back."""
    filler = place / "filler"
    with open(filler, "wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            pass
        if leave:
            file.truncate(max(file.tell() - leave, 0))
    return filler


# -- runs -------------------------------------------------------------------------------------------------------------


def submit(name: str | None, command: str, *, path: str | Path | None = None, **fields: Any) -> Any:
    """Queue a command; ``fields`` are those of ``RunConfig``, and of ``compute`` and ``scheduling`` by name."""
    from localrun import RunConfig, create_run

    config = RunConfig(name=name, command=command)
    for field, value in fields.items():
        setattr(config, field, value)
    return create_run(config, path=None if path is None else str(path))


def execute(name: str | None, command: str, *, timeout: float = 60, **fields: Any) -> Any:
    """Queue a command and wait for its end."""
    return submit(name, command, **fields).wait(timeout)


def stdout_bytes(run: Any, resumption: int = 0) -> bytes:
    """What a run wrote to its standard output, from the file itself."""
    return Path(run.path, "logs", str(resumption), "rank_0.out").read_bytes()


def stderr_bytes(run: Any, resumption: int = 0) -> bytes:
    """What a run wrote to its standard error, from the file itself."""
    return Path(run.path, "logs", str(resumption), "rank_0.err").read_bytes()
