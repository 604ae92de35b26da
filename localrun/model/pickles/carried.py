"""What travelled code finds in the place of its modules, in the process that executes it.

A module that travelled stands in ``sys.modules`` under its name, whole or in part; one that was not loaded when the run
was submitted came as its source and is executed when it is imported. `LeftBehind` stands for what could not travel.
"""

from __future__ import annotations

import sys
import types
from importlib.machinery import ModuleSpec, SourceFileLoader
from os.path import dirname

from localrun.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

PARENT = "__localrun_parent__"
_WHOLE = "__localrun_whole__"
_REST = "__localrun_rest__"


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


class CarriedModule(types.ModuleType):
    """A module that travelled with a run, whole or in part. (No methods: a module's own names would hide them.)"""

    def __setstate__(self, names: dict[str, Any]) -> None:
        add_names(self, names | {_WHOLE: True})

    def __getattr__(self, name: str) -> Any:
        """A name that nothing in the run was seen to use, so that it did not travel: from the module's file."""
        if name.startswith("__") or self.__name__ == "__main__" or _WHOLE in vars(self):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        try:
            return getattr(_rest(self), name)
        except Exception as error:
            message = f"module {self.__name__!r}: {name!r} did not travel with the run, and its file gives {error!r}"
            raise AttributeError(message) from error


def add_names(module: types.ModuleType, names: dict[str, Any]) -> None:
    """Add what the module doesn't have: what is in it stays when more of it arrives."""
    for name, value in names.items():
        vars(module).setdefault(name, value)


def _rest(module: CarriedModule) -> types.ModuleType:
    """The module as its file is now, executed beside the one that travelled, once."""
    if _REST not in vars(module):
        import importlib.util

        spec = module.__spec__
        assert spec is not None and spec.loader is not None
        vars(module)[_REST] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(vars(module)[_REST])
    rest: types.ModuleType = vars(module)[_REST]
    return rest


_modules: dict[str, CarriedModule] = {}


def carry_module(name: str, about: dict[str, Any]) -> CarriedModule:
    """The module of that name that travelled; its names follow. It doesn't replace one that was loaded here before."""
    parent = about.pop(PARENT)
    if name not in _modules:
        module = _modules[name] = CarriedModule(name)
        vars(module).update(about, __builtins__=__builtins__)
        module.__spec__ = _spec(name, about)
        if name == "__main__" or name not in sys.modules:
            sys.modules[name] = module
        if parent is not None:
            add_names(parent, {name.rpartition(".")[2]: module})
    return _modules[name]


def _spec(name: str, about: dict[str, Any]) -> ModuleSpec | None:
    if name == "__main__":
        return about.get("__spec__")
    import importlib.util  # a worker whose function came alone needs none of it

    folders = about.get("__path__")
    spec = importlib.util.spec_from_file_location(name, about.get("__file__"), submodule_search_locations=folders)
    return spec or ModuleSpec(name, None, is_package=folders is not None)


class Source(NamedTuple):
    """A module that was not loaded when the run was submitted: its text."""

    name: str
    path: str
    text: str
    is_package: bool


_sources: dict[str, Source] = {}


def offer_source(*source: Any) -> None:
    """What a pickle calls with a `Source`. Where a value is only read, it does nothing."""


def carry_source(*source: Any) -> None:
    """What is called instead where code is executed: from now on ``import`` executes this text for that name."""
    _sources[source[0]] = Source(*source)
    if _SourceFinder not in sys.meta_path:
        sys.meta_path.insert(0, _SourceFinder)


class _SourceFinder:
    """A finder on ``sys.meta_path``, for the modules that came as their source."""

    @staticmethod
    def find_spec(name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        source = _sources.get(name)
        if source is None:
            return None
        import importlib.util  # not before: its own import asks this finder, too

        folders = [dirname(source.path)] if source.is_package else None
        loader = _SourceLoader(name, source.path)
        return importlib.util.spec_from_file_location(name, loader=loader, submodule_search_locations=folders)


class _SourceLoader(SourceFileLoader):
    def get_code(self, fullname: str) -> types.CodeType:
        return compile(_sources[fullname].text, self.path, "exec", dont_inherit=True)
