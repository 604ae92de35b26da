"""Every environment variable localrun reads, each with its precedence in one expression.

Values are read when asked for, never at import, so that a test or a notebook can change them.
"""

from __future__ import annotations

import os

from localrun.errors import RunConfigError

# In a run, the names of the variables that hold its secrets; the prefix is that of what is a run's own.
CONFIDENTIAL = "LOCALRUN_RUN_SECRETS"


def home() -> str:
    """The folder of the queue, the dispatcher's log and, by default, the runs: ``LOCALRUN_HOME`` or ``~/.localrun``."""
    return os.path.abspath(os.path.expanduser(os.environ.get("LOCALRUN_HOME") or "~/.localrun"))


def runs_dir() -> str:
    """The folder of run folders: ``LOCALRUN_RUNS_DIR`` or ``<home>/runs``."""
    chosen = os.environ.get("LOCALRUN_RUNS_DIR")
    return os.path.abspath(os.path.expanduser(chosen)) if chosen else f"{home()}/runs"


def run_folder(name: str, path: str | os.PathLike[str] | None = None) -> str:
    """Where the run of that name lies, or is to lie, unless its folder is said to be at ``path``."""
    if path is None:
        return f"{runs_dir()}/{name}"
    from localrun import files  # not for those who only complete a run's name

    return files.absolute(path, "path")


def current_run() -> str | None:
    """The folder of the run that this process works for: ``LOCALRUN_RUN_DIR``; None outside of runs."""
    return os.environ.get("LOCALRUN_RUN_DIR") or None


def idle_seconds() -> float:
    """How long the dispatcher stays after its last work, in seconds: ``LOCALRUN_IDLE_S`` or 5."""
    text = os.environ.get("LOCALRUN_IDLE_S") or "5"
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise RunConfigError(f"LOCALRUN_IDLE_S: must be a number of seconds, 0 or more, not {text!r}")
    return seconds


def managed_gpus() -> tuple[str, ...] | None:
    """The GPUs that localrun may give out: ``LOCALRUN_GPUS``, indices (PCI order) or uuids, with commas; None is all.

    "3:0" is the first MIG instance on the GPU of index 3, and the empty text means no GPU.

    Raises:
        RunConfigError: an entry is neither; it is named.
    """
    text = os.environ.get("LOCALRUN_GPUS")
    if text is None:
        return None
    entries = [entry.strip() for entry in text.split(",")] if text.strip() else []
    wrong = [entry for entry in entries if not _names_gpu(entry)]
    if wrong:
        named = ", ".join(map(repr, wrong))
        raise RunConfigError(f"LOCALRUN_GPUS: must be indices or uuids of GPUs, with commas, not {named}")
    return tuple(dict.fromkeys(entries))


def _names_gpu(entry: str) -> bool:
    index, _, instance = entry.partition(":")
    is_index = all(part.isascii() and part.isdigit() for part in (index, instance or "0"))
    return (is_index and not entry.endswith(":")) or entry.upper().startswith(("GPU-", "MIG-"))


def shell() -> str:
    """The shell that a person is given inside a run: ``SHELL`` or bash."""
    return os.environ.get("SHELL") or "/bin/bash"


def terminal() -> dict[str, str]:
    """What tells programs which terminal they are on, as far as it is set: ``TERM``, ``COLORTERM``."""
    known = {"TERM": os.environ.get("TERM"), "COLORTERM": os.environ.get("COLORTERM")}
    return {name: value for name, value in known.items() if value}


def lease_dir() -> str | None:
    """The folder of GPU leases, which all users of the machine must share: ``LOCALRUN_LEASE_DIR``; None if not set."""
    chosen = os.environ.get("LOCALRUN_LEASE_DIR")
    return os.path.abspath(os.path.expanduser(chosen)) if chosen else None


# What tells a container engine's command line where its engine is, and how to use it. None of it is a secret.
_OF_ENGINES = (
    "PATH", "HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "DBUS_SESSION_BUS_ADDRESS",
    "DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_CERT_PATH", "DOCKER_TLS", "DOCKER_TLS_VERIFY",
    "CONTAINER_HOST", "CONTAINER_CONNECTION", "CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF", "REGISTRY_AUTH_FILE",
)  # fmt: skip


def container_engine() -> tuple[str, dict[str, str]]:
    """The program that starts containers, docker's or podman's command line: ``LOCALRUN_CONTAINER_ENGINE`` or docker.

    With the variables that it heeds, as far as they are set (``DOCKER_HOST`` and its like). The program is absolute if
    it is on the ``PATH``, else as it was asked for.
    """
    import shutil

    asked = os.path.expanduser(os.environ.get("LOCALRUN_CONTAINER_ENGINE") or "docker")
    program = shutil.which(asked) or asked
    if _is_podmans(program):
        program = shutil.which("podman") or program
    return program, {name: os.environ[name] for name in _OF_ENGINES if name in os.environ}


def _is_podmans(docker: str) -> bool:
    """True for the script by which some systems have podman under docker's name, too."""
    try:
        with open(docker, "rb") as file:
            beginning = file.read(4096)
    except OSError:
        return False
    return beginning.startswith(b"#!") and b"podman" in beginning


def docker_socket() -> str | None:
    """The socket on which docker's engine listens, where that is plain: ``DOCKER_HOST`` or, by default, the system's.

    None if ``DOCKER_HOST`` is no socket, or ``DOCKER_CONTEXT`` says which engine is meant.
    """
    default = None if os.environ.get("DOCKER_CONTEXT") else "unix:///var/run/docker.sock"
    kind, _, path = (os.environ.get("DOCKER_HOST") or default or "").partition("://")
    return path if kind == "unix" else None


def library_path() -> list[str]:
    """The folders in which shared libraries are looked for first: ``LD_LIBRARY_PATH``."""
    return [folder for folder in os.environ.get("LD_LIBRARY_PATH", "").split(":") if folder]
