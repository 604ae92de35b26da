"""The fingerprint of a function's code, remembered with all that it was made from, and valid while that is unchanged.

Owns what is looked at again. A fingerprint depends on what values are made of (``anatomy``) and on nothing else, so it
holds as long as every look at what can change - a namespace, a function's attributes, a cell, a list - finds the very
same objects. Numbers, texts and code can't change. What isn't known here isn't remembered: it is computed each time.

What was found is kept alive, so that nothing else gets its identity. A forked process has all of it at the same
addresses, and threads replace one whole `Seen` by another. It may refer to the function, so it must lie where it goes
away with it: see ``api.function``.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Collection, Iterable
from itertools import chain
from operator import attrgetter, is_
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

from localrun.model.identity import codeid, ownership
from localrun.model.identity.fingerprint import code_fingerprint
from localrun.model.identity.shapes import LEAVES

_FIXED = {*LEAVES, CodeType} - {bytearray}
_IMMUTABLE_TYPE = 1 << 8  # no attribute of the class can be set
_NOTHING = object()

Look = tuple[Callable[[], Iterable[Any]], tuple[Any, ...]]  # how to look, and what was found
Below = Iterable[Any]  # what a value is made of, to be looked at in turn


class Seen(NamedTuple):
    """A fingerprint, and the looks that tell whether it holds; None if it is not to be remembered."""

    fingerprint: str
    looks: list[Look] | None

    def holds(self) -> bool:
        """True if everything that it was made from is what it was."""
        try:
            return self.looks is not None and all(all(map(is_, look(), found)) for look, found in self.looks)
        except (AttributeError, RuntimeError, ValueError):  # deleted; changed while it was read; an empty cell
            return False


def code_seen(fn: Any, before: Seen | None) -> Seen:
    """The fingerprint of a function's code; ``before`` itself, that of the call before, if it holds."""
    if before is not None and before.holds():
        return before
    looks = _looks(fn) if before is None or before.looks is not None else None
    seen = Seen(code_fingerprint(fn), looks)
    return seen if seen.holds() else seen._replace(looks=None)


def _looks(fn: Any) -> list[Look] | None:
    """Looks at all that a function's code reaches; None if there is something whose changes would not be seen."""
    watch, met, waiting = _Watch(), {}, [fn]
    try:
        while waiting:
            value = waiting.pop()
            if type(value) not in _FIXED and id(value) not in met:
                met[id(value)] = value
                waiting.extend(_watch_of(type(value))(watch, value))
    except (AttributeError, LookupError, TypeError, ValueError):
        return None
    return watch.looks


class _Watch:
    """Looks at what can change of a value, with a method for each type. An error means that this can't be done."""

    def __init__(self) -> None:
        self.looks: list[Look] = []
        self._homes = {"__main__"}
        self._names(vars(sys), ("modules",))

    def _look(self, look: Callable[[], Iterable[Any]]) -> tuple[Any, ...]:
        found = tuple(look())
        self.looks.append((look, found))
        return found

    def _attributes(self, value: Any, *names: str) -> tuple[Any, ...]:
        return self._look(functools.partial(attrgetter("__class__", *names), value))[1:]

    def _names(self, space: Any, names: Collection[str]) -> list[Any]:
        found = self._look(functools.partial(map, space.get, tuple(names), (_NOTHING,) * len(names)))
        return [each for each in found if each is not _NOTHING]

    def _whole(self, *parts: Iterable[Any]) -> tuple[Any, ...]:
        return self._look(functools.partial(chain, *parts, (_NOTHING,)))[:-1]

    def _home(self, name: str) -> None:
        """What says whose the module of that name is."""
        if name not in self._homes and name.partition(".")[0] != "localrun":
            self._homes.add(name)
            (found,) = self._names(sys.modules, (name,))
            self.module(found)

    def module(self, module: ModuleType) -> Below:
        self._attributes(module, "__dict__")
        self._names(vars(module), ("__name__", "__file__", "__spec__"))
        if type(module) is not ModuleType or not os.path.isabs(str(vars(module).get("__file__"))):
            (origin,) = self._names(vars(vars(module)["__spec__"]), ("origin",))
            _require(origin in ("built-in", "frozen"))
        return ()

    def function(self, fn: FunctionType) -> Below:
        self._attributes(fn, "__code__", "__defaults__", "__kwdefaults__", "__module__", "__qualname__", "__dict__")
        self._names(fn.__globals__, ("__name__",))
        self._home(fn.__globals__["__name__"])
        self._home(fn.__module__)
        users = codeid.is_user_code(fn)
        if not users and "<locals>" not in fn.__qualname__ and not ownership.is_user_module(fn.__module__):
            return ()
        _require(not (users and codeid.has_imports(fn)))  # what files say isn't looked at
        spaces = codeid.namespaces(fn) if users else ()
        used = [value for _, space, names in spaces for value in self._names(space, names)]
        return [fn.__defaults__, fn.__kwdefaults__, *(fn.__closure__ or ()), *self._wrapped(fn), *used]

    def wrapper(self, value: Any) -> Below:
        self._attributes(value, "__dict__")
        self._home(type(value).__module__)
        _require("__wrapped__" in vars(value))
        return self._wrapped(value)

    def _wrapped(self, value: Any) -> list[Any]:
        return self._names(vars(value), ("__wrapped__",))

    def builtin(self, fn: Any) -> Below:
        (name,) = self._attributes(fn, "__module__")
        _require(bool(name) and isinstance(fn.__self__, ModuleType | None))
        return ()

    def class_(self, cls: type) -> Below:
        self._home(cls.__module__)
        if not cls.__flags__ & _IMMUTABLE_TYPE:
            self._attributes(cls, "__module__", "__qualname__")
        _require(not codeid.is_user_code(cls))
        return ()


def _require(known: bool) -> None:
    if not known:
        raise ValueError("of this, changes would not be seen")


def _watch_of(cls: type) -> Callable[[_Watch, Any], Below]:
    return _Watch.wrapper if cls.__module__ == "localrun.api.function" else _WATCHES[cls]


_WATCHES: dict[type, Callable[[_Watch, Any], Below]] = {
    FunctionType: _Watch.function,
    BuiltinFunctionType: _Watch.builtin,
    ModuleType: _Watch.module,
    type: _Watch.class_,
    functools._lru_cache_wrapper: _Watch.wrapper,
    CellType: lambda watch, cell: watch._attributes(cell, "cell_contents"),
    tuple: lambda watch, items: items,
    frozenset: lambda watch, items: items,
    list: lambda watch, items: watch._whole(items),
    set: lambda watch, items: watch._whole(items),
    dict: lambda watch, items: watch._whole(items, items.values()),
}
