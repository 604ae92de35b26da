"""A remembered fingerprint holds until something that the code is made of changes, however it does."""

from __future__ import annotations

import gc
import importlib
import sys
import types
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import localrun
from localrun.model.identity import remembered
from localrun.model.identity.fingerprint import code_fingerprint

HELPERS = """
FACTOR = 2
def deeper(x): return x + FACTOR
def helper(x, y=1, *, z=2): return deeper(x) * y * z
def other(x, y=1, *, z=2): return deeper(x) - y - z
"""
MAIN = """
import functools, math
import project_helpers as helpers
from math import sqrt
from project_helpers import helper
SCALE, TABLE, LIST, CHOICES = 3, {"a": 1}, [1, 2], {1, 2}
class Base: rate = 1
@functools.lru_cache
def cached(x): return x
def make(n):
    def inner(x): return x * n
    return inner
inner = make(2)
def f(x, y=2, *, z=3):
    return helper(x) * SCALE + helpers.deeper(y) + sqrt(math.pi) + inner(x) + cached(x) + TABLE["a"] + LIST[0] + z
def of_class(x): return x * Base.rate
def of_set(x): return x in CHOICES
def importing(x):
    import project_helpers
    return project_helpers.helper(x)
"""


@pytest.fixture
def main(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module of the user's that uses another one."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "project_helpers.py").write_text(HELPERS)
    (tmp_path / "project_main.py").write_text(MAIN)
    yield importlib.import_module("project_main")
    for name in ("project_main", "project_helpers"):
        sys.modules.pop(name, None)


def reload_changed(main: Any) -> None:
    path = Path(main.helpers.__file__)
    path.write_text(path.read_text().replace("FACTOR = 2", "FACTOR = 22"))
    importlib.reload(main.helpers)


def put_in_place(main: Any) -> None:
    main.helpers = types.ModuleType("project_helpers")
    main.helpers.deeper = lambda y: y  # type: ignore[attr-defined]


CHANGES: dict[str, Callable[[Any], object]] = {
    "constant": lambda main: setattr(main, "SCALE", 4),
    "type of constant": lambda main: setattr(main, "SCALE", 3.0),
    "constant deleted": lambda main: delattr(main, "SCALE"),
    "global that was a builtin's name": lambda main: setattr(main, "sqrt", abs),
    "helper": lambda main: setattr(main, "helper", main.helpers.other),
    "helper's helper": lambda main: setattr(main.helpers, "deeper", lambda x: x),
    "helper's constant": lambda main: setattr(main.helpers, "FACTOR", 5),
    "own code": lambda main: setattr(main.f, "__code__", (lambda x, y=2, *, z=3: x).__code__),
    "helper's code": lambda main: setattr(main.helper, "__code__", main.helpers.other.__code__),
    "own defaults": lambda main: setattr(main.f, "__defaults__", (7,)),
    "helper's defaults": lambda main: setattr(main.helper, "__defaults__", (7,)),
    "own keyword defaults": lambda main: setattr(main.f, "__kwdefaults__", {"z": 8}),
    "keyword default in place": lambda main: main.f.__kwdefaults__.update(z=8),
    "helper's keyword default": lambda main: main.helper.__kwdefaults__.update(z=8),
    "cell": lambda main: setattr(main.inner.__closure__[0], "cell_contents", 9),
    "cell emptied": lambda main: delattr(main.inner.__closure__[0], "cell_contents"),
    "closure": lambda main: setattr(main, "inner", main.make(3)),
    "wrapped function": lambda main: setattr(main.cached, "__wrapped__", lambda x: x + 1),
    "code below a wrapper": lambda main: setattr(main.cached.__wrapped__, "__code__", (lambda x: x + 1).__code__),
    "wrapped by hand": lambda main: setattr(main.helper, "__wrapped__", main.helpers.other),
    "dict in place": lambda main: main.TABLE.update(a=2),
    "key of a dict": lambda main: main.TABLE.update(b=1),
    "list in place": lambda main: main.LIST.append(3),
    "item of a list": lambda main: main.LIST.__setitem__(0, 5),
    "list cut": lambda main: main.LIST.pop(),
    "module replaced": put_in_place,
    "module reloaded": reload_changed,
    "module attribute deleted": lambda main: delattr(main.helpers, "deeper"),
    "global made mutable": lambda main: setattr(main, "SCALE", bytearray(b"3")),
}
OF_OTHERS: dict[str, tuple[str, Callable[[Any], object]]] = {
    "class attribute": ("of_class", lambda main: setattr(main.Base, "rate", 2)),
    "set in place": ("of_set", lambda main: main.CHOICES.add(3)),
    "file of an import": ("importing", reload_changed),
}
ALL = [pytest.param("f", change, id=name) for name, change in CHANGES.items()]
ALL += [pytest.param(name, change, id=of) for of, (name, change) in OF_OTHERS.items()]


@pytest.mark.parametrize(("name", "change"), ALL)
def test_change_is_noticed(main: Any, name: str, change: Callable[[Any], object]) -> None:
    fn = getattr(main, name)
    before = remembered.code_seen(fn, None)
    assert before.fingerprint == code_fingerprint(fn)
    change(main)
    after = remembered.code_seen(fn, before)
    assert after.fingerprint == code_fingerprint(fn) != before.fingerprint
    assert remembered.code_seen(fn, after).fingerprint == after.fingerprint


@pytest.mark.parametrize("name", ["f", "of_set", "inner", "helper", "make"])
def test_unchanged_is_not_computed_anew(main: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fn = getattr(main, name)
    before = remembered.code_seen(fn, None)
    monkeypatch.setattr(remembered, "code_fingerprint", lambda fn: pytest.fail("computed anew"))
    assert remembered.code_seen(fn, before) is before


@pytest.mark.parametrize(
    "value", [bytearray(b"x"), types.SimpleNamespace(a=1), [[object()]], {"a": iter(())}], ids=type
)
def test_what_is_not_known_is_not_remembered(main: Any, value: object) -> None:
    main.SCALE = value
    seen = remembered.code_seen(main.f, None)
    assert (seen.looks, seen.fingerprint) == (None, code_fingerprint(main.f))


def test_change_while_it_is_computed_is_not_remembered(main: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def compute(fn: Any) -> str:
        main.SCALE += 1
        return code_fingerprint(fn)

    monkeypatch.setattr(remembered, "code_fingerprint", compute)
    assert not remembered.code_seen(main.f, None).holds()


def recursive_function() -> Any:
    """A function that its own closure refers to."""

    def recursive(n: int) -> Any:
        return n and recursive(n - 1)

    return localrun.function(recursive)


def test_a_function_goes_away_with_what_is_remembered_of_it() -> None:
    function = recursive_function()
    function._fingerprints((1,), {})
    assert function._code_seen.holds() and "_code_seen" not in vars(function)
    gone = weakref.ref(function.fn)
    del function
    gc.collect()
    assert gone() is None
