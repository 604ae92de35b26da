"""The container engine as its command line has it: questions to it, and what it says of containers.

Docker's words are podman's, too; where they differ is in `containerargs`. A question takes at most ten seconds: an
engine that hangs hangs nothing of ours. Loaded only for runs that have an image.
"""

from __future__ import annotations

import json
import os
import select
import signal
from collections.abc import Mapping, Sequence

from localrun import files
from localrun.errors import SystemFailureError
from localrun.tuples import NamedTuple

# On every container of a run: the run's uid.
LABEL = "localrun.uid"

_PATIENCE_S = 10.0


class State(NamedTuple):
    """How a container is: ``status`` is the engine's word (created, running, exited, …), ``error`` its why.

    ``image`` is the id of its image, as ``sha256:…``.
    """

    status: str
    exit_code: int
    oom_killed: bool
    error: str
    image: str


class ContainerEngine:
    """An engine's command line, ``program``; ``environment`` tells it where the engine is, and nothing of the run."""

    def __init__(self, program: str, environment: Mapping[str, str]) -> None:
        self.program = program
        self.environment = environment

    @property
    def name(self) -> str:
        """What people call it."""
        return os.path.basename(self.program)

    def ask(self, *words: str) -> tuple[int, str, str]:
        """The exit code, output and errors of a question.

        Raises:
            SystemFailureError: there is no such program, or it doesn't answer in time.
        """
        out, err = os.memfd_create("answer"), os.memfd_create("errors")
        try:
            code = self._asked(words, out, err)
            return code, _content(out), _content(err)
        except OSError as error:
            why = f"{self.name} can't be started: {error.strerror}: install it, or set LOCALRUN_CONTAINER_ENGINE"
            raise SystemFailureError(f"containers: {why}") from None
        finally:
            os.close(out)
            os.close(err)

    def version(self) -> str:
        """The engine's version. SystemFailureError, with what it says, if it can't be reached."""
        code, out, err = self.ask("version", "--format", "{{.Server.Version}}")
        if code or not out.strip():
            raise self._unreachable(err or out)
        return out.strip()

    def has_gpu_runtime(self) -> bool:
        """True if NVIDIA's runtime, or its hook, is there to give GPUs to containers.

        The engine lists the one; the other it finds on its own path, which is mostly ours.
        """
        import shutil

        code, out, err = self.ask("info", "--format", "{{json .}}")
        if code:
            raise self._unreachable(err)
        programs = ("nvidia-container-runtime-hook", "nvidia-container-runtime", "nvidia-ctk")
        return '"nvidia"' in out or any(shutil.which(each, path=self.environment.get("PATH")) for each in programs)

    def has_image(self, image: str) -> bool:
        """True if the image is here. SystemFailureError if the engine can't be reached."""
        code, _, err = self.ask("image", "inspect", "--format", "{{.Id}}", image)
        if code and not _says_there_is_none(err):
            raise self._unreachable(err)
        return code == 0

    def state(self, container: str) -> State | None:
        """How a container is, by name; None if there is none. SystemFailureError if the engine can't be reached."""
        code, out, err = self.ask("container", "inspect", "--format", "[{{json .State}}, {{json .Image}}]", container)
        if code and not _says_there_is_none(err):
            raise self._unreachable(err)
        if code:
            return None
        said, image = json.loads(out)
        image = f"sha256:{image.removeprefix('sha256:')}"
        return State(said["Status"], said["ExitCode"], said.get("OOMKilled", False), said.get("Error", ""), image)

    def containers(self, uid: str) -> list[str]:
        """The ids of a run's containers, whatever they are at. SystemFailureError if the engine can't be reached."""
        code, out, err = self.ask("ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={LABEL}={uid}")
        if code:
            raise self._unreachable(err)
        return out.split()

    def remove(self, containers: Sequence[str]) -> None:
        """Remove containers with their volumes, killing them if need be. SystemFailureError if that fails."""
        if not containers:
            return
        code, _, err = self.ask("rm", "--force", "--volumes", *containers)
        if code and not _says_there_is_none(err):
            raise self._unreachable(err)

    def _asked(self, words: Sequence[str], out: int, err: int) -> int:
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, out, 1),
            (os.POSIX_SPAWN_DUP2, err, 2),
        ]
        pid = os.posix_spawn(self.program, [self.program, *words], self.environment, file_actions=actions, setsid=True)
        handle = os.pidfd_open(pid)
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        in_time = poll.poll(_PATIENCE_S * 1000)
        if not in_time:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        os.close(handle)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if not in_time:
            raise SystemFailureError(f"containers: {self.name} gave no answer within {_PATIENCE_S:g} s")
        return code

    def _unreachable(self, said: str) -> SystemFailureError:
        return SystemFailureError(f"containers: {self.name} can't be used: {last_line(said)}")


def check_reachable(engine: ContainerEngine, socket_path: str | None) -> None:
    """See that there is an engine, as quickly as that can be seen.

    Where it listens on a socket that is known, a connection tells; else its command line is asked.

    Raises:
        SystemFailureError: there is none, or it can't be reached.
    """
    import socket

    if socket_path is not None and engine.name == "docker" and os.access(engine.program, os.X_OK):
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                return connection.connect(socket_path)
            except OSError:
                pass  # its own words on it are better
    engine.version()
    return None


def last_line(text: str) -> str:
    """The last line that says something, without what every one of an engine's errors begins with."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and "--help" not in line]
    line = lines[-1] if lines else "it says nothing"
    for beginning in ("docker: ", "Error response from daemon: ", "Error: "):
        line = line.removeprefix(beginning)
    return line.rstrip(".")


def _says_there_is_none(errors: str) -> bool:
    said = errors.lower()
    return "image not known" in said or (
        "no such" in said and not any(f"no such {what}" in said for what in ("host", "file"))
    )


def _content(fd: int) -> str:
    return files.read(f"/proc/self/fd/{fd}").decode(errors="replace")
