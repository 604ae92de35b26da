"""How the user's code arrives in a process: what stands behind the names in a pickle that ``travel`` wrote.

There are two ways to arrive. Where a value is *read* (a result, an exception, inputs), a class that the reading process
has already is used as it is, so that ``isinstance`` and ``except`` hold; all else stays private to the value. In the
process that *executes* (``as_submitted``) the code as submitted wins: its modules take their places in ``sys.modules``,
``__main__`` included, so that imports in functions, plain pickles and multiprocessing find the code that travelled and
not the files as they are by then. Modules that the process had loaded before stay where they are.
"""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Callable
from os.path import basename
from typing import Any, TypeVar

from cloudpickle import cloudpickle

from localrun.model.pickles.carried import PARENT, add_names, carry_module, carry_source

T = TypeVar("T")

_HEAPTYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: a class that was made by Python code

_unhooking = threading.Lock()


def exception_without_init(
    cls: type[BaseException], made_of: tuple[Any, ...], args: tuple[Any, ...]
) -> BaseException:
    """An exception as it was, without the user's ``__init__`` and ``__new__``, which may want other arguments.

    ``made_of`` is what Python's own exception, of which it is a kind, would be made of.
    """
    native: Any = next(base for base in cls.__mro__ if not is_users(base))
    error: BaseException = native.__new__(cls, *made_of)
    native.__init__(error, *made_of)
    if error.args != args:
        error.args = args
    return error


def is_users(cls: type) -> bool:
    """True for a class that was made by Python code."""
    return bool(cls.__flags__ & _HEAPTYPE)


class Arrival:
    """One load: replaces the functions that make classes and modules, by their names in the pickle."""

    def __init__(self, as_submitted: bool) -> None:
        self._as_submitted = as_submitted
        self._residents: set[type] = set()
        self._homes: dict[type, types.ModuleType] = {}
        self._replaced: dict[str, Callable[..., Any]] = {
            "_make_skeleton_class": self._make_class,
            "_make_skeleton_enum": self._make_enum,
            "_class_setstate": self._fill_class,
        }
        if as_submitted:
            self._replaced |= {
                "dynamic_subimport": _make_module,
                "_function_setstate": _fill_function,
                "offer_source": carry_source,
            }

    def replace(self, function: T) -> T | Callable[..., Any]:
        """What to call in place of a function of cloudpickle's or ``carried``'s: it or another."""
        return self._replaced.get(getattr(function, "__name__", ""), function)

    def _make_class(self, kind: Any, name: str, bases: Any, kwargs: Any, tracker: str, extra: Any) -> type:
        return self._settle(tracker, extra, lambda: _empty_class(kind, name, bases, kwargs, tracker))

    def _make_enum(self, *arguments: Any) -> type:
        *_, tracker, extra = arguments
        return self._settle(tracker, extra, lambda: cloudpickle._make_skeleton_enum(*arguments[:-1], None))

    def _settle(self, tracker: str, extra: dict[str, Any] | None, make: Callable[[], type]) -> type:
        """The class that stands for the pickled one: a resident, or a new one, to be filled."""
        resident = self._resident(tracker, extra)
        if resident is not None:
            self._residents.add(resident)
            return resident
        made = make()
        if extra and self._as_submitted:
            self._homes[made] = extra["home"]
        return made

    def _resident(self, tracker: str, extra: dict[str, Any] | None) -> type | None:
        """The class that is to be used instead: the one of that name here, or the very class that was pickled."""
        if extra:
            home = extra["home"] if self._as_submitted else _same_module(extra["home"])
            found = find_class(home, extra["qualname"])
            if found is not None:
                return found
        same: type | None = cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.get(tracker)
        return same

    def _fill_class(self, cls: type, state: tuple[dict[str, Any], dict[str, Any]]) -> type:
        if cls in self._residents:
            return cls
        cloudpickle._class_setstate(cls, state)
        for name, attributes in state[1].get("members", {}).items():
            vars(vars(cls)["_member_map_"][name]).update(attributes)
        if cls in self._homes and "." not in cls.__qualname__:
            add_names(self._homes[cls], {cls.__name__: cls})
        return cls


def find_class(module: types.ModuleType | None, qualname: str) -> type | None:
    """The class of that qualified name in a module; a module's own ``__getattr__`` is not asked."""
    first, *others = qualname.split(".")
    found = None if module is None else vars(module).get(first)
    for name in others:
        found = getattr(found, name, None)
    return found if isinstance(found, type) else None


def _same_module(home: types.ModuleType) -> types.ModuleType | None:
    """This process's module of that name. Two different programs' ``__main__`` are not the same."""
    here = sys.modules.get(home.__name__)
    if home.__name__ != "__main__" or here is None:
        return here
    theirs, ours = (basename(getattr(module, "__file__", None) or "") for module in (home, here))
    return here if theirs == ours else None


def _empty_class(kind: type, name: str, bases: Any, kwargs: dict[str, Any], tracker: str) -> type:
    """A class to be filled, made without the hooks that travelled: its metaclass's ``__new__``, ``__init_subclass__``.

    They did their work where the class was defined, and what they did came along. Here the class is still empty and its
    keyword arguments are unknown.
    """
    resolved = types.resolve_bases(bases)
    maker = next(cls for cls in kind.__mro__ if not _has_travelled(cls))
    namespace = kwargs if resolved is bases else kwargs | {"__orig_bases__": bases}

    def make() -> Any:
        if maker is kind:
            return cloudpickle._make_skeleton_class(kind, name, bases, kwargs, tracker, None)
        return cloudpickle._lookup_class_or_track(tracker, maker.__new__(kind, name, resolved, namespace))

    ancestors = (cls for base in resolved for cls in base.__mro__)
    owner = next((cls for cls in ancestors if "__init_subclass__" in vars(cls)), object)
    made: type = _without_hook(owner, make) if _has_travelled(owner) else make()
    return made


def _without_hook(owner: type, make: Callable[[], T]) -> T:
    with _unhooking:
        hook = vars(owner)["__init_subclass__"]
        owner.__init_subclass__ = classmethod(lambda cls, **kwargs: None)  # type: ignore[assignment]
        try:
            return make()
        finally:
            owner.__init_subclass__ = hook  # type: ignore[method-assign]


def _has_travelled(cls: type) -> bool:
    return cls in cloudpickle._DYNAMIC_CLASS_TRACKER_BY_CLASS


def _fill_function(function: types.FunctionType, state: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """A function's globals are its module's: what is there already is newer than what this pickle remembers."""
    attributes, slots = state
    for name, value in slots["__globals__"].items():
        function.__globals__.setdefault(name, value)
    cloudpickle._function_setstate(function, (attributes, slots | {"__globals__": {}}))


def _make_module(name: str, about: dict[str, Any]) -> types.ModuleType:
    if PARENT in about:
        return carry_module(name, about)
    module: types.ModuleType = cloudpickle.dynamic_subimport(name, about)  # made by hand, never imported
    return module
