"""How the user's code arrives in a process: what stands behind the names in a pickle that `localrun.model.travel` wrote.

There are two ways to arrive. Where a value is *read* (a result, an exception, inputs), a class that the reading process
has already is used as it is, so that ``isinstance`` and ``except`` hold; all else stays private to the value. In the
process that *executes* (``as_submitted``) the code as submitted wins: its modules take their places in ``sys.modules``,
``__main__`` included, so that imports in functions, plain pickles and multiprocessing find the code that travelled and
not the files as they are by then. Only modules that the process had loaded before stay where they are.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import PurePath
from typing import Any, NamedTuple, NoReturn, TypeVar

from cloudpickle import cloudpickle

T = TypeVar("T")

PARENT = "__localrun_parent__"
_WHOLE = "__localrun_whole__"
_REST = "__localrun_rest__"

_carried: dict[str, CarriedModule] = {}
_sources: dict[str, Source] = {}


class LeftBehind:
    """Stands where something was that could not travel. Whatever is done with it raises, and says why."""

    def __init__(self, why: str) -> None:
        self.__dict__["why"] = why

    def __reduce__(self) -> tuple[Any, ...]:
        return LeftBehind, (self.__dict__["why"],)

    def __repr__(self) -> str:
        return f"<{self.__dict__['why']}>"

    def _refuse(self, *_args: object, **_kwargs: object) -> NoReturn:
        raise AttributeError(self.__dict__["why"])

    __getattr__ = __setattr__ = __delattr__ = __call__ = __bool__ = __len__ = _refuse
    __iter__ = __next__ = __contains__ = __getitem__ = __setitem__ = __delitem__ = _refuse
    __enter__ = __exit__ = __aenter__ = __aexit__ = __aiter__ = __anext__ = __await__ = _refuse


class Source(NamedTuple):
    """A module that was not loaded when the run was submitted: its text, to be executed if it is imported."""

    name: str
    path: str
    text: str
    is_package: bool


def offer_source(name: str, path: str, text: str, is_package: bool) -> None:
    """Where a value is only read: nothing. Where it is executed: ``import name`` will execute this text."""


class CarriedModule(types.ModuleType):
    """A module that travelled with a run, whole or in part. What is in it stays when more of it arrives."""

    def __setstate__(self, names: dict[str, Any]) -> None:
        _add(vars(self), names | {_WHOLE: True})

    def __getattr__(self, name: str) -> Any:
        """A name that nothing in the run was seen to use, so that it did not travel: from the module's file."""
        if name.startswith("__") or self.__spec__ is None or _WHOLE in vars(self):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        try:
            return getattr(self._rest(), name)
        except Exception as error:
            raise AttributeError(f"module {self.__name__!r}: {name!r} did not travel with the run ({error!r})") from error

    def _rest(self) -> types.ModuleType:
        """The module as its file now is, executed beside this one, once."""
        if _REST not in vars(self):
            spec = self.__spec__
            assert spec is not None and spec.loader is not None
            vars(self)[_REST] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(vars(self)[_REST])
        rest: types.ModuleType = vars(self)[_REST]
        return rest


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
                "offer_source": _offer_source,
            }

    def replace(self, function: T) -> T | Callable[..., Any]:
        """What to call in place of a function of cloudpickle's or of this module's."""
        return self._replaced.get(getattr(function, "__name__", ""), function)

    def _make_class(self, kind: Any, name: str, bases: Any, kwargs: Any, tracker: str, extra: Any) -> type:
        arguments = (kind, name, bases, kwargs, tracker, None)
        return self._resident(tracker, extra) or self._made(extra, bases, cloudpickle._make_skeleton_class, arguments)

    def _make_enum(self, bases: Any, *arguments: Any) -> type:
        *_, tracker, extra = arguments
        arguments = (bases, *arguments[:-1], None)
        return self._resident(tracker, extra) or self._made(extra, bases, cloudpickle._make_skeleton_enum, arguments)

    def _made(self, extra: Any, bases: Any, make: Callable[..., type], arguments: tuple[Any, ...]) -> type:
        made = _without_subclass_hook(types.resolve_bases(bases), lambda: make(*arguments))
        if extra:
            self._homes[made] = extra["home"]
        return made

    def _resident(self, tracker: str, extra: dict[str, Any] | None) -> type | None:
        """The class that is to be used instead: the one of that name here, or the very class that was pickled."""
        found = None
        if extra:
            home = extra["home"] if self._as_submitted else _same_module(extra["home"])
            found = find_class(home, extra["qualname"])
        found = found or cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.get(tracker)
        if found is not None:
            self._residents.add(found)
        return found

    def _fill_class(self, cls: type, state: tuple[dict[str, Any], dict[str, Any]]) -> type:
        if cls in self._residents:
            return cls
        cloudpickle._class_setstate(cls, state)
        for name, attributes in state[1].get("members", {}).items():
            vars(cls._member_map_[name]).update(attributes)  # type: ignore[attr-defined]
        if self._as_submitted and cls in self._homes:
            _add(vars(self._homes[cls]), {cls.__name__: cls} if "." not in cls.__qualname__ else {})
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
    theirs, ours = (PurePath(getattr(module, "__file__", None) or "").name for module in (home, here))
    return here if theirs == ours else None


def _without_subclass_hook(bases: Sequence[type], make: Callable[[], T]) -> T:
    """Make a class without ``__init_subclass__`` of bases that travelled.

    It did its work where the class was defined, and that came along; here the class is still empty and its keyword
    arguments are unknown.
    """
    ancestors = (cls for base in bases for cls in base.__mro__)
    owner = next((cls for cls in ancestors if "__init_subclass__" in vars(cls)), object)
    if owner not in cloudpickle._DYNAMIC_CLASS_TRACKER_BY_CLASS:
        return make()
    hook = vars(owner)["__init_subclass__"]
    owner.__init_subclass__ = classmethod(lambda cls, **kwargs: None)  # type: ignore[assignment, method-assign]
    try:
        return make()
    finally:
        owner.__init_subclass__ = hook  # type: ignore[method-assign]


def _fill_function(function: types.FunctionType, state: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """A function's globals are its module's: what is there already is newer than what this pickle remembers."""
    attributes, slots = state
    _add(function.__globals__, slots["__globals__"])
    cloudpickle._function_setstate(function, (attributes, slots | {"__globals__": {}}))


def _make_module(name: str, about: dict[str, Any]) -> types.ModuleType:
    """The module of that name that travelled; its names follow."""
    if PARENT not in about:
        module: types.ModuleType = cloudpickle.dynamic_subimport(name, about)  # made by hand, never imported
        return module
    parent = about.pop(PARENT)
    if name not in _carried:
        carried = _carried[name] = CarriedModule(name)
        vars(carried).update(about, __builtins__=__builtins__)
        carried.__spec__ = _spec(name, about)
        if name == "__main__" or name not in sys.modules:
            sys.modules[name] = carried
        if parent is not None:
            _add(vars(parent), {name.rpartition(".")[2]: carried})
    return _carried[name]


def _spec(name: str, about: dict[str, Any]) -> ModuleSpec | None:
    if name == "__main__":
        return None
    folders = about.get("__path__")
    spec = importlib.util.spec_from_file_location(name, about.get("__file__"), submodule_search_locations=folders)
    return spec or ModuleSpec(name, None, is_package=folders is not None)


def _add(names: dict[str, Any], more: dict[str, Any]) -> None:
    for name, value in more.items():
        names.setdefault(name, value)


class _SourceLoader(SourceFileLoader):
    def get_code(self, fullname: str) -> types.CodeType:
        return compile(_sources[fullname].text, self.path, "exec", dont_inherit=True)


class _SourceFinder:
    """Finds the modules that came as their source."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name not in _sources:
            return None
        source = _sources[name]
        folders = [str(PurePath(source.path).parent)] if source.is_package else None
        loader = _SourceLoader(name, source.path)
        return importlib.util.spec_from_file_location(name, source.path, loader=loader, submodule_search_locations=folders)


def _offer_source(*source: Any) -> None:
    _sources[source[0]] = Source(*source)
    if _SourceFinder not in sys.meta_path:
        sys.meta_path.insert(0, _SourceFinder)  # type: ignore[arg-type]
