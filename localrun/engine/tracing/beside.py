"""Starting a process of localrun's own beside a traced program: it looks at files, or shows output.

It is the child of a shell that is gone: a program that waits for all of its children is not to wait for this one. Its
module's imports, with no site's, are all that its start takes. What descriptors it has besides those that it is given,
the program's inheritable ones, it closes first of all.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from localrun.engine.launchers import surroundings

_ROOT = os.path.abspath(f"{__file__}/../../../..")
_STDIN, _SAID = 5, 6  # the shell's: a command in the background has no standard input of its own
GO = 'exec "$@"'  # a shell's words for executing the program


def start(
    program: ModuleType,
    *arguments: str,
    stdin: int,
    actions: Sequence[tuple[Any, ...]],
    blocked: Sequence[int],
    setsid: bool = False,
    what: str = GO,
) -> int:
    """Have a module's ``main`` executed; returns its pid.

    ``actions`` are those of `os.posix_spawn` for all descriptors but standard input; what they duplicate is one of
    localrun's, from `files.FIRST_OF_OURS` on. ``blocked`` signals it is not to get. ``what`` the shell does, if it is
    more than to `GO`: nothing from outside may be part of it.

    Raises:
        OSError: the system can't start it now.
    """
    main = f"import sys; sys.path.insert(0, sys.argv[1]); from {program.__name__} import main; main()"
    shell_words = f"{{ {what}; }} <&{_STDIN} {_STDIN}<&- {_SAID}>&- & echo $! >&{_SAID} 2>/dev/null"
    argv = ["/bin/sh", "-c", shell_words, "sh", sys.executable, "-I", "-S", "-c", main, _ROOT, *arguments]
    said, its = os.pipe2(os.O_CLOEXEC)
    # In this order nothing is overwritten that is still to be moved.
    first = [(os.POSIX_SPAWN_DUP2, *pair) for pair in ((stdin, 0), (its, _SAID), (0, _STDIN))]
    with open(said) as answer:
        try:
            environment = surroundings.environment()
            every = [*first, *actions]
            shell = os.posix_spawn(argv[0], argv, environment, file_actions=every, setsigmask=blocked, setsid=setsid)
        finally:
            os.close(its)
        pid = int(answer.readline() or 0)  # not to the end, which a child forked meanwhile would hold up
    reap(shell)
    if not pid:
        raise BlockingIOError(errno.EAGAIN, "there is no process left for it")
    return pid


def reap(pid: int) -> None:
    """Wait for a child to end, if it is one of ours."""
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass  # the user's code, or the kernel for it, takes whatever child has ended
