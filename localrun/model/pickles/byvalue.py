"""How the user's functions, classes and modules are pickled by value. Which of their names go along is ``travel``'s.

cloudpickle does most of it; this pickler adds what a whole project needs:

- All functions of a module share its globals when loaded, as after an import, and the module is one object with them.
- Wrappers that an installed decorator made keep the installed globals, rather than copies of them.
- Classes keep their qualified names and slots, enum members their attributes. They say where they are at home, so that
  ``arrival`` can find the class there.
- ``lru_cache``, ``cached_property``, ``singledispatch``, type variables and ``NewType`` go by value too.

What is written can be read with cloudpickle alone.
"""

from __future__ import annotations

import functools
import sys
import types
import typing
import weakref
from collections import ChainMap
from collections.abc import Callable
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from typing import Any, Protocol

from cloudpickle import cloudpickle

from localrun.model.identity.ownership import is_user_module
from localrun.model.pickles import apart
from localrun.model.pickles.arrival import exception_without_init, is_users
from localrun.model.pickles.carried import PARENT
from localrun.model.pickles.classes import find_class

Reduced = tuple[Any, ...]

_LRU_CACHE: Any = type(functools.lru_cache(lambda: None))
_NAMED_TYPES = (typing.NewType, typing.TypeVar, typing.ParamSpec, typing.TypeVarTuple)
_OF_THE_IMPORT = frozenset({"__builtins__", "__cached__", "__loader__", "__spec__"})
_OF_THE_SHELL = ("__name__", "__package__", "__file__", "__path__", "__doc__")
_OF_THE_ENUM = frozenset({"_value_", "_name_", "_sort_order_", "__objclass__"})
_OF_THE_CLASS = frozenset({"__slots__", "__slotnames__"})


class Writable(Protocol):
    """What a pickler writes to. It may also have ``keeps_in_pickle``, which is asked for each buffer of an array."""

    def write(self, data: Any, /) -> object:
        """Take the next bytes: any object that has a buffer."""


class StandIn:
    """Pickles as a call; one object, so that what the call makes is made once and shared."""

    def __init__(self, make: Callable[..., Any], arguments: Reduced) -> None:
        self._reduced = make, arguments

    def __reduce__(self) -> Reduced:
        return self._reduced


class ByValuePickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Writes one value, the user's code in it by value and installed code by reference."""

    dispatch_table = ChainMap(
        {
            # Holds a lock before Python 3.12.
            functools.cached_property: lambda p: (functools.cached_property, (p.func,), {"attrname": p.attrname}),
            # The caches of singledispatch.
            weakref.WeakKeyDictionary: lambda d: (weakref.WeakKeyDictionary, (dict(d),)),
        },
        cloudpickle.Pickler.dispatch_table,
    )

    def __init__(self, file: Writable) -> None:
        super().__init__(file, protocol=5, buffer_callback=getattr(file, "keeps_in_pickle", None))
        self._stand_ins: dict[tuple[Any, int], tuple[StandIn, object]] = {}
        self._user_modules: dict[object, types.ModuleType | None] = {}

    def travellers(self, _owner: Any, names: dict[str, Any]) -> dict[str, Any]:
        """What goes along of a function's or module's globals, or of a class's attributes."""
        return names

    def imports(self, _function: types.FunctionType) -> list[Any]:
        """What is to be loaded before a function is called, besides what its globals refer to."""
        return []

    def reducer_override(self, obj: Any) -> Any:
        """How functions, classes, modules and the few others that know their own name are written."""
        kind = type(obj)  # an object may lie to isinstance
        if issubclass(kind, type):
            return self._reduce_class(obj)
        if issubclass(kind, types.ModuleType):
            return self._reduce_module(obj)
        if kind is types.FunctionType and self.user_module(obj.__module__):
            return self._dynamic_function_reduce(obj)
        if kind is _LRU_CACHE and self.user_module(obj.__module__):
            size, typed = obj.cache_parameters().values()
            return _LRU_CACHE, (obj.__wrapped__, size, typed, functools._CacheInfo), vars(obj)
        if kind in _NAMED_TYPES:
            return self._reduce_named_type(obj)
        if hasattr(kind, "__reduce_by_value__"):
            return obj.__reduce_by_value__()
        if issubclass(kind, BaseException) and is_users(kind) and not isinstance(kind.__reduce__, types.FunctionType):
            return _reduce_exception(obj)
        if (reduced := apart.reduced(obj)) is not NotImplemented:
            return reduced
        return super().reducer_override(obj)

    def _dynamic_function_reduce(self, func: types.FunctionType) -> Reduced:
        """A function by value; what cloudpickle calls for one, whoever decided that."""
        make, arguments, (attributes, slots), *rest = super()._dynamic_function_reduce(func)
        home = sys.modules.get(func.__globals__.get("__name__", ""))
        names = slots["__globals__"]
        if home is None or vars(home) is not func.__globals__:
            slots["__globals__"] = self.travellers(func, names)  # made by exec: it has globals of its own
            return make, arguments, (attributes, slots), *rest
        if self.user_module(home.__name__):
            if func.__globals__.get(func.__name__) is func:
                names[func.__name__] = func
            slots["__globals__"] = self.travellers(func, names)
            slots["_cloudpickle_submodules"] += self.imports(func)
            namespace = self.shared(vars, home, self._shell(home))
        else:
            slots["__globals__"] = {}
            namespace = self.shared(vars, home, home)
        return make, (arguments[0], namespace, *arguments[2:]), (attributes, slots), *rest

    def _reduce_class(self, cls: type) -> Any:
        """A class by reference or by value, and then with what cloudpickle loses of it."""
        module = self.user_module(cls.__module__)
        reduced = cloudpickle._dynamic_class_reduce(cls) if module else super().reducer_override(cls)
        if not isinstance(reduced, tuple) or reduced[-1] is not cloudpickle._class_setstate:
            return reduced
        make, arguments, (attributes, slots), *rest = reduced
        if module and find_class(module, cls.__qualname__) is cls:
            arguments = (*arguments[:-1], {"home": self._shell(module), "qualname": cls.__qualname__})
        if make is cloudpickle._make_skeleton_enum:
            slots["members"] = {member.name: _attributes(member) for member in typing.cast(Any, cls)}
        else:
            arguments[3]["__qualname__"] = cls.__qualname__
            if "__slots__" in vars(cls) and not issubclass(cls, tuple):  # named tuples make their own
                arguments[3]["__slots__"] = vars(cls)["__slots__"]
        attributes = {name: value for name, value in attributes.items() if not _is_made_with_class(cls, name)}
        return make, arguments, (self.travellers(cls, attributes), slots), *rest

    def _reduce_module(self, module: types.ModuleType) -> Any:
        """A user's module: its shell, and all its globals unless it is ``__main__``, which may hold a whole session."""
        if self.user_module(module.__name__) is not module:
            return super().reducer_override(module)
        itself = typing.cast, (None, self._shell(module))
        if module.__name__ == "__main__":
            return itself
        names = {name: value for name, value in vars(module).items() if name not in _OF_THE_IMPORT}
        return *itself, self.travellers(module, names)

    def _reduce_named_type(self, obj: Any) -> Any:
        """Type variables and new types: their name in their module would be looked up where that module may not be."""
        found = cloudpickle._lookup_module_and_qualname(obj, obj.__name__)
        if found is not None and self.user_module(found[0].__name__) is None:
            return NotImplemented
        if isinstance(obj, typing.TypeVar):
            return cloudpickle._make_typevar, cloudpickle._decompose_typevar(obj)
        return type(obj), (obj.__name__, *([obj.__supertype__] if isinstance(obj, typing.NewType) else []))

    def _shell(self, module: types.ModuleType) -> StandIn:
        """The module before its names: what its functions, its children and the module itself have in common."""
        if known := self._stand_ins.get((cloudpickle.dynamic_subimport, id(module))):
            return known[0]
        about = {name: vars(module)[name] for name in _OF_THE_SHELL if vars(module).get(name) is not None}
        if "__path__" in about:
            about["__path__"] = list(about["__path__"])
        parent = self.user_module(module.__name__.rpartition(".")[0])
        about[PARENT] = self._shell(parent) if parent else None
        if module.__name__ == "__main__" and module.__spec__ is not None:
            about["__spec__"] = ModuleSpec(module.__spec__.name, None)  # ``python -m``: for processes started by spawn
        return self.shared(cloudpickle.dynamic_subimport, module, module.__name__, about)

    def shared(self, make: Callable[..., Any], owner: object, *arguments: Any) -> StandIn:
        """The one stand-in for what ``make(*arguments)`` gives for the owner."""
        return self._stand_ins.setdefault((make, id(owner)), (StandIn(make, arguments), owner))[0]

    def user_module(self, name: object) -> types.ModuleType | None:
        """The loaded module of that name if it is the user's and can travel."""
        if name not in self._user_modules:
            module = sys.modules.get(name) if isinstance(name, str) else None
            mine = isinstance(module, types.ModuleType) and not _must_be_imported(module) and is_user_module(module)
            self._user_modules[name] = module if mine else None
        return self._user_modules[name]


def _reduce_exception(error: BaseException) -> Any:
    """An exception without a call of its ``__init__``, which often takes other arguments than those it passes on."""
    _, made_of, *native = typing.cast(Any, error.__reduce__())
    attributes = object.__getstate__(error)
    own, slots = attributes if isinstance(attributes, tuple) else (attributes, None)
    state = {**(native[0] if native else {}), **(own or {}), **(slots or {})}
    return exception_without_init, (type(error), made_of, error.args), state or None


def _must_be_imported(module: types.ModuleType) -> bool:
    """True for extension modules, and for what unpickles the others, wherever it lies."""
    file = str(getattr(module, "__file__", ""))
    return module.__name__.partition(".")[0] == "cloudpickle" or file.endswith(tuple(EXTENSION_SUFFIXES))


def _is_made_with_class(cls: type, name: str) -> bool:
    return name in _OF_THE_CLASS or isinstance(vars(cls).get(name), types.MemberDescriptorType)


def _attributes(member: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(member).items() if name not in _OF_THE_ENUM}
