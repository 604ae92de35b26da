"""Connecting to a running run: a process that is started inside it from outside, a person's shell, say.

It has what the run's own process has, environment, GPUs and working folder, and it ends with the run. It is no child
of the supervisor, which finds it by the run's mark; and that it is to be looked for is told by a file, made under the
record's lock while the record says RUNNING. The supervisor takes every step out of RUNNING under the same lock, so
that nobody comes in unseen.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence

from localrun import files
from localrun.engine import processes
from localrun.engine.launchers.process import SYS_PATH
from localrun.errors import RunConfigError, RunNotRunningError
from localrun.model import record as records
from localrun.model.folder import RunFolder
from localrun.model.record import Record
from localrun.model.status import RunStatus

_MOST_TO_EXECUTE_S = 1.0


def start(
    folder: RunFolder,
    command: str | Sequence[str] | None,
    *,
    shell: str,
    rank: int | None = None,
    variables: Mapping[str, str],
) -> subprocess.Popen[bytes]:
    """Start a process inside a run, with this process's standard streams; ``variables`` count more than the run's.

    ``command`` is a program with its arguments, text for bash, or None for ``shell``; a container has its image's own
    shells. It is placed as that ``rank`` is, or as the lowest that is alive. It gets SIGHUP when this process is gone.

    Raises:
        RunNotRunningError: the run, or that rank of it, isn't running; the message says what it is.
        RunConfigError: there is no such rank, or the program can't be started.
    """
    with records.held(folder):
        record = records.read(folder)
        running, pid = _running(record, folder, rank)
        if record["request"].get("image"):
            argv, environment = _inside_container(record, running, command, variables)
        else:
            argv = _argv(command, shell)
            environment = {**_environment(pid, record), **variables}
        environment[processes.MARK] = record["uid"]
        cwd = f"/proc/{pid}/cwd"
        _tell_supervisor(folder)
        try:
            # Started before the lock is given back: from here on it can be found.
            return subprocess.Popen(argv, env=environment, cwd=cwd, preexec_fn=processes.hang_up_with_parent)
        except OSError as error:
            if error.filename == cwd:
                raise RunNotRunningError(f"run {record['name']} ends at this moment") from None
            raise RunConfigError(f"{argv[0]} can't be started in run {record['name']}: {error.strerror}") from None


def _argv(command: str | Sequence[str] | None, shell: str) -> list[str]:
    if isinstance(command, str):
        return ["/bin/bash", "-c", command]
    return [shell] if command is None else list(command)


def _inside_container(
    record: Record, rank: int, command: str | Sequence[str] | None, variables: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """The program, and its environment, that start a process in a rank's container: the engine's own client."""
    from localrun.engine.launchers import containerargs

    engine = record["request"]["engine"]
    terminal = ["--tty"] if os.isatty(0) else []
    container = containerargs.name(record, records.resumption_index(record), rank)
    argv = [engine["program"], "exec", "--interactive", *terminal, *(f"--env={name}" for name in variables), container]
    if command is None or isinstance(command, str):
        command = containerargs.shell([] if command is None else ["-c", command])
    return [*argv, *command], {**engine["environment"], **variables}


def _running(record: Record, folder: RunFolder, rank: int | None) -> tuple[int, int]:
    """The rank that is meant, and its pid."""
    name, status = record["name"], records.status(record)
    if status.is_terminal():
        raise RunNotRunningError(f"run {name} has ended: it is {status} ({record['reason']}: {record['message']})")
    if status is not RunStatus.RUNNING or not records.is_supervised(folder):
        hint = f": 'localrun wait {name} --status RUNNING' waits for it" if status < RunStatus.RUNNING else ""
        raise RunNotRunningError(f"run {name} is {status}, not RUNNING{hint}")
    ranks = {entry["rank"]: entry for entry in record["ranks"]}
    if rank is not None and ranks and rank not in ranks:
        raise RunConfigError(f"rank: run {name} has ranks 0 to {len(ranks) - 1}, not {rank}")
    for each, entry in sorted(ranks.items()):
        # Both are None of one that had ended before it was noted.
        if rank in (None, each) and entry["start"] and processes.start_time(entry["pid"]) == entry["start"]:
            return int(each), int(entry["pid"])
    which = "none of its processes is" if rank is None else f"its rank {rank} isn't"
    raise RunNotRunningError(f"run {name}: {which} running at this moment")


def _environment(pid: int, record: Record) -> dict[str, str]:
    """The environment that a run's process was started with, less what is for localrun's worker alone.

    While a process is executed it has none, or not all of it: it has when the run's mark is there, unless the program
    has taken that away.
    """
    deadline = time.monotonic() + _MOST_TO_EXECUTE_S
    while True:
        try:
            entries = files.read(f"/proc/{pid}/environ").split(b"\0")
        except OSError as error:
            why = f"its environment can't be read: {error.strerror}"
            raise RunNotRunningError(f"run {record['name']}: {why}") from None
        found = dict(os.fsdecode(entry).split("=", 1) for entry in entries if b"=" in entry)
        if found.get(processes.MARK) == record["uid"] or time.monotonic() >= deadline:
            found.pop(SYS_PATH, None)
            return found
        time.sleep(0.001)


def _tell_supervisor(folder: RunFolder) -> None:
    try:
        os.close(files.create(folder.connected, b""))
    except FileExistsError:
        pass  # by one who came before
