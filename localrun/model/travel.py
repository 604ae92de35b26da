"""How the user's code leaves a process: the pickler behind every payload of a run.

Functions, classes and modules of the user's own project travel by value, at whatever depth they are reached, so that a
queued run executes the code of its submission and a result can be read where that code isn't. Installed code goes by
reference. cloudpickle does most of it; this pickler adds what a whole project needs:

- A module reached by name (``import helpers``, inside a function too) travels whole. A module of which only functions
  or classes are reached, and ``__main__`` always, travels as far as those use it.
- All functions of a module share its globals when loaded, as after an import.
- What an import would simply make anew is made anew: locks and thread-locals that are globals or class attributes.
- What cannot be pickled fails the submission if the function reaches it by name. If it only comes along, with a
  module or a class, a `LeftBehind` stands in its place.
- ``lru_cache``, ``cached_property``, ``singledispatch``, ``NewType``, ``__slots__`` and enums with attributes survive.

What is written can be read with cloudpickle alone, except for a `LeftBehind` and for modules that came as their source.
How it is received, and which classes win, is `localrun.model.arrival`.
"""

from __future__ import annotations

import functools
import importlib.machinery
import sys
import threading
import types
import typing
import weakref
from collections import ChainMap
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from cloudpickle import cloudpickle

from localrun.errors import PayloadError
from localrun.model.arrival import PARENT, LeftBehind, find_class, offer_source
from localrun.model.imports import find_source, imported_names, names_imported_by

Reduced = tuple[Any, ...]

_LRU_CACHE: Any = type(functools.lru_cache(lambda: None))
_NAMED_TYPES = (typing.NewType, typing.TypeVar, typing.ParamSpec, typing.TypeVarTuple)
_MADE_ANEW: dict[type, Callable[[], Any]] = {
    type(threading.Lock()): threading.Lock,
    type(threading.RLock()): threading.RLock,
    threading.local: threading.local,
}
_OF_THE_IMPORT = frozenset({"__builtins__", "__cached__", "__loader__", "__spec__"})
_OF_THE_ENUM = frozenset({"_value_", "_name_", "_sort_order_", "__objclass__"})
_OF_THE_CLASS = frozenset({"__slots__", "__slotnames__"})


class Writable(Protocol):
    """What a pickler writes to."""

    def write(self, data: Any, /) -> object:
        """Take the next bytes: any object that has a buffer."""


class _StandIn:
    """Pickles as a call; one object, so that what the call makes is made once and shared."""

    def __init__(self, *reduced: Any) -> None:
        self._reduced = reduced

    def __reduce__(self) -> Reduced:
        return self._reduced


class TravelPickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Writes one value; ``root`` is the function whose code it is, if it is one that will be called.

    ``lenient`` tries each global and class attribute by itself and leaves behind what can't be pickled: for a second
    attempt, after a plain one failed.
    """

    dispatch_table = ChainMap(
        {
            # Holds a lock before Python 3.12.
            functools.cached_property: lambda p: (functools.cached_property, (p.func,), {"attrname": p.attrname}),
            # The caches of singledispatch.
            weakref.WeakKeyDictionary: lambda d: (weakref.WeakKeyDictionary, (dict(d),)),
        },
        cloudpickle.Pickler.dispatch_table,
    )

    def __init__(self, file: Writable, root: object = None, lenient: bool = False) -> None:
        super().__init__(file, protocol=5)
        self._lenient = lenient
        self._with_sources = root is not None
        self._strict = {id(plain_function(root))}
        self._stand_ins: dict[tuple[Any, int], tuple[_StandIn, object]] = {}
        self._refusals: dict[int, tuple[str | None, object]] = {}
        self._user_modules: dict[object, types.ModuleType | None] = {}
        self._imported: set[str] = set()

    def reducer_override(self, obj: Any) -> Any:
        """How functions, classes, modules and the few others that know their own name are written."""
        kind = type(obj)  # an object may lie to isinstance
        if issubclass(kind, type):
            return self._reduce_class(obj)
        if issubclass(kind, types.ModuleType):
            return self._reduce_module(obj)
        if kind is types.FunctionType and self._user_module(obj.__module__):
            return self._dynamic_function_reduce(obj)
        if kind is _LRU_CACHE and self._user_module(obj.__module__):
            size, typed = obj.cache_parameters().values()
            return _LRU_CACHE, (obj.__wrapped__, size, typed, functools._CacheInfo), vars(obj)  # type: ignore[attr-defined]
        if kind in _NAMED_TYPES:
            return self._reduce_named_type(obj)
        return super().reducer_override(obj)

    def _dynamic_function_reduce(self, func: types.FunctionType) -> Reduced:
        """A function by value, with the globals of its module: the travelling ones, or the installed ones."""
        make, arguments, (attributes, slots), *rest = super()._dynamic_function_reduce(func)
        home = sys.modules.get(func.__globals__.get("__name__", ""))
        if getattr(home, "__dict__", None) is not func.__globals__:
            slots["__globals__"] = self._travellers(func, slots["__globals__"])  # made by exec: its own globals
            return make, arguments, (attributes, slots), *rest
        assert home is not None
        if self._user_module(home.__name__):
            own = {func.__name__: func} if func.__globals__.get(func.__name__) is func else {}
            slots["__globals__"] = self._travellers(func, slots["__globals__"] | own)
            slots["_cloudpickle_submodules"] += self._imports(func)
            home = self._shell(home)
        else:
            # A decorator's wrapper. Copies of installed globals would be a second state, and overwrite the first.
            slots["__globals__"] = {}
        return make, (arguments[0], self._shared(vars, home), *arguments[2:]), (attributes, slots), *rest

    def _reduce_class(self, cls: type) -> Any:
        """A class by reference, or by value: with its qualified name, slots, module and enum members' attributes."""
        module = self._user_module(cls.__module__)
        reduced = cloudpickle._dynamic_class_reduce(cls) if module else super().reducer_override(cls)
        if not isinstance(reduced, tuple) or reduced[-1] is not cloudpickle._class_setstate:
            return reduced
        make, arguments, (attributes, slots), *rest = reduced
        if module is not None and find_class(module, cls.__qualname__) is cls:
            arguments = (*arguments[:-1], {"home": self._shell(module), "qualname": cls.__qualname__})
        if make is cloudpickle._make_skeleton_class:
            if "__slots__" in vars(cls) and not issubclass(cls, tuple):  # named tuples make their own
                arguments[3]["__slots__"] = vars(cls)["__slots__"]
            arguments[3]["__qualname__"] = cls.__qualname__
        else:
            slots["members"] = {member.name: _attributes(member) for member in cls}  # type: ignore[attr-defined]
        attributes = self._travellers(cls, {name: attributes[name] for name in attributes if _is_stored(cls, name)})
        return make, arguments, (attributes, slots), *rest

    def _reduce_module(self, module: types.ModuleType) -> Any:
        """A user's module: its shell, and all its globals unless it is ``__main__``, which may hold a whole session."""
        if self._user_module(module.__name__) is not module:
            return super().reducer_override(module)
        itself = typing.cast, (None, self._shell(module))
        if module.__name__ == "__main__":
            return itself
        names = {name: value for name, value in vars(module).items() if name not in _OF_THE_IMPORT}
        return *itself, self._travellers(module, names)

    def _reduce_named_type(self, obj: Any) -> Any:
        """Type variables and new types: their name in their module would be looked up where that module may not be."""
        found = cloudpickle._lookup_module_and_qualname(obj, obj.__name__)
        if found is not None and self._user_module(found[0].__name__) is None:
            return NotImplemented
        if isinstance(obj, typing.TypeVar):
            return cloudpickle._make_typevar, cloudpickle._decompose_typevar(obj)
        return type(obj), (obj.__name__, *([obj.__supertype__] if isinstance(obj, typing.NewType) else []))

    def _travellers(self, owner: Any, names: Mapping[str, Any]) -> dict[str, Any]:
        """What of the owner's names comes along: locks anew and, if lenient, `LeftBehind` for what can't be pickled."""
        strict = id(owner) in self._strict
        kept = {}
        for name, value in names.items():
            if type(value) in _MADE_ANEW:
                value = self._shared(_MADE_ANEW[type(value)], value, ())
            if strict and (used := plain_function(value)):
                self._strict.add(id(used))
            refusal = self._refusal(value) if self._lenient and value is not owner else None
            if refusal and strict:
                raise PayloadError(
                    f"{owner.__qualname__}() uses the global {name!r}, which can't travel with the run: {refusal}. "
                    "Make it inside the function, or pass what it is made from."
                )
            kept[name] = LeftBehind(_story(owner, name, refusal)) if refusal else value
        return kept

    def _refusal(self, value: object) -> str | None:
        """Why a value can't be pickled, whatever the globals that its code uses; None if it can."""
        if id(value) not in self._refusals:
            refusal = None
            try:
                _Trial(_Nowhere()).dump(value)
            except Exception as error:  # noqa: BLE001 - whatever the pickling of a value raises is the reason
                refusal = one_line(error)
            self._refusals[id(value)] = refusal, value
        return self._refusals[id(value)][0]

    def _shell(self, module: types.ModuleType) -> _StandIn:
        """The module before its names: what its functions' globals, its children and the module itself have in common."""
        names = ("__name__", "__package__", "__file__", "__path__", "__doc__")
        about = {name: vars(module)[name] for name in names if vars(module).get(name) is not None}
        if "__path__" in about:
            about["__path__"] = list(about["__path__"])
        parent = self._user_module(module.__name__.rpartition(".")[0])
        about[PARENT] = self._shell(parent) if parent else None
        return self._shared(cloudpickle.dynamic_subimport, module, (module.__name__, about))

    def _shared(self, make: Callable[..., Any], owner: object, arguments: Reduced | None = None) -> _StandIn:
        """The one stand-in for what ``make`` gives for the owner; its arguments are the owner unless they are given."""
        made = _StandIn(make, (owner,) if arguments is None else arguments)
        return self._stand_ins.setdefault((make, id(owner)), (made, owner))[0]

    def _imports(self, func: types.FunctionType) -> list[Any]:
        """The user's modules that the body imports and that this pickle hasn't yet: loaded ones, or else their source."""
        found: list[Any] = []
        names = list(imported_names(func.__code__, func.__globals__.get("__package__")))
        for name in names:  # which grows
            if name in self._imported:
                continue
            self._imported.add(name)
            if module := self._user_module(name):
                found.append(module)
            elif self._with_sources and name not in sys.modules and (source := find_source(name)):
                found.append(_StandIn(offer_source, tuple(source)))
                names += names_imported_by(source)
        return found

    def _user_module(self, name: object) -> types.ModuleType | None:
        """The loaded module of that name if it is the user's and written in Python: others can only be imported."""
        if name not in self._user_modules:
            from localrun.model.codeid import is_user_module

            module = sys.modules.get(name) if isinstance(name, str) else None
            if isinstance(module, types.ModuleType) and not _is_machinery(module) and is_user_module(module):
                self._user_modules[name] = module
            else:
                self._user_modules[name] = None
        return self._user_modules[name]


class _Trial(TravelPickler):
    """Tries whether a value can be pickled by itself: the globals of the code that it reaches are judged elsewhere."""

    def _travellers(self, owner: Any, names: Mapping[str, Any]) -> dict[str, Any]:
        return {}

    def _imports(self, func: types.FunctionType) -> list[Any]:
        return []


class _Nowhere:
    def write(self, data: Any) -> None:
        pass


def plain_function(value: Any) -> types.FunctionType | None:
    """The function written in Python inside a bound method, a partial or a decorator's object; None if there is none."""
    for _ in range(9):  # decorators upon decorators; not for ever, as an object may answer any name
        if isinstance(value, types.FunctionType):
            return value
        inner = (getattr(value, name, None) for name in ("__func__", "__wrapped__", "func", "fn"))
        value = next((each for each in inner if callable(each)), None)
    return None


def one_line(error: BaseException) -> str:
    """An error's text, or else its type, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _attributes(member: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(member).items() if name not in _OF_THE_ENUM}


def _is_stored(cls: type, name: str) -> bool:
    """False for what belongs to the making of the class: its slots."""
    return name not in _OF_THE_CLASS and not isinstance(vars(cls).get(name), types.MemberDescriptorType)


def _is_machinery(module: types.ModuleType) -> bool:
    """True for what can only be imported: extension modules, and what unpickles the others, wherever it lies."""
    suffixes = tuple(importlib.machinery.EXTENSION_SUFFIXES)
    return module.__name__.partition(".")[0] == "cloudpickle" or str(getattr(module, "__file__", "")).endswith(suffixes)


def _story(owner: Any, name: str, refusal: str) -> str:
    if isinstance(owner, type):
        place = f"class {owner.__module__}.{owner.__qualname__}"
    else:
        place = f"module {getattr(owner, '__module__', None) or owner.__name__!r}"
    return f"{place}: {name!r} did not travel with the run, because it can't be pickled: {refusal}"
