"""Which runs the code that asks is a part of: the traced blocks around it, and the run that its process works for."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

from localrun import settings
from localrun.model.folder import RunFolder

_open: dict[str, RunFolder] = {}  # by uid, in the order in which they were entered
before_leaving: list[Callable[[RunFolder], None]] = []  # what is to be done for a block that is about to be left
_around: ContextVar[tuple[RunFolder, ...]] = ContextVar("localrun_blocks", default=())


def enter(folder: RunFolder) -> None:
    """Note that a block was entered here; ``folder`` knows its uid."""
    _open[str(folder.uid)] = folder
    _around.set((*_around.get(), folder))


def leave(folder: RunFolder) -> None:
    """Note that a block was left, whoever leaves it and in whatever order."""
    for do in before_leaving:
        do(folder)
    _open.pop(str(folder.uid), None)
    _around.set(tuple(each for each in _around.get() if each.uid != folder.uid))


def sync(folder: RunFolder) -> None:
    """Have in the log of a block that is open here what it has written so far; of any other run nothing is done."""
    if str(folder.uid) in _open:
        from localrun.engine.tracing.output import capture

        capture.sync(folder)


def is_open(folder: RunFolder) -> bool:
    """False for a block that was left; the run that this process works for goes on as long as it does."""
    return folder.uid is None or str(folder.uid) in _open


def folders() -> list[RunFolder]:
    """The folders of these runs, outermost first.

    A thread that was started inside a block doesn't know in which: it is taken to be in every block that is open.
    """
    around = [each for each in _around.get() if str(each.uid) in _open]
    own = settings.current_run()
    outermost = [] if own is None else [RunFolder(own)]
    return [*outermost, *(around or _open.values())]

