"""A process beside a program that opens many files, which looks at them while the program goes on.

It is told in messages over a socket: a length, and a marshalled value; the first says what for, all others are events.
When the program closes its end, or is killed, it notes what is left to be noted, answers, and ends.
"""

from __future__ import annotations

import marshal
import os
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Any

from localrun.engine.launchers import surroundings
from localrun.engine.tracing.scope import Scope
from localrun.engine.tracing.sightings import Sightings
from localrun.model.folder import RunFolder

_LENGTH = struct.Struct("<I")
_DONE = b"done"
_PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); from localrun.engine.tracing.witness import main; main()"
# It is the child of a shell that is gone: whoever waits for all of its children is not to wait for this one.
_SHELL = '"$@" <&3 3<&- &'


class Witness:
    """The program's end of it."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._is_there = True

    def tell(self, message: Any) -> bool:
        """Tell it something; it is waited for if it is behind. False if it was lost."""
        data = _marshalled(message)
        try:
            # Nobody is to be ended by SIGPIPE for this.
            view = memoryview(_LENGTH.pack(len(data)) + data)
            while view and self._is_there:
                view = view[self._line.send(view, socket.MSG_NOSIGNAL) :]
        except OSError:
            self._is_there = False
        return self._is_there

    def end(self) -> bool:
        """Wait until it has noted everything; False if it was lost."""
        try:
            self._line.shutdown(socket.SHUT_WR)
            return self._line.recv(len(_DONE), socket.MSG_WAITALL) == _DONE
        except OSError:
            return False
        finally:
            self.close()

    def close(self) -> None:
        """Have nothing to do with it any more."""
        self._is_there = False
        self._line.close()


def start(folder: RunFolder, files: Scope, cwd: str, since: int) -> Witness:
    """Start one for a run that records these files; where the program was at the first event, and when.

    Raises:
        OSError: the system can't start it now.
    """
    ours, its = socket.socketpair()
    ours.settimeout(None)
    root = os.path.abspath(f"{__file__}/../../../..")
    argv = ["/bin/sh", "-c", _SHELL, "sh", sys.executable, "-I", "-S", "-c", _PROGRAM, root]
    actions: list[Any] = [(os.POSIX_SPAWN_DUP2, its.fileno(), 3)]
    actions += [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (1, 2)]
    found = Witness(ours)
    try:
        pid = os.posix_spawn(argv[0], argv, surroundings.environment(), file_actions=actions, setsid=True)
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass  # a program that ignores SIGCHLD: the kernel has collected it
    except OSError:
        found.close()
        raise
    finally:
        its.close()
    found.tell((folder.path, folder.uid, files.roots, files.left_out, cwd, since))
    return found


def main() -> None:
    """Be the process: read what is told to the end, then answer."""
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    messages = _messages()
    path, uid, roots, left_out, cwd, since = next(messages)
    sightings = Sightings(RunFolder(path, uid), Scope(roots, left_out), cwd, since)
    for events in messages:
        sightings.take(events)
    sightings.finish()
    with socket.socket(fileno=os.dup(0)) as line:
        line.send(_DONE, socket.MSG_NOSIGNAL)


def _messages() -> Iterator[Any]:
    with open(0, "rb", closefd=False) as line:
        while len(head := line.read(_LENGTH.size)) == _LENGTH.size:
            yield marshal.loads(line.read(_LENGTH.unpack(head)[0]))  # noqa: S302 - it is our own parent's


def _marshalled(message: Any) -> bytes:
    try:
        return marshal.dumps(message)
    except ValueError:  # a name of a type of the program's own
        plain: Any = [(_plain(name), _plain(mode), flags) for name, mode, flags in message]
        return marshal.dumps(plain)


def _plain(name: Any) -> str | bytes | int | None:
    name = os.fspath(name) if isinstance(name, os.PathLike) else name
    if isinstance(name, str):
        return str.__str__(name)
    return name if isinstance(name, bytes) or name is None else 0
