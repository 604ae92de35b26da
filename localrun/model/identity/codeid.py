"""What belongs to a function's code: what functions and classes are made of.

Owns the reach of code: from a function to the globals, modules and imports that it uses, from a class to its
attributes. Whose a module is says ``ownership``. Turning that reach into a fingerprint is ``fingerprint``'s; reading
instructions is ``bytecode``'s.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from functools import cache
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from localrun.model.identity.bytecode import canonical
from localrun.model.identity.ownership import is_user_module

# What the import system and the interpreter put into a module: it says where the code lies, not what it does.
_OF_THE_MODULE = frozenset(
    {"__name__", "__file__", "__doc__", "__path__", "__package__"}
    | {"__spec__", "__loader__", "__cached__", "__builtins__", "__annotations__"}
)
# What the interpreter, abc, copyreg, dataclasses and enum keep in a class: texts, positions, caches, and annotations,
# which matter only through what was made from them. Slots are seen as descriptors.
_OF_THE_CLASS = frozenset(
    {"__module__", "__doc__", "__dict__", "__weakref__", "__firstlineno__", "__static_attributes__"}
    | {"__annotations__", "__annotate__", "__annotate_func__", "__annotations_cache__"}
    | {"__slots__", "__slotnames__", "_abc_impl", "__dataclass_fields__", "__dataclass_params__"}
    | {"_value2member_map_", "_hashable_values_", "_unhashable_values_", "_unhashable_values_map_"}
)


def is_user_code(value: Any) -> bool:
    """True for a function or a class that was defined in the user's project, whatever module its decorators claim."""
    # functools.wraps copies __module__ from the wrapped function; the globals are where the code was written.
    name = value.__globals__.get("__name__") if isinstance(value, FunctionType) else value.__module__
    return not isinstance(name, str) or is_user_module(name)


class _Reach(NamedTuple):
    """The names through which a code object, with those nested in it, reaches other code."""

    reads: frozenset[str]
    names: frozenset[str]
    imports: bool


_reaches: WeakKeyDictionary[CodeType, _Reach] = WeakKeyDictionary()


def _reach(code: CodeType) -> _Reach:
    reach = _reaches.get(code)
    if reach is None:
        form = canonical(code)
        inner = [_reach(constant) for constant in form.constants if isinstance(constant, CodeType)]
        reach = _reaches[code] = _Reach(
            form.reads.union(*(each.reads for each in inner)),
            frozenset(form.names).union(*(each.names for each in inner)),
            bool(form.imports) or any(each.imports for each in inner),
        )
    return reach


def namespaces(fn: FunctionType) -> Iterator[tuple[str, dict[str, Any], frozenset[str]]]:
    """Where a function's code may look, and for which names: its globals, and the user's modules that it meets there.

    Which attribute is taken from which module isn't followed: every attribute's name in the code counts for every
    module, so ``h = helpers; h.f()`` is seen. With each comes what its names are prefixed with.
    """
    reach = _reach(fn.__code__)
    waiting: list[tuple[str, dict[str, Any], frozenset[str]]] = [("", fn.__globals__, reach.reads - _OF_THE_MODULE)]
    seen = set()
    for prefix, space, names in waiting:  # which grows
        yield prefix, space, names
        for name in sorted(name for name in names if isinstance(space.get(name), ModuleType)):
            module = space[name]
            if id(module) not in seen and is_user_module(module):
                seen.add(id(module))
                waiting.append((f"{prefix}{name}.", vars(module), reach.names - _OF_THE_MODULE))


def used_globals(fn: FunctionType) -> dict[str, Any]:
    """The globals that a function reads, by name, and under dotted names what it may take from the user's modules.

    Names that aren't globals (yet) are builtins or errors, and left out.
    """
    spaces = namespaces(fn)
    return {f"{prefix}{name}": space[name] for prefix, space, names in spaces for name in names if name in space}


class ImportedModule(NamedTuple):
    """A module of the user's that code imports when it is called: its source, compiled, and the names it imports."""

    name: str
    code: CodeType
    imports: tuple[str, ...]


def has_imports(fn: FunctionType) -> bool:
    """True if a function's code has import statements."""
    return _reach(fn.__code__).imports


def imports_of(fn: FunctionType) -> list[str]:
    """The full names that the import statements inside a function may load, installed ones left out."""
    if not has_imports(fn):
        return []
    from localrun.model.identity.imports import imported_names

    return _of_the_user(imported_names(fn.__code__, fn.__globals__.get("__package__")))


@cache  # without bound: modules that import each other must meet the same object again
def _compiled(name: str, package: bool, path: str, text: str) -> ImportedModule:
    from localrun.model.identity.imports import imported_names

    code = compile(text, path, "exec", dont_inherit=True)
    names = imported_names(code, name if package else name.rpartition(".")[0])
    return ImportedModule(name, code, tuple(_of_the_user(names)))


def imported_module(name: str) -> ImportedModule | None:
    """The user's module of that name as its file has it now, without importing it; None if there is none.

    Whether it was imported by now must not matter: the same call may be asked for before and after.
    """
    from localrun.model.identity.imports import find_source

    source = find_source(name)
    try:
        return source and _compiled(source.name, source.is_package, source.path, source.text)
    except (SyntaxError, ValueError):
        return None  # the import itself will say so


def _of_the_user(names: Iterable[str]) -> list[str]:
    found = set(names)
    tops = {name.partition(".")[0] for name in found} - sys.stdlib_module_names
    own = {top for top in tops if is_user_module(top)}
    return sorted(name for name in found if name.partition(".")[0] in own)


def class_attributes(cls: type) -> dict[str, Any]:
    """What a class's body and decorators made of it: its own attributes, without texts, annotations and caches."""
    return {name: value for name, value in vars(cls).items() if name not in _OF_THE_CLASS}


def wrapped(value: Any) -> Iterator[Any]:
    """The function behind a decorator's object, if it has one: its ``__wrapped__``."""
    try:
        holders = (value, *type(value).__mro__)
        if any("__wrapped__" in getattr(holder, "__dict__", ()) for holder in holders):
            yield value.__wrapped__
    except Exception:  # noqa: BLE001 - a proxy for something that isn't there now: it wraps nothing
        return
