"""What of the user's code leaves a process with a payload: everything that it reaches, as it is at that moment.

Functions, classes and modules of the user's own project travel by value, at whatever depth they are reached, so that a
queued run executes the code of its submission, and a result can be read where that code isn't. Installed code goes by
reference. In detail:

- A module reached by name (``import helpers``, inside a function too) travels whole. A module of which only functions
  or classes are reached, and ``__main__`` always, travels as far as those use it.
- A module that a function imports and that isn't loaded here is neither imported nor executed: its source travels.
- What an import would simply make anew is made anew: locks and thread-locals that are globals or class attributes.
- What can't be pickled fails the submission if the function, or one that it calls by name, uses it. If it only comes
  along, with a module or a class, a `LeftBehind` takes its place.

How each is written is ``byvalue``'s, how it is received ``arrival``'s.
"""

from __future__ import annotations

import io
import sys
import threading
import types
from collections.abc import Callable
from typing import Any, TypeVar, cast

from localrun.errors import PayloadError
from localrun.model.identity.imports import find_source, imported_names, names_imported_by
from localrun.model.pickles.byvalue import ByValuePickler, StandIn, Writable
from localrun.model.pickles.carried import LeftBehind, offer_source

W = TypeVar("W", bound=Writable)

_MADE_ANEW: dict[type, Callable[[], Any]] = {
    type(threading.Lock()): threading.Lock,
    type(threading.RLock()): threading.RLock,
    threading.local: threading.local,
}


def dumps_function(function: Callable[..., Any]) -> bytes:
    """The pickle of a function that will be called: with all code of the user's project that it reaches, as it is now.

    PayloadError if something can't be pickled that the function, or one that it calls by name, uses.
    """
    return pickle_into(io.BytesIO, function, root=function).getvalue()


def pickle_into(start: Callable[[], W], value: object, root: object = None) -> W:
    """Pickle a value into the new, or emptied, file that ``start`` gives; give that file back.

    ``root`` is the value if it is a function that will be called. PayloadError if the value can't be pickled.
    """
    failure: Exception | None = None
    for traveller in (_Traveller, _LenientTraveller):
        file = start()
        try:
            traveller(file, root).dump(value)
            return file
        except (OSError, MemoryError, PayloadError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever the pickling of a value raises
            failure = error
    assert failure is not None
    what = getattr(root, "__qualname__", None) or f"a value of type {type(value).__qualname__}"
    advice = "make it inside the function" if root is not None else "use plain data, or what it is made from"
    raise PayloadError(f"{what} can't be pickled: {_one_line(failure)} ({advice})") from failure


class _Traveller(ByValuePickler):
    """Writes one value with all that it reaches, or fails."""

    def __init__(self, file: Writable, root: object) -> None:
        super().__init__(file)
        self._root = root
        self._imported: set[str] = set()

    def travellers(self, owner: Any, names: dict[str, Any]) -> dict[str, Any]:
        """The names themselves, locks anew."""
        return {name: self._made_anew(value) for name, value in names.items()}

    def _made_anew(self, value: Any) -> Any:
        make = _MADE_ANEW.get(type(value))
        return value if make is None else self.shared(make, value)

    def imports(self, function: types.FunctionType) -> list[Any]:
        """The user's modules that the body imports and this pickle hasn't yet: loaded ones, or else their source."""
        found: list[Any] = []
        names = list(imported_names(function.__code__, function.__globals__.get("__package__")))
        for name in names:  # which grows
            if name in self._imported:
                continue
            self._imported.add(name)
            if module := self.user_module(name):
                found.append(module)
            elif self._root is not None and name not in sys.modules and (source := find_source(name)):
                found.append(StandIn(offer_source, tuple(source)))
                names += names_imported_by(source)
        return found


class _LenientTraveller(_Traveller):
    """Tries each global and class attribute by itself, and leaves behind what can't be pickled and only comes along."""

    def __init__(self, file: Writable, root: object) -> None:
        super().__init__(file, root)
        self._strict = {id(_function_in(root))}  # functions that the root calls by name, and itself
        self._refusals: dict[int, tuple[str | None, object]] = {}

    def travellers(self, owner: Any, names: dict[str, Any]) -> dict[str, Any]:
        """The names, with a `LeftBehind` for what can't be pickled; PayloadError if the function needs that."""
        strict = id(owner) in self._strict
        kept = super().travellers(owner, names)
        for name, value in kept.items():
            if strict and (used := _function_in(value)):
                self._strict.add(id(used))
            refusal = None if value is owner else self._refusal(value)
            if refusal is None:
                continue
            if strict:
                raise PayloadError(
                    f"{owner.__qualname__}() uses the global {name!r}, which can't travel with the run: {refusal} "
                    "(make it inside the function, or pass what it is made from)"
                )
            kept[name] = LeftBehind(_story(owner, name, refusal))
        return kept

    def _refusal(self, value: object) -> str | None:
        """Why a value can't be pickled, whatever the globals that its code uses; None if it can."""
        if id(value) not in self._refusals:
            refusal = None
            try:
                _Trial(_Nowhere()).dump(value)
            except Exception as error:  # noqa: BLE001 - whatever the pickling of a value raises is the reason
                refusal = _one_line(error)
            self._refusals[id(value)] = refusal, value
        return self._refusals[id(value)][0]


class _Trial(ByValuePickler):
    """Tries a value by itself: the names that its code uses are tried where they belong."""

    def travellers(self, _owner: Any, _names: dict[str, Any]) -> dict[str, Any]:
        return {}


class _Nowhere:
    def write(self, data: Any) -> None:
        pass


def _function_in(value: Any) -> types.FunctionType | None:
    """The Python function inside a bound method, a partial or a decorator's object; None if there is none."""
    for _ in range(9):  # decorators upon decorators; not for ever, as an object may answer any name
        if isinstance(value, types.FunctionType):
            return value
        inner = (getattr(value, name, None) for name in ("__func__", "__wrapped__", "func", "fn"))
        value = next((each for each in inner if callable(each)), None)
    return None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _story(owner: Any, name: str, refusal: str) -> str:
    if isinstance(owner, type):
        place = f"class {owner.__module__}.{owner.__qualname__}"
    else:
        place = f"module {cast(str, owner.__name__ if isinstance(owner, types.ModuleType) else owner.__module__)!r}"
    return f"{place}: {name!r} did not travel with the run, because it can't be pickled: {refusal}"
