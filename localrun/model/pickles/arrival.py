"""How the user's code arrives in a process: what stands behind the names in a pickle that ``travel`` wrote.

There are two ways to arrive. Where a value is *read* (a result, an exception, inputs), a class that the reading process
has already is used as it is, so that ``isinstance`` and ``except`` hold; all else stays private to the value. In the
process that *executes* (``as_submitted``) the code as submitted wins: its modules take their places in ``sys.modules``,
``__main__`` included, so that imports in functions, plain pickles and multiprocessing find the code that travelled and
not the files as they are by then. Modules that the process had loaded before stay where they are.

There functions and modules are made here, without cloudpickle: to import it would take a worker longer than to start,
and nearly half of its memory. Classes, and whatever else needs it, load it: see ``classes``.
"""

from __future__ import annotations

import sys
import types

from localrun.model.pickles.carried import PARENT, carry_module, carry_source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_HEAPTYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: a class that was made by Python code


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
    """One load: what is called in place of the functions that make code, by their names in the pickle."""

    def __init__(self, as_submitted: bool) -> None:
        self._as_submitted = as_submitted
        self._makers: dict[str, Callable[..., Any]] = dict(_EXECUTED) if as_submitted else {}

    def find(self, name: str) -> Callable[..., Any] | None:
        """What to call in place of cloudpickle's or ``carried``'s function of that name; None: that itself."""
        if name in _OF_CLASSES and name not in self._makers:
            from localrun.model.pickles.classes import Classes

            self._makers |= Classes(self._as_submitted).makers
        return self._makers.get(name)


def _import(name: str) -> types.ModuleType:
    __import__(name)
    return sys.modules[name]


def _make_module(name: str, about: dict[str, Any]) -> types.ModuleType:
    if PARENT in about:
        return carry_module(name, about)
    from cloudpickle import cloudpickle

    module: types.ModuleType = cloudpickle.dynamic_subimport(name, about)  # made by hand, never imported
    return module


def _make_function(code: types.CodeType, namespace: dict[str, Any], *others: Any) -> types.FunctionType:
    namespace.setdefault("__builtins__", __builtins__)
    return types.FunctionType(code, namespace, *others)


def _fill_function(function: types.FunctionType, state: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """A function's globals are its module's: what is there already is newer than what this pickle remembers."""
    attributes, slots = state
    vars(function).update(attributes)
    for name, value in slots.pop("__globals__").items():
        function.__globals__.setdefault(name, value)
    del slots["_cloudpickle_submodules"]  # imported by now
    for cell, filled in zip(function.__closure__ or (), slots.pop("__closure__") or (), strict=True):
        try:
            cell.cell_contents = filled.cell_contents
        except ValueError:
            pass  # nothing had been assigned to it yet
    for name, value in slots.items():
        setattr(function, name, value)


_OF_CLASSES = frozenset({"_make_skeleton_class", "_make_skeleton_enum", "_class_setstate"})
_EXECUTED: dict[str, Callable[..., Any]] = {
    "_builtin_type": lambda name: getattr(types, name),
    "_make_cell": types.CellType,
    "_make_empty_cell": types.CellType,
    "_make_function": _make_function,
    "_function_setstate": _fill_function,
    "subimport": _import,
    "dynamic_subimport": _make_module,
    "offer_source": carry_source,
}
