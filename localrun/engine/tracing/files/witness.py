"""A process beside a program that opens many files, which looks at them while the program goes on.

It is told in messages over a socket: a length, and a marshalled value; the first says what for, all others are events.
When the program closes its end, or is killed, it notes what is left to be noted, answers, and ends. Nobody waits for
that but who wants to know what it has noted. This is the program's end of it; what it executes is `witnessprogram`.
"""

from __future__ import annotations

import marshal
import os
import select
import signal
import socket
from typing import Any

from localrun.engine.tracing import beside
from localrun.engine.tracing.files import witnessprogram
from localrun.engine.tracing.files.scope import Scope
from localrun.files import ByteLock, moved_up
from localrun.model import artifacts
from localrun.model.folder import RunFolder

# What ends the program or its run leaves it the moment that it needs.
_NOT_ITS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# So much is kept for it if it is behind, in bytes: some thousand files. For more it is waited for: what is kept is lost
# with a program that is killed.
_MOST_UNSENT = 1 << 20


class Witness:
    """The program's end of it."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        line.settimeout(None)
        line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MOST_UNSENT)  # or as much as is allowed
        self._is_there = True
        self._unsent = bytearray()

    def tell(self, message: Any) -> bool:
        """Tell it something; what it has no time for now is kept. False if it was lost."""
        data = _marshalled(message)
        self._unsent += witnessprogram.LENGTH.pack(len(data)) + data  # at once, whatever interrupts us
        return self._send(_MOST_UNSENT)

    def leave(self) -> bool:
        """Let it come to its end; False if it was lost."""
        try:
            if self._send(0):
                self._line.shutdown(socket.SHUT_WR)
        except OSError:
            self._is_there = False
        return self._is_there

    def has_ended(self, within: float = 0.0) -> bool:
        """True if it has noted everything, or was lost, now or in so many seconds."""
        poll = select.poll()
        poll.register(self._line, select.POLLIN)
        return bool(poll.poll(within * 1000))

    def end(self) -> bool:
        """Wait until it has noted everything; False if it was lost."""
        try:
            return self._line.recv(len(witnessprogram.DONE), socket.MSG_WAITALL) == witnessprogram.DONE
        except OSError:
            return False
        finally:
            self.close()

    def close(self) -> None:
        """Have nothing to do with it any more."""
        self._is_there = False
        self._line.close()

    def _send(self, most_left: int) -> bool:
        """Send what it takes, and wait until no more than so many bytes are left."""
        try:
            while self._unsent and self._is_there:
                # Nobody is to be ended by SIGPIPE for this.
                wait = 0 if len(self._unsent) > most_left else socket.MSG_DONTWAIT
                del self._unsent[: self._line.send(self._unsent, socket.MSG_NOSIGNAL | wait)]
        except BlockingIOError:
            pass
        except OSError:
            self._is_there = False
        return self._is_there


def start(folder: RunFolder, files: Scope, cwd: str, since: int) -> Witness:
    """Start one for a run that records these files; where the program was at the first event, and when.

    Raises:
        OSError: the system can't start it now.
    """
    journal = moved_up(artifacts.open_journal(folder))
    _journals.add(journal)
    try:
        ByteLock.of_open(journal)
        found = _start(journal)
    finally:
        _journals.discard(journal)
        os.close(journal)  # and it has the lock
    if not found.tell((files.roots, files.left_out, cwd, since)):
        found.close()
        raise BlockingIOError("it has ended as it began: there is no process left for it")
    return found


_journals: set[int] = set()  # of witnesses that are being started


def close_journals() -> None:
    """In a forked child, have nothing to do with the locks of witnesses that its parent was about to start."""
    while _journals:
        os.close(_journals.pop())


def _start(journal: int) -> Witness:
    ours, its = socket.socketpair()
    # No standard stream, even where those are closed.
    found = Witness(socket.socket(fileno=moved_up(ours.detach())))
    actions: list[tuple[Any, ...]] = [(os.POSIX_SPAWN_DUP2, journal, witnessprogram.JOURNAL)]
    actions += [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (1, 2)]
    try:
        beside.start(witnessprogram, stdin=its.fileno(), actions=actions, blocked=_NOT_ITS, setsid=True)
    except OSError:
        found.close()
        raise
    finally:
        its.close()
    return found


def _marshalled(message: Any) -> bytes:
    try:
        return marshal.dumps(message)
    except ValueError:  # a name of a type of the program's own
        return marshal.dumps([_plain(each) for each in message])


def _plain(item: Any) -> str | bytes | int | None:
    """An item of an event, of the plainest type; 0 for what names no file."""
    try:
        item = os.fspath(item) if isinstance(item, os.PathLike) else item
    except Exception:  # noqa: BLE001 - it is the program's own code, and the program is told of it where it called
        return 0
    if isinstance(item, str):
        return str.__str__(item)
    if isinstance(item, bytes):
        return bytes(item)
    return int(item) if isinstance(item, int) else None if item is None else 0
