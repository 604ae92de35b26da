"""What code imports when it is called: the full names, and the source of modules that are not loaded yet.

Only looks at code and files: nothing is imported or executed for it. Reading bytecode is ``bytecode``'s.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from itertools import accumulate
from opcode import opmap
from pathlib import Path
from types import CodeType

from localrun.model.identity.bytecode import LocalImport, canonical
from localrun.model.identity.ownership import is_user_module
from localrun.model.pickles.carried import Source

_IMPORT_NAME = opmap["IMPORT_NAME"]


def imported_names(code: CodeType, package: str | None) -> Iterator[str]:
    """What import statements in code and in functions inside it may load: modules after their parents, and names."""
    if _IMPORT_NAME in code.co_code[::2]:  # a cheap look first: the canonical form takes a while
        for statement in canonical(code).imports:
            yield from _names(statement, package)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from imported_names(constant, package)


def _names(statement: LocalImport, package: str | None) -> Iterator[str]:
    try:
        name = importlib.util.resolve_name("." * statement.level + statement.name, package)
    except ImportError:
        return  # beyond the top level: the import itself will say so
    yield from _with_parents(name)
    yield from (f"{name}.{each}" for each in statement.names)


def names_imported_by(source: Source) -> list[str]:
    """As `imported_names`, for a module that isn't loaded; nothing if it doesn't compile."""
    package = source.name if source.is_package else source.name.rpartition(".")[0]
    try:
        return list(imported_names(compile(source.text, source.path, "exec", dont_inherit=True), package))
    except (SyntaxError, ValueError):
        return []  # the import itself will say so


def find_source(name: str) -> Source | None:
    """The source of a module of the user's that is not loaded; None for one that is installed or isn't found."""
    spec, folders = None, None
    for each in _with_parents(name):
        if spec is not None and folders is None:
            return None  # the parent is a module, not a package
        spec = _find_spec(each, folders)
        if spec is None:
            return None
        folders = spec.submodule_search_locations
    if spec is None or not str(spec.origin).endswith(".py"):
        return None
    try:
        if not is_user_module(importlib.util.module_from_spec(spec)):
            return None
        text = importlib.util.decode_source(Path(str(spec.origin)).read_bytes())
    except (ImportError, OSError, SyntaxError, UnicodeError):
        return None
    return Source(name, str(spec.origin), text, is_package=folders is not None)


def _find_spec(name: str, folders: list[str] | None) -> ModuleSpec | None:
    """As ``importlib.util.find_spec``, which would import the parents."""
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(name, folders)
        except Exception:  # noqa: BLE001, S112 - a finder's own trouble is for the import to show
            continue
        if spec is not None:
            return spec
    return None


def _with_parents(name: str) -> Iterator[str]:
    return accumulate(name.split("."), "{}.{}".format)
