"""How the user's classes arrive in a process: found there, or made empty and then filled, as cloudpickle does it.

A class that is at home in a module is looked up there first; which module that is, ``arrival`` says.
"""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Callable
from os.path import basename
from typing import Any, TypeVar

from cloudpickle import cloudpickle

from localrun.model.pickles.carried import add_names

T = TypeVar("T")

_unhooking = threading.Lock()


class Classes:
    """Those of one load. ``makers`` are what makes them, by the names that cloudpickle's have in a pickle."""

    def __init__(self, as_submitted: bool) -> None:
        self._as_submitted = as_submitted
        self._residents: set[type] = set()
        self._homes: dict[type, types.ModuleType] = {}
        self.makers: dict[str, Callable[..., Any]] = {
            "_make_skeleton_class": self._make_class,
            "_make_skeleton_enum": self._make_enum,
            "_class_setstate": self._fill_class,
        }

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
