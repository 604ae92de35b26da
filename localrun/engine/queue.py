"""The queue: one file per waiting or active run, moved between folders under one lock.

A ticket's name sorts in scheduling order; its content is what scheduling needs. The folder in which a ticket lies is
its state:

    submitting/  a submission under way, its file locked by the submitter; unlocked, the submitter has died
    waiting/     accepted, not started
    active/      claimed: a supervisor has it, or must be found to have been lost
    ending/      over, its resources free, but the final record could not be written yet

The queue knows names and resources. What a run is lies in its folder; what starts next is the policy of `scheduling`.
The submitter's environment is kept here too, once per distinct environment, readable by its user alone and only while
a ticket needs it: a run folder is copied and shared, this folder is not.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import time
from collections.abc import Callable, Mapping

from localrun import files
from localrun.engine.scheduling.ticket import SCHEDULING, Ticket, with_priority
from localrun.errors import SystemFailureError
from localrun.model.folder import SUPERVISOR_BYTE, RunFolder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SUBMITTING, WAITING, ACTIVE, ENDING = "submitting", "waiting", "active", "ending"

_STATES = (SUBMITTING, WAITING, ACTIVE, ENDING)


def encode_context(context: dict[str, Any]) -> bytes:
    """What a run inherits from its submitter, as it is kept."""
    return json.dumps(context, sort_keys=True).encode()


def context_key(context: bytes) -> str:
    """The name under which it is kept: the same for the same content."""
    import hashlib  # not in the dispatcher: it brings OpenSSL along, 3 MB in every supervisor

    return hashlib.blake2b(context, digest_size=16).hexdigest()


class Queue:
    """The queue under one home folder. Every method is safe to call from any process at any time."""

    def __init__(self, home: str | os.PathLike[str]) -> None:
        self.home = os.fspath(home)
        self.root = f"{self.home}/queue"
        self.dispatcher_lock = f"{self.root}/dispatcher.lock"
        self.wake_fifo = f"{self.root}/wake"
        self.log = f"{self.home}/dispatcher.log"
        self._environment: tuple[str, dict[str, Any]] | None = None  # the last one that was asked for

    def prepare(self) -> None:
        """Make the queue's folders, for this user alone.

        Raises:
            SystemFailureError: the home folder can't be made, isn't ours, or others can write to it.
        """
        if os.path.exists(self.wake_fifo):  # made last
            _refuse_foreign(self.home)
            return
        try:
            os.makedirs(self.home, mode=0o700, exist_ok=True)
            _refuse_foreign(self.home)
            for folder in (self.root, *(f"{self.root}/{state}" for state in _STATES), f"{self.root}/environments"):
                os.makedirs(folder, mode=0o700, exist_ok=True)
            os.mkfifo(self.wake_fifo, 0o600)
        except FileExistsError as error:
            # Another process made the fifo first; a plain file in a folder's place is reported by the next use.
            if not os.path.isdir(self.root):
                raise SystemFailureError(f"LOCALRUN_HOME: {self.home} can't be used: {error.strerror}") from None
        except OSError as error:
            raise SystemFailureError(f"LOCALRUN_HOME: {self.home} can't be used: {error.strerror}") from None

    def exists(self) -> bool:
        """True if anything was ever submitted here."""
        return os.path.isdir(f"{self.root}/{WAITING}")

    def is_ours(self) -> bool:
        """True if the home folder is this user's, and nobody else can write it."""
        try:
            _refuse_foreign(self.home)
        except (SystemFailureError, OSError):
            return False
        return True

    def lock(self) -> files.ByteLock:
        """The queue lock: held for the moment in which tickets move, never while waiting for anything else."""
        return files.ByteLock.acquire(f"{self.root}/lock")

    def path(self, state: str, name: str) -> str:
        """Where a ticket of that name lies in that state."""
        return f"{self.root}/{state}/{name}"

    def names(self, state: str) -> list[str]:
        """The tickets in a state, in scheduling order."""
        try:
            return sorted(name for name in os.listdir(f"{self.root}/{state}") if not name.startswith("."))
        except FileNotFoundError:
            return []

    def read(self, state: str, name: str) -> Ticket | None:
        """A ticket; None if it is no longer in that state. SystemFailureError if the file is no ticket."""
        try:
            return Ticket.decode(name, files.read(self.path(state, name)))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise SystemFailureError(f"{self.path(state, name)} is damaged ({error})") from None

    def read_or_put_aside(self, state: str, name: str, log: Callable[[str], None]) -> Ticket | None:
        """A ticket; None if it is no longer in that state, or if it is no ticket and was given another name."""
        try:
            return self.read(state, name)
        except SystemFailureError as error:
            log(f"{error}; it is put aside")
            # A name that starts with a dot is no ticket's.
            os.rename(self.path(state, name), self.path(state, f".damaged-{name}"))
            return None

    def tickets(self, state: str) -> list[Ticket]:
        """All readable tickets in a state, in scheduling order."""
        found = []
        for name in self.names(state):
            try:
                ticket = self.read(state, name)
            except SystemFailureError:
                continue
            if ticket is not None:
                found.append(ticket)
        return found

    def of_run(self, uid: str) -> list[Ticket]:
        """The tickets of a run and of its copies, in any state."""
        names = [(state, name) for state in _STATES for name in self.names(state) if name.endswith(uid)]
        return [ticket for ticket in (self.read(*each) for each in names) if ticket is not None]

    def find(self, state: str, uid: str) -> str | None:
        """The name of a run's ticket if it is in that state."""
        return next((name for name in self.names(state) if name.endswith(uid)), None)

    def has(self, name: str) -> bool:
        """True if there is a ticket of that name, in any state."""
        return any(os.path.exists(self.path(state, name)) for state in _STATES)

    def holds(self, uid: str) -> bool:
        """True if a run has a ticket in any state. Decisive only under the queue lock."""
        return any(self.find(state, uid) for state in _STATES)

    def move(self, name: str, source: str, target: str) -> bool:
        """Move a ticket between states; False if it wasn't in ``source``. The caller holds the queue lock."""
        try:
            os.rename(self.path(source, name), self.path(target, name))
        except FileNotFoundError:
            return False
        return True

    def drop(self, name: str, *states: str) -> None:
        """Remove a ticket from these states; it need not be there."""
        for state in states:
            files.remove(self.path(state, name))

    def leave(self, ended: Ticket, *, claim_next: bool) -> tuple[Ticket, files.ByteLock] | None:
        """Take an ended run's ticket out of the queue and, if asked to, claim the first waiting one in the same step.

        That is given, with its run's lock, if it may start now and needs no more than what has just become free: then
        it is what the dispatcher would start, without waking it. Otherwise None: what comes next is for it to choose.
        """
        with self.lock():
            was_active = files.remove(self.path(ACTIVE, ended.name))
            self.drop(ended.name, ENDING)
            names = self.names(WAITING) if was_active and claim_next else []
            ticket = self.read(WAITING, names[0]) if names else None
            if ticket is None or not _can_succeed(ticket, ended) or ticket.not_before > time.time():
                return None
            try:
                lock = files.ByteLock.try_acquire(RunFolder(ticket.folder).lock, SUPERVISOR_BYTE)
            except OSError:
                return None  # its folder is gone
            if lock is not None:
                self.move(ticket.name, WAITING, ACTIVE)
        self.wake(f"{ended.name}>{ticket.name}")
        return None if lock is None else (ticket, lock)

    def set_aside(self, ticket: Ticket) -> None:
        """Give an active run's resources to others: it is over, but its end can't be written yet."""
        with self.lock():
            self.move(ticket.name, ACTIVE, ENDING)
        self.wake("")

    def requeue(self, ticket: Ticket, delay: float, first_started: float = 0.0, priority: str | None = None) -> None:
        """Let a claimed run wait again, at its old place among those of its priority, for another attempt.

        ``delay`` is in seconds, ``priority`` the run's if it may have changed.
        """
        name = ticket.name if priority is None else with_priority(ticket.name, priority)
        with self.lock():
            ticket = self.read(ACTIVE, ticket.name) or ticket  # it may have been rescheduled
            again = ticket._replace(not_before=time.time() + delay, first_started=first_started)
            files.replace(self.path(ACTIVE, ticket.name), again.encode())
            os.rename(self.path(ACTIVE, ticket.name), self.path(WAITING, name))
            self.drop(ticket.name, ENDING)
        self.wake(name)

    def reschedule(self, uid: str, request: Mapping[str, Any]) -> None:
        """Put what a run's request says of scheduling into its ticket, and a waiting one where it belongs by now."""
        changes = {name: request[name] for name in SCHEDULING}
        for state in (WAITING, ACTIVE):
            with self.lock():
                name = self.find(state, uid)
                ticket = self.read(state, name) if name is not None else None
                if name is None or ticket is None:
                    continue
                files.replace(self.path(state, name), ticket._replace(**changes).encode(), sync=True)
                if state == WAITING:
                    os.rename(self.path(state, name), self.path(state, with_priority(name, request["priority"])))
            self.wake(f"~{name}")

    def rewrite(self, ticket: Ticket) -> None:
        """Replace a waiting ticket by what is known of it now, if it still waits."""
        with self.lock():
            if os.path.exists(self.path(WAITING, ticket.name)):
                files.replace(self.path(WAITING, ticket.name), ticket.encode())

    def is_quiet(self) -> bool:
        """True if no ticket is in any state. Decisive only under the queue lock."""
        return not any(self.names(state) for state in _STATES)

    # -- the submitter's environment ------------------------------------------------------------------------------

    def keep_environment(self, key: str, context: bytes) -> None:
        """Keep a submitter's environment until no ticket is left. The caller holds the queue lock."""
        path = f"{self.root}/environments/{key}"
        if not os.path.exists(path):
            files.replace(path, context, sync=True)

    def environment(self, key: str) -> dict[str, Any]:
        """What ``keep_environment`` kept.

        Raises:
            SystemFailureError: it is gone or damaged.
        """
        if self._environment is None or self._environment[0] != key:
            try:
                self._environment = key, files.read_json(f"{self.root}/environments/{key}")
            except (OSError, ValueError):
                raise SystemFailureError(
                    "the environment kept from the run's submission is gone: submit it again"
                ) from None
        return dict(self._environment[1])

    def forget_environments(self) -> None:
        """Remove all kept environments. The caller holds the queue lock and has seen that the queue is quiet."""
        self._environment = None
        for name in os.listdir(f"{self.root}/environments"):
            files.remove(f"{self.root}/environments/{name}")

    # -- the dispatcher -------------------------------------------------------------------------------------------

    def dispatcher_pid(self) -> int | None:
        """The pid of the live dispatcher, or None. Not to be called in the dispatcher itself."""
        return files.process_lock_holder(self.dispatcher_lock)

    def wake(self, hint: str) -> None:
        """Tell the dispatcher that a ticket came (its name), has changed (``~`` before it), or, by nothing, to look."""
        try:
            fd = os.open(self.wake_fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in (errno.ENXIO, errno.ENOENT):
                return  # nobody listens: a dispatcher that starts reads the folders first
            raise
        try:
            os.write(fd, f"{hint}\n".encode())
        except (BlockingIOError, BrokenPipeError):
            pass  # a full pipe: the dispatcher is about to read it, and then looks at the folders themselves
        finally:
            os.close(fd)


def _can_succeed(ticket: Ticket, ended: Ticket) -> bool:
    """True if what has become free is enough for the next one, and nothing else is to be looked at."""
    enough = all(its >= mine for mine, its in zip(ticket.need, ended.need, strict=True))
    return enough and not ticket.gpus.number and not ticket.after


def _refuse_foreign(path: str) -> None:
    info = os.stat(path)
    if info.st_uid != os.geteuid():
        raise SystemFailureError(f"LOCALRUN_HOME: {path} belongs to uid {info.st_uid}, not to you (uid {os.geteuid()})")
    if stat.S_IMODE(info.st_mode) & 0o022:
        raise SystemFailureError(f"LOCALRUN_HOME: {path} is writable by others: chmod go-w it")
