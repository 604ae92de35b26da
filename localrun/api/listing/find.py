"""Listing runs: newest first, page by page, by the index of their folder where that is worth having one."""

from __future__ import annotations

import fnmatch
import functools
import heapq
import os
from collections.abc import Callable, Iterator, Sequence

from localrun import settings
from localrun.api.listing.index import Index, Place, UnusableError
from localrun.api.listing.lists import PaginatedObjectList
from localrun.api.listing.selection import Selection
from localrun.api.run import Run, broken, readable
from localrun.engine.dispatch import submission
from localrun.engine.queue import Queue
from localrun.errors import RunNotFoundError, SystemFailureError
from localrun.model import journal
from localrun.model.folder import ARCHIVE, RunFolder
from localrun.model.names import validate_name
from localrun.model.status import CONTEXT, RunStatus

DEFAULT_LIMIT = 100

# With fewer runs, reading all their records is as quick, and leaves nothing beside them.
_WORTH_AN_INDEX = 200


def page(
    selection: Selection, asked: Sequence[str | Run] | None, limit: int, beyond: Place | None = None
) -> PaginatedObjectList[Run]:
    """The newest runs of a selection, of those asked for by name, glob or handle (None: of all), beyond a place.

    Raises:
        RunNotFoundError: a name that is no glob is no run's.
    """
    found = _all(selection, beyond) if asked is None else _asked(selection, asked, beyond)
    chosen: list[Run] = []
    while len(chosen) < limit:
        run = next(found, None)
        if run is None:
            break
        if run in selection:
            chosen.append(run)
    chosen = [run.refresh() if run.run_type == CONTEXT and run.status.is_active() else run for run in chosen]
    submission.ensure_progress(Queue(settings.home()))  # whichever were asked for: others may be waiting
    chosen.sort(key=place, reverse=True)
    behind = functools.partial(_page_behind, selection, asked, limit, place(chosen[-1]) if chosen else beyond)
    return PaginatedObjectList(chosen, Run, behind)


def _page_behind(
    selection: Selection, asked: Sequence[str | Run] | None, before: int, beyond: Place | None, limit: int | None
) -> PaginatedObjectList[Run]:
    if beyond is None:  # the page before was empty
        return PaginatedObjectList((), Run, functools.partial(_page_behind, selection, asked, before, beyond))
    return page(selection, asked, before if limit is None else limit, beyond)


def place(run: Run) -> Place:
    """Where a run stands among others."""
    return Place(str(run._record["created_at"]), os.fsencode(os.path.basename(run.path)))


def find(run: str | Run) -> Run:
    """The run that is meant by its name or a handle, as it is now.

    Raises:
        RunNotFoundError: there is no run of that name. RunConfigError: it can be no name.
    """
    if isinstance(run, Run):
        is_there = not run.is_remote and os.path.isdir(run.path)
        return Run.load(run.path, trust=run._trusted) if is_there else run.refresh()
    folder = RunFolder(settings.run_folder(validate_name(run, "run")))
    try:
        return Run.load(folder.path)
    except RunNotFoundError:
        raise RunNotFoundError(f"run {run}: there is none of that name in {settings.runs_dir()}") from None
    except SystemFailureError as error:
        return broken(folder, error)


def is_glob(name: str) -> bool:
    """True if a name stands for all runs that match it."""
    return any(mark in name for mark in "*?[")


def _asked(selection: Selection, asked: Sequence[str | Run], beyond: Place | None) -> Iterator[Run]:
    """The runs of these names, globs and handles, newest first; with ``include_deleted`` a name may be several's."""
    names = [each for each in asked if isinstance(each, str)]
    patterns = [name for name in names if is_glob(name) or selection.include_deleted]
    runs = {run.path: run for run in (find(each) for each in asked if each not in patterns)}
    if patterns:
        matched = set()

        def is_meant(name: str) -> bool:
            by = {pattern for pattern in patterns if fnmatch.fnmatchcase(name, pattern)}
            matched.update(by)
            return bool(by)

        runs |= {run.path: run for run in _all(selection, None, is_meant)}
        for name in patterns:
            if name not in matched and not is_glob(name):
                find(name)  # which says that there is none
    ordered = sorted(runs.values(), key=place, reverse=True)
    return (run for run in ordered if beyond is None or place(run) < beyond)


def _all(selection: Selection, beyond: Place | None, is_meant: Callable[[str], bool] | None = None) -> Iterator[Run]:
    """The runs that may be in a selection, newest first; of these names."""
    folders = [str(settings.runs_dir())]
    if selection.include_deleted:
        folders.append(f"{folders[0]}/{ARCHIVE}")
    each = [_in_folder(runs, selection, beyond, is_meant) for runs in folders]
    return heapq.merge(*each, key=place, reverse=True)


def _in_folder(
    runs: str, selection: Selection, beyond: Place | None, is_meant: Callable[[str], bool] | None
) -> Iterator[Run]:
    index = Index(runs)
    entries = [] if index.exists() else _entries(runs)
    if index.exists() or len(entries) >= _WORTH_AN_INDEX:
        try:
            for run in _indexed(index, selection, beyond, is_meant):
                yield run
                beyond = place(run)
            return
        except UnusableError:
            entries = _entries(runs)  # goes on without it, from where it was
    there = (readable(f"{runs}/{name}") for name in entries if not name.startswith("."))
    meant = [run for run in there if run is not None and (is_meant is None or is_meant(run.name))]
    yield from sorted((run for run in meant if beyond is None or place(run) < beyond), key=place, reverse=True)


def _indexed(
    index: Index, selection: Selection, beyond: Place | None, is_meant: Callable[[str], bool] | None
) -> Iterator[Run]:
    wanted = selection.statuses
    # Who asks for unreadable records expects that somebody has damaged some: that is told by looking at all.
    index.update(recheck=wanted is not None and RunStatus.UNKNOWN in wanted)
    statuses = None if wanted is None else [status.value for status in wanted]
    for path in index.newest(statuses, after=selection.after, beyond=_later(beyond, selection), named=is_meant):
        run = readable(path)
        if run is not None and (wanted is None or run.status in wanted):
            yield run
        else:
            journal.note(RunFolder(path))  # it has just changed, or the index is wrong about it: to be looked at


def _later(beyond: Place | None, selection: Selection) -> Place | None:
    """Where to begin: at the place, or where ``before`` says if that is further on."""
    places = [beyond] if beyond is not None else []
    if selection.before is not None:
        places.append(Place(selection.before, b""))
    return min(places, default=None)


def _entries(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
