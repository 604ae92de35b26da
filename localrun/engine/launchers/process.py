"""The launcher of process runs: a run's ranks as child processes of its supervisor.

What the supervisor asks of a launcher: `check` refuses what can't start, `prepare` starts what comes before the ranks,
`start` a rank, `details` says what else is known of them, `alive` tells what is left, and `signal` reaches every
process of the run. Of a rank's end `wait_status` and `ended` say what its parent can't know, and `clear` removes what
is left of it all.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence

from localrun.engine import processes
from localrun.engine.launchers import ranks, sequence, surroundings
from localrun.engine.supervision.outcome import Ending
from localrun.model.folder import RunFolder
from localrun.model.status import Reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

WORKER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "worker.py")
# How the submitter's import path reaches the worker, which takes it out of its environment at once.
SYS_PATH = "LOCALRUN_SYS_PATH"


class CannotStartError(Exception):
    """Nothing of the user's was started; the text says why and what to do, ``reason`` what that is called."""

    def __init__(self, message: str, reason: str = Reason.FAILED_TO_START) -> None:
        super().__init__(message)
        self.reason = reason


class NoImageError(Exception):
    """The image of a run isn't there; ``fetch`` starts what gets it, and ``why`` says in words why that failed."""

    def __init__(self, fetch: Callable[[], int], why: Callable[[], str]) -> None:
        super().__init__()
        self.fetch = fetch
        self.why = why


class ProcessLauncher:
    """Starts, finds and signals the processes of one run. The supervisor is their parent and subreaper."""

    def __init__(self, record: Mapping[str, Any], folder: RunFolder, leases: Sequence[int] = ()) -> None:
        """``leases``: descriptors that every rank carries on, so that what they hold is held until the last is gone."""
        self._record = record
        self._folder = folder
        self._leases = leases
        # True once processes of the run may be no descendants of ours, but somebody's who has connected to it.
        self.strangers = False
        # Asked while a start takes its time: whether the run is to be ended meanwhile.
        self.is_to_end: Callable[[], bool] = lambda: False
        # True once a start was broken off for that: then no rank has begun.
        self.interrupted = False

    def check(self) -> None:
        """Go to the run's working folder, where its ranks start.

        Raises:
            CannotStartError: the folder, or the interpreter of a function, is gone.
        """
        self._enter(self._record["cwd"])
        if self._record["fn_name"] is not None and not os.access(self._record["python"]["executable"], os.X_OK):
            raise CannotStartError(f"its Python interpreter {self._record['python']['executable']} is gone")

    def _enter(self, cwd: str) -> None:
        try:
            os.chdir(cwd)
        except OSError as error:
            raise CannotStartError(f"its working folder {cwd} can't be entered: {error.strerror}") from None

    def prepare(self, resumption: int, context: Mapping[str, Any]) -> int | None:
        """Start what must succeed before the ranks start; returns its pid. None: there is nothing of that kind."""
        return None

    def start(self, rank: int, resumption: int, context: Mapping[str, Any]) -> int:
        """Start a rank with its output in the log files; returns its pid. It leads a session of its own.

        Raises:
            CannotStartError: the system refuses (no such interpreter, arguments too long, no processes left).
            NoImageError: its image must be fetched first; then it is to be called again.
        """
        return self._spawn(self._argv(rank, resumption), rank, resumption, context)

    def _spawn(self, argv: list[str], rank: int, resumption: int, context: Mapping[str, Any]) -> int:
        environment = self._environment(rank, resumption, context)
        return surroundings.start_in(context, lambda: self._execute(argv, environment, rank, resumption))

    def _execute(
        self, argv: list[str], environment: Mapping[str, str], rank: int, resumption: int, fds: Sequence[int] = ()
    ) -> int:
        """Start a program with a rank's logs, the leases and these descriptors; returns its pid."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        opened = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, self._folder.stdout(resumption, rank), flags, 0o600),
            (os.POSIX_SPAWN_OPEN, 2, self._folder.stderr(resumption, rank), flags, 0o600),
            *((os.POSIX_SPAWN_DUP2, fd, fd) for fd in (*self._leases, *fds)),
        ]
        # Python ignores these two signals for itself; a shell pipeline needs them as the system has them.
        defaults = (signal.SIGPIPE, signal.SIGXFSZ)
        try:
            return os.posix_spawn(argv[0], argv, environment, file_actions=opened, setsid=True, setsigdef=defaults)
        except OSError as error:
            raise CannotStartError(f"{argv[0]} could not be started: {error.strerror}") from None

    def details(self) -> dict[str, Any]:
        """What the record is to say of the ranks besides, once they run."""
        return {}

    def wait_status(self, of_child: int) -> int:
        """The wait status of a rank, from that of the child that was started for it."""
        return of_child

    def ended(self, rank: int, resumption: int, wait_status: int) -> Ending | None:
        """The end of a rank if it is another than its wait status tells."""
        return None

    def clear(self) -> bool:
        """Remove what the run's ended processes leave in the system; False if that can't be done now."""
        return True

    def alive(self) -> list[processes.Process]:
        """The processes of the run that are left, wherever in the machine they have hidden."""
        everything = processes.snapshot()
        return self._of(everything, {os.getpid()}, self._marked(everything) if self.strangers else set())

    def signal(self, number: int) -> list[processes.Process]:
        """Send a signal to every process of the run; returns those that were there."""
        found = self.alive()
        for process in found:
            processes.send(process, number)
        return found

    def hang_up(self, left: Sequence[processes.Process]) -> None:
        """End the shells of those who have connected as a closed terminal does, once what they started has ended.

        Interactive shells ignore SIGTERM; on SIGHUP they save their history and leave.
        """
        if all(processes.heeds_only_hangup(process.pid) for process in left):
            for process in left:
                processes.send(process, signal.SIGHUP)

    def _marked(self, everything: dict[int, processes.Process]) -> set[int]:
        marked = processes.marked(self._record["uid"], everything)
        return {pid for pid in marked if not processes.is_service(pid)}

    def _of(
        self, everything: dict[int, processes.Process], roots: set[int], seeds: set[int]
    ) -> list[processes.Process]:
        # A dispatcher that was started from inside the run, and all that it looks after, is not a part of it.
        found = seeds | processes.descendants(roots | seeds, everything, without=processes.is_service)
        return [everything[pid] for pid in sorted(found - {os.getpid()})]

    def _argv(self, rank: int, resumption: int) -> list[str]:
        if self._record["fn_name"] is None:
            return sequence.argv(self._record["cmds"], self._folder.commands(resumption, rank))
        # -P: the worker's own folder is no place to import from.
        several = [str(rank)] if self._record["request"].get("nproc_per_node") else []
        argv = [self._record["python"]["executable"], "-P", WORKER, self._folder.path, str(resumption), str(rank)]
        return argv + several

    def _environment(self, rank: int, resumption: int, context: Mapping[str, Any]) -> dict[str, str]:
        """The submitter's environment, the run's `env_variables` over it, localrun's own over both."""
        name, is_function = self._record["name"], self._record["fn_name"] is not None
        request = self._record["request"]
        environment: dict[str, str] = ranks.defaults(request) | ranks.without_ranks(context["environ"])
        environment.update(context["secrets"])
        if not is_function:
            environment.setdefault("PYTHONUNBUFFERED", "1")
        else:
            environment[SYS_PATH] = "\n".join(self._record["python"]["path"])
        environment.update(request["env_variables"])
        environment.update({
            processes.MARK: self._record["uid"],
            "RUN_NAME": name,
            "LOCALRUN_RUN_NAME": name,
            "LOCALRUN_RUN_DIR": self._folder.path,
            "LOCALRUN_CHECKPOINT_DIR": self._folder.checkpoints,
            "LOCALRUN_STOP_GRACE_S": f"{request['stop_grace']:g}",
            "RESUMPTION_INDEX": str(resumption),
            "PARAMETERS": self._folder.parameters,
        })  # fmt: skip
        return environment | ranks.environment(self._record, rank, resumption)


class LostProcessLauncher(ProcessLauncher):
    """Finds the processes of a run whose supervisor was killed: by pid, by session, by mark, and as strays."""

    def __init__(self, record: Mapping[str, Any], folder: RunFolder, *, dispatcher: int) -> None:
        """``dispatcher`` inherits the orphans of a supervisor that is killed."""
        super().__init__(record, folder)
        self._dispatcher = dispatcher
        self.strangers = True

    def alive(self) -> list[processes.Process]:
        """The processes that are left of the run."""
        supervisor = self._record["supervisor"]
        if supervisor is None or supervisor["boot_id"] != processes.boot_id():
            return []  # nothing survives a reboot, and the numbers mean other processes now
        everything = processes.snapshot()
        seeds = processes.marked(self._record["uid"], everything)
        seeds |= {process.pid for process in everything.values() if self._in_session(process, everything)}
        seeds |= {process.pid for process in everything.values() if self._is_stray(process)}
        return self._of(everything, set(), {pid for pid in seeds if not processes.is_service(pid)})

    def _in_session(self, process: processes.Process, everything: Mapping[int, processes.Process]) -> bool:
        """True for a rank and for what is in a rank's session; the kernel keeps the number while anyone is in it."""
        starts = {rank["pid"]: rank["start"] for rank in self._record["ranks"]}
        if process.session not in starts:
            return False
        leader = everything.get(process.session)
        return leader is None or leader.start == starts[process.session]

    def _is_stray(self, process: processes.Process) -> bool:
        """True for an orphan without any run's mark: it hid from its own run, and its supervisor is gone."""
        return process.parent == self._dispatcher and processes.mark_of(process.pid) is None
