"""The launcher of container runs: a run's ranks as the engine's client processes, and behind each of them a container.

The client is the supervisor's child and ends with its container; the processes inside belong to the engine. They carry
the run's mark all the same, and as they are this machine's and this user's they are found and signalled like others,
whether the engine answers or not. Only the first process of a container is the engine's own: it hands SIGTERM on, so
it isn't sent any, and with SIGKILL the kernel ends all behind it.

A rank waits at its gate, a named pipe beside its logs, until the containers of all ranks are there, because those that
share the first one's network and memory must find it alive. Nothing of the user's has run in one that never came to
its gate. From there on it writes to the log files itself: what it prints doesn't pass through the engine. What the
image's entrypoint prints before does, and comes to the same files.
Loaded for such runs only.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence

from localrun import files
from localrun.engine import processes
from localrun.engine.launchers import containerargs, containercontents, containerprocesses, containerpull, ranks
from localrun.engine.launchers.containerengine import ContainerEngine, last_line
from localrun.engine.launchers.containergates import Gates
from localrun.engine.launchers.lostcontainer import clear
from localrun.engine.launchers.process import SYS_PATH, CannotStartError, NoImageError, ProcessLauncher
from localrun.engine.supervision import outcome
from localrun.engine.supervision.outcome import Ending
from localrun.errors import LocalrunError, SystemFailureError
from localrun.model.folder import RunFolder
from localrun.model.status import Reason, RunStatus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LOOK_S = 0.001
_LAST_SIGNAL = 64
_AT_WORK = ("running", "paused", "restarting")
_LONGEST_LINE = 30_000


class ContainerLauncher(ProcessLauncher):
    """Starts, finds and signals the containers of one run."""

    def __init__(self, record: Mapping[str, Any], folder: RunFolder, leases: Sequence[int] = ()) -> None:
        super().__init__(record, folder, leases)
        self._before: ProcessLauncher | None = None  # what carries out the integrations
        self._engine = ContainerEngine(**record["request"]["engine"])
        self._environ = {**self._engine.environment, processes.MARK: record["uid"]}
        self._gates = Gates(folder)
        self._clients: set[int] = set()
        self._containers: list[str] = []
        self._secrets: list[tuple[str, str, str]] = []
        self._fetched = False
        self._unheard: int | None = None  # a signal that found nobody inside yet
        self._killed = False
        self._may_come_up = False  # a container that the engine was asked for by a client which has been killed

    # -- starting ---------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Go to the run's working folder, and see that nothing is left of the run's earlier attempts."""
        if self._record["request"].get("integrations"):
            from localrun.engine.launchers.prepared import PreparedLauncher

            # Repositories are cloned outside, by the machine's git, into a folder that the container has.
            self._before = PreparedLauncher(self._record, self._folder, self._leases)
            self._before.check()
            self._record = {**self._record, "cwd": self._folder.work}
        self._enter(self._record["cwd"])
        self._secrets = self._mounted_secrets()
        if len(self._record["resumptions"]) > 1 and not clear(self._engine, self._record["uid"]):
            raise CannotStartError("the container of its last attempt can't be removed", Reason.SYSTEM_FAILURE)

    def prepare(self, resumption: int, context: Mapping[str, Any]) -> int | None:
        """Start what carries out the integrations, if there are some; returns its pid."""
        return None if self._before is None else self._before.prepare(resumption, context)

    def start(self, rank: int, resumption: int, context: Mapping[str, Any]) -> int:
        """Start a rank's container, and wait until it is at its gate; the last one opens all gates.

        Raises:
            NoImageError: the image is to be fetched first.
            CannotStartError: nothing of the user's ran, and why.
        """
        if self._record["request"]["pull"] == "always" and not self._fetched:
            raise self._no_image(resumption)
        gate = self._gates.build(resumption, rank)
        pid = self._start_client(rank, resumption, context)
        self._clients.add(pid)
        self._containers.append(containerargs.name(self._record, resumption, rank))
        while not self._gates.is_reached(gate):
            if self.is_to_end():
                self.interrupted = True
                return pid
            ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is not None:
                files.remove(gate)
                raise self._not_started(rank, resumption, was_killed=ended.si_code != os.CLD_EXITED)
            time.sleep(_LOOK_S)
        if rank + 1 == ranks.count(self._record["request"]):
            self._begin(context)
        return pid

    def _begin(self, context: Mapping[str, Any]) -> None:
        """Let all ranks begin, with the CPUs and the niceness of the submitter."""
        if context["nice"] or len(context["cpus"]) < (os.cpu_count() or 1):
            containerprocesses.take_on(self.alive(), context["cpus"], context["nice"])
        self._gates.open()

    def details(self) -> dict[str, Any]:
        """The id of the image that they have."""
        try:
            state = None if self.interrupted else self._engine.state(self._containers[0])
        except LocalrunError:
            return {}
        return {} if state is None else {"image_id": state.image}

    def _no_image(self, resumption: int) -> NoImageError:
        image, log = self._record["request"]["image"], self._folder.stderr(resumption, 0)

        def why() -> str:
            return f"image {image} can't be fetched: {last_line(files.read(log).decode(errors='replace'))}"

        return NoImageError(lambda: self._fetch(resumption), why)

    def _fetch(self, resumption: int) -> int:
        """Start what fetches the image; what it says goes to rank 0's stderr."""
        self._fetched = True
        argv = containerpull.argv(self._engine.program, self._record["request"]["image"])
        return self._execute(argv, self._environ, 0, resumption)

    def _start_client(self, rank: int, resumption: int, context: Mapping[str, Any]) -> int:
        environment = self._environment(rank, resumption, context)
        plain = {each: value for each, value in environment.items() if _fits_a_line(each, value)}
        others = {each: value for each, value in environment.items() if each not in plain}
        mounts = containercontents.mounts(self._record, self._folder, self._secrets)
        containercontents.make_places(mounts)
        listed = os.memfd_create("environment")
        try:
            os.write(listed, "".join(f"{each}={value}\n" for each, value in plain.items()).encode())
            argv = [
                self._engine.program,
                *containerargs.arguments(self._record, rank, resumption, mounts),
                f"--env-file=/proc/self/fd/{listed}",
                *(f"--env={each}" for each in others),
                self._record["request"]["image"],
                *containercontents.command(self._record, self._folder, rank, resumption, context),
            ]
            return self._execute(argv, {**self._environ, **others}, rank, resumption, (listed,))
        except UnicodeEncodeError:
            raise CannotStartError("a variable or folder of it isn't UTF-8 text, as a container's must be") from None
        finally:
            os.close(listed)

    def _environment(self, rank: int, resumption: int, context: Mapping[str, Any]) -> dict[str, str]:
        """What the run's own is, and nothing of the submitter's."""
        places = {variable: target for variable, _, target in self._secrets if variable in context["secrets"]}
        # HOME is a place in the container; its user need not have one there.
        given = {**context, "environ": {"HOME": "/tmp"}, "secrets": {**context["secrets"], **places}}  # noqa: S108
        gpus = containerargs.visible_indices(self._record["gpus"])
        environment = super()._environment(rank, resumption, given)
        environment.update(ranks.environment({**self._record, "gpus": gpus}, rank, resumption))
        environment.pop(SYS_PATH, None)
        return environment if gpus else environment | {"NVIDIA_VISIBLE_DEVICES": "void"}

    def _mounted_secrets(self) -> list[tuple[str, str, str]]:
        """The run's secrets that are files: variable, file, place in the container."""
        home, names = self._record["home"], self._record["request"].get("secrets")
        if names == [] or not os.path.exists(f"{home}/secrets"):
            return []
        from localrun.engine.launchers.secretfolder import SecretFolder

        return SecretFolder(home).mounted(names)

    def _not_started(self, rank: int, resumption: int, *, was_killed: bool) -> Exception:
        """Why a rank never came to its gate, although its client has ended."""
        request, log = self._record["request"], self._folder.stderr(resumption, rank)
        image, said = request["image"], last_line(files.read(log).decode(errors="replace"))
        try:
            state = self._engine.state(containerargs.name(self._record, resumption, rank))
            if was_killed or (state is not None and state.status in _AT_WORK):
                self.strangers = self._may_come_up = True
                why = "the connection to its container was lost as it came up (the engine or its client was killed)"
                return CannotStartError(why, Reason.SYSTEM_FAILURE)
            if state is None and not self._engine.has_image(image):
                if request["pull"] == "missing" and not self._fetched and rank == 0:
                    os.truncate(log, 0)  # that it wasn't here is no news once it is
                    return self._no_image(resumption)
                why = "compute.pull is never" if request["pull"] == "never" else said
                return CannotStartError(f"image {image} isn't on this machine: {why}", Reason.FAILED_IMAGE_PULL)
        except LocalrunError as error:
            self.strangers = self._may_come_up = True
            return CannotStartError(error.message, Reason.SYSTEM_FAILURE)
        why = said if state is None else state.error or said
        return CannotStartError(f"its container (image {image}) could not be started: {why}; its log is {log}")

    # -- the end ----------------------------------------------------------------------------------------------------

    def wait_status(self, of_client: int) -> int:
        """The wait status of what ran in a container, from its client's: 128 + N is the engine's word for signal N."""
        code = os.waitstatus_to_exitcode(of_client)
        return code - 128 if 128 < code <= 128 + _LAST_SIGNAL else of_client

    def ended(self, rank: int, resumption: int, wait_status: int) -> Ending | None:
        """The end of a rank if it is one that only the engine knows of: out of memory, or lost."""
        code = outcome.exit_code(wait_status)
        if code == 0:
            return None
        try:
            state = self._engine.state(containerargs.name(self._record, resumption, rank))
        except LocalrunError as error:
            return self._lost(f"{error.message}; how its container ended can't be known", rank)
        if state is not None and (state.status in _AT_WORK or state.exit_code != code):
            return self._lost("the connection to its container was lost (the engine or its client was killed)", rank)
        # A function that has lived to tell of its end has lost no more than a child of its own.
        if state is not None and state.oom_killed and not os.path.exists(self._folder.outcome(resumption, rank)):
            message = f"out of memory (exit code {code}): more was needed than compute.memory or the machine has"
            name = outcome.signal_name(wait_status)
            return Ending(RunStatus.FAILED, Reason.OUT_OF_MEMORY, message, code, name, rank)
        return None

    def _lost(self, why: str, rank: int) -> Ending:
        self.strangers = True  # what is in it has no client of ours any more
        return Ending(RunStatus.FAILED, Reason.SYSTEM_FAILURE, why, failed_rank=rank)

    def alive(self) -> list[processes.Process]:
        """The clients that are left, and the processes in the containers."""
        everything = processes.snapshot()
        found = self._of(everything, {os.getpid()}, self._marked(everything))
        if self._unheard is not None and any(map(containerprocesses.is_inside, found)):
            number, self._unheard = self._unheard, None
            containerprocesses.send(found, number, self._clients)
        return found

    def signal(self, number: int) -> list[processes.Process]:
        """Send a signal to every process in the containers; to one that is about to come up, when it is there."""
        found = self.alive()
        if not any(map(containerprocesses.is_inside, found)):
            self._unheard = number
            self._may_come_up |= bool(found) and number == signal.SIGKILL
        if number == signal.SIGKILL:
            # Neither what is about to come up nor what somebody has paused is ended by a signal.
            if self._unheard is not None or self._killed:
                self._remove()
            self._killed = True
        containerprocesses.send(found, number, self._clients)
        return found

    def clear(self) -> bool:
        """Remove the containers of this attempt; False if the engine can't be reached, or one may come up yet."""
        return self._remove() and not self._may_come_up

    def _remove(self) -> bool:
        try:
            self._engine.remove(self._containers)
        except SystemFailureError:
            return False
        return True


def _fits_a_line(name: str, value: str) -> bool:
    """True if the engine's files of variables can have it: a line, not too long, that begins with a plain name."""
    return name.isidentifier() and name.isascii() and len(value) < _LONGEST_LINE and not set(value) & set("\r\n")
