"""Values and inputs: which are the same, which differ, and that every process agrees."""

from __future__ import annotations

import array
import collections
import copy
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import importlib.util
import operator
import os
import pathlib
import pickle
import random
import re
import subprocess
import sys
import threading
import types
import uuid
import zoneinfo
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from localrun.errors import PayloadError
from localrun.model.identity.fingerprint import code_fingerprint, inputs_fingerprint, value_fingerprint

REPOSITORY = Path(__file__).resolve().parents[3]


class Point(NamedTuple):
    x: int
    y: int


class Place(NamedTuple):
    x: int
    y: int


@dataclasses.dataclass
class Config:
    rate: float = 0.1
    layers: list[int] = dataclasses.field(default_factory=list)

    @functools.cached_property
    def total(self) -> int:
        return sum(self.layers)


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    name: str
    size: int = 1


class Color(enum.Enum):
    RED = 1
    ROSE = 2


class Level(enum.IntEnum):
    RED = 1


class Mode(enum.Flag):
    READ = 1
    WRITE = 2


class Thing:
    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)

    def method(self) -> None:
        pass


class Slotted:
    __slots__ = ("a", "b")

    def __init__(self, a: Any) -> None:
        self.a = a


class Reduced:
    def __init__(self, value: Any) -> None:
        self.value = value

    def __reduce__(self) -> Any:
        return Reduced, (self.value,)


class Number(int):
    pass


class Tags(set):  # type: ignore[type-arg]
    pass


class Node:
    def __init__(self, value: Any) -> None:
        self.value = value
        self.near: set[Node] = set()


def same_name(module: str) -> Any:
    return type("Same", (), {"__module__": module})()


def ring(*values: Any) -> Node:
    """Nodes that all know each other, through sets whose order is that of addresses."""
    nodes = [Node(value) for value in values]
    for node in nodes:
        node.near = {other for other in nodes if other is not node}
    return nodes[0]


def endless_list(*more: Any) -> list[Any]:
    made: list[Any] = []
    made.extend((made, *more))
    return made


def plain(x: int) -> int:
    return x + 1


def like_plain(x: int) -> int:
    return x + 2


NAN = float("nan")
UTC = datetime.UTC
GRID = np.arange(12, dtype=np.float64).reshape(3, 4)
PADDED = np.dtype([("a", "i1"), ("b", "f8")], align=True)


def padded(fill: int) -> Any:
    """An array of structures whose gaps hold ``fill``."""
    raw = np.full(2 * PADDED.itemsize, fill, np.uint8).view(PADDED)
    raw["a"], raw["b"] = [1, 2], [3.0, 4.0]
    return raw


def objects(*values: Any) -> Any:
    made = np.empty(len(values), object)
    made[:] = values
    return made


A = [1, 2]

EQUAL: list[tuple[Any, Any]] = [
    (NAN, float("nan")),
    ({1, 2, 3}, {3, 2, 1}),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    ({"a": {"x", "y"}, "b": 0}, {"b": 0, "a": {"y", "x"}}),
    ([A, A], [A, copy.copy(A)]),
    ([A, (A, {"k": A})], [[1, 2], ([1, 2], {"k": [1, 2]})]),
    (10**5000, 10**5000),
    ("x" * 1000, "x" * 1000),
    (Point(1, 2), Point(1, 2)),
    (Config(layers=[1]), Config(layers=[1])),
    (Frozen("a"), Frozen("a", 1)),
    (Mode.READ | Mode.WRITE, Mode.WRITE | Mode.READ),
    (Thing(a=1, b=2), Thing(b=2, a=1)),
    (Slotted(1), Slotted(1)),
    (Reduced({1, 2}), Reduced({2, 1})),
    (Tags("abc"), Tags("cba")),
    (collections.Counter("aab"), collections.Counter("baa")),
    (collections.defaultdict(list, a=1), collections.defaultdict(list, a=1)),
    (collections.deque([1, 2], 3), collections.deque([1, 2], 3)),
    (pathlib.Path("a//b"), pathlib.Path("a/b")),
    (pathlib.Path("a", "b"), pathlib.Path("a/b")),
    (functools.partial(plain, x=1), functools.partial(plain, x=1)),
    (Thing(a=1).method, Thing(a=1).method),
    (random.random, random.random),
    (np.random.rand, np.random.rand),
    (endless_list(), endless_list()),
    (endless_list(1), copy.deepcopy(endless_list(1))),
    ([endless_list()], endless_list()),
    (ring(1, 2, 3, 4), ring(1, 4, 3, 2)),
    (GRID, np.asfortranarray(GRID)),
    (GRID, GRID.copy()),
    (GRID[:, ::2], GRID[:, ::2].copy()),
    (GRID[::-1], GRID[::-1].copy()),
    (GRID.T, np.ascontiguousarray(GRID.T)),
    (np.broadcast_to(np.float64(1), (3, 4)), np.ones((3, 4))),
    (padded(0), padded(255)),
    (objects([1], {2}, None), objects([1], {2}, None)),
    (np.array(5), np.array(5)),
    (np.array(["a", "bb"]), np.array(["a", "bb"])),
    (np.dtype("f8"), np.dtype(np.float64)),
    (np.ma.array([1, 2], mask=[0, 1]), np.ma.array([1, 2], mask=[0, 1])),
    (re.compile("a"), re.compile("a")),
    (memoryview(b"abc"), memoryview(b"abc")),
    ({1: 2}.keys(), {1: 3}.keys()),
]

DIFFERENT: list[tuple[Any, Any]] = [
    (1, 1.0),
    (1, True),
    (0, False),
    (0, None),
    (1.0, True),
    (1.0, 1 + 0j),
    (0.0, -0.0),
    (0j, complex(0, -0.0)),
    (1, "1"),
    (1, -1),
    ("a", b"a"),
    (b"a", bytearray(b"a")),
    (b"a" * 100, bytearray(b"a" * 100)),
    ("a" * 100, "a" * 101),
    ("\ud83d\ude00", "\U0001f600"),
    ("é", "e\u0301"),
    ([1], (1,)),
    ([], ()),
    ([], {}),
    ([], None),
    (set(), frozenset()),
    (set(), []),
    ({1}, {True}),
    ({1: "a"}, {True: "a"}),
    ({1: "a"}, {1.0: "a"}),
    ({"a": 1, "b": 2}, {"a": 2, "b": 1}),
    ({"a": "b"}, {"b": "a"}),
    ({"a": 1}, [("a", 1)]),
    ([1, 2], [2, 1]),
    ([[1], 2], [1, [2]]),
    ([[1, 2]], [1, 2]),
    ([[], [1]], [[1], []]),
    (["ab", "c"], ["a", "bc"]),
    ([["a"], "b"], [["a", "b"]]),
    ({("a", "b")}, {"a", "b"}),
    (["s1"], ["s", "1"]),
    (Ellipsis, NotImplemented),
    (range(3), [0, 1, 2]),
    (range(3), range(4)),
    (slice(1), slice(1, None, 1)),
    (Point(1, 2), (1, 2)),
    (Point(1, 2), Place(1, 2)),
    (Point(1, 2), Point(2, 1)),
    (Config(), Config(rate=0.2)),
    (Config(layers=[1]), Config(layers=[2])),
    (Config(), {"rate": 0.1, "layers": []}),
    (Frozen("a"), Frozen("b")),
    (Color.RED, Color.ROSE),
    (Color.RED, Level.RED),
    (Level.RED, 1),
    (Mode.READ, Mode.READ | Mode.WRITE),
    (Thing(), Thing(a=1)),
    (Thing(a=1), Thing(a=2)),
    (Thing(a=1), Reduced(1)),
    (Slotted(1), Slotted(2)),
    (Reduced(1), Reduced(2)),
    (Number(1), 1),
    (Number(1), Number(2)),
    (Tags("ab"), set("ab")),
    (Tags("ab"), Tags("abc")),
    (same_name("one"), same_name("two")),
    (collections.OrderedDict(a=1, b=2), collections.OrderedDict(b=2, a=1)),
    (collections.OrderedDict(a=1), {"a": 1}),
    (collections.defaultdict(list), collections.defaultdict(set)),
    (collections.deque([1], 3), collections.deque([1], 4)),
    (collections.Counter("ab"), {"a": 1, "b": 1}),
    (decimal.Decimal("1.0"), decimal.Decimal("1.00")),
    (decimal.Decimal(1), 1),
    (fractions.Fraction(1, 2), 0.5),
    (fractions.Fraction(1, 2), fractions.Fraction(1, 3)),
    (datetime.datetime(2024, 1, 1), datetime.datetime(2024, 1, 1, tzinfo=UTC)),
    (datetime.datetime(2024, 1, 1), datetime.date(2024, 1, 1)),
    (
        datetime.datetime(2024, 1, 1, tzinfo=zoneinfo.ZoneInfo("UTC")),
        datetime.datetime(2024, 1, 1, tzinfo=zoneinfo.ZoneInfo("Etc/GMT+1")),
    ),
    (datetime.datetime(2024, 1, 1, fold=0), datetime.datetime(2024, 1, 1, fold=1)),
    (datetime.time(1), datetime.time(1, tzinfo=UTC)),
    (datetime.timedelta(1), datetime.timedelta(2)),
    (pathlib.Path("a"), pathlib.PurePosixPath("a")),
    (pathlib.Path("a"), pathlib.Path("b")),
    (pathlib.Path("a"), "a"),
    (uuid.UUID(int=1), uuid.UUID(int=2)),
    (int, float),
    (int, "int"),
    (Color, Level),
    (list[int], list[str]),
    (plain, like_plain),
    (len, abs),
    (plain, len),
    (functools.partial(plain, 1), functools.partial(plain, 2)),
    (functools.partial(plain, 1), functools.partial(like_plain, 1)),
    (Thing(a=1).method, Thing(a=2).method),
    ([1].append, [2].append),
    ("a".join, "a".split),
    (operator.itemgetter(1), operator.itemgetter(2)),
    (re.compile("a"), re.compile("a", re.IGNORECASE)),
    (ValueError("a"), ValueError("b")),
    (ValueError("a"), TypeError("a")),
    (array.array("i", [1]), array.array("l", [1])),
    (types.SimpleNamespace(a=1), types.SimpleNamespace(a=2)),
    (sys, os),
    (endless_list(), endless_list(1)),
    (endless_list(1), endless_list(2)),
    (endless_list(), [[]]),
    (ring(1, 2, 3), ring(1, 2, 4)),
    (ring(1, 2, 3), ring(2, 1, 3)),
    (ring(1, 1, 1), ring(1, 1, 1, 1)),
    (GRID, GRID.astype(np.float32)),
    (GRID, GRID.astype(">f8")),
    (GRID, GRID.reshape(4, 3)),
    (GRID, GRID.T),
    (GRID, GRID.tolist()),
    (GRID, GRID + np.eye(3, 4) * 1e-12),
    (np.zeros((0, 3)), np.zeros((3, 0))),
    (np.zeros(1), np.array(0.0)),
    (np.array(0.0), np.float64(0)),
    (np.float64(0), 0.0),
    (np.float64(0), np.float32(0)),
    (np.array([0.0]), np.array([-0.0])),
    (np.int64(1), 1),
    (np.bool_(True), True),
    (np.array(["a"]), np.array(["a"], object)),
    (np.str_("a"), "a"),
    (np.zeros(2, "M8[s]"), np.zeros(2, "M8[ns]")),
    (np.datetime64("2024", "Y"), np.datetime64("2024-01", "M")),
    (padded(0), padded(0)[:1]),
    (np.zeros(1, [("a", "i4"), ("b", "i4")]), np.zeros(1, [("b", "i4"), ("a", "i4")])),
    (objects([1]), objects([2])),
    (objects(1), objects(1.0)),
    (np.dtype("f8"), np.dtype(">f8")),
    (np.dtype("f8"), np.float64),
    (np.ma.array([1, 2], mask=[0, 1]), np.ma.array([1, 2], mask=[1, 0])),
    (np.rec.array([(1,)], dtype=[("a", "i4")]), np.array([(1,)], dtype=[("a", "i4")])),
    (np.random.default_rng(0), np.random.default_rng(1)),
    (np.exp, np.log),
]


if importlib.util.find_spec("torch") is not None:  # not among the libraries that tests install
    import torch

    T = torch.arange(12.0).reshape(3, 4)
    EQUAL += [
        (T, T.clone()),
        (T.T, T.T.contiguous()),
        (T[:, ::2], T[:, ::2].clone()),
        (torch.nn.Parameter(T), torch.nn.Parameter(T.clone())),
        (T.to(torch.bfloat16), T.to(torch.bfloat16)),
        (torch.view_as_complex(T.reshape(6, 2)).conj(), torch.view_as_complex(T.reshape(6, 2)).conj().resolve_conj()),
        (torch.tensor(1.0), torch.tensor(1.0)),
        (torch.zeros(0, 3), torch.zeros(0, 3)),
        (T.to_sparse(), T.clone().to_sparse()),
        ({"w": T, "b": [T]}, {"b": [T.clone()], "w": T.clone()}),
    ]
    DIFFERENT += [
        (T, T + 1e-6),
        (T, T.T),
        (T, T.reshape(4, 3)),
        (T, T.double()),
        (T, T.numpy()),
        (T, torch.nn.Parameter(T)),
        (T, T.clone().requires_grad_()),
        (T, T.to_sparse()),
        (torch.zeros(0, 3), torch.zeros(3, 0)),
        (torch.float32, torch.float64),
    ]


if importlib.util.find_spec("pandas") is not None:
    import pandas as pd

    TABLE = pd.DataFrame({"a": [1, 2, 3], "b": [4, 5, 6], "c": [0.5, None, 1.0]})
    PIECEWISE = pd.DataFrame({"a": [1, 2, 3]})
    PIECEWISE["b"], PIECEWISE["c"] = [4, 5, 6], [0.5, None, 1.0]
    DAYS = pd.date_range("2024", periods=3, tz="UTC")
    EQUAL += [
        (TABLE, TABLE.copy()),
        (TABLE, PIECEWISE),
        (TABLE.iloc[1:], TABLE.iloc[1:].copy()),
        (TABLE[TABLE.a > 1], TABLE.iloc[1:]),
        (TABLE["a"], PIECEWISE["a"]),
        (pd.Series(DAYS), pd.Series(DAYS)),
        (pd.Series([1, None], dtype="Int64"), pd.Series([1, None], dtype="Int64")),
        (pd.Categorical(["a", "b"]), pd.Categorical(["a", "b"])),
        (pd.MultiIndex.from_tuples([(1, "a")]), pd.MultiIndex.from_tuples([(1, "a")])),
        (pd.Timestamp("2024", tz="UTC"), pd.Timestamp("2024", tz="UTC")),
    ]
    DIFFERENT += [
        (TABLE, TABLE.assign(a=[1, 2, 4])),
        (TABLE, TABLE.astype({"a": "int32"})),
        (TABLE, TABLE.rename(columns={"a": "z"})),
        (TABLE, TABLE[["b", "a", "c"]]),
        (TABLE, TABLE.set_index([[1, 2, 3]])),
        (TABLE, TABLE.to_numpy()),
        (TABLE["a"], TABLE["a"].rename("b")),
        (TABLE["a"], TABLE["a"].to_numpy()),
        (pd.Series(DAYS), pd.Series(DAYS.tz_convert("Etc/GMT+1"))),
        (pd.Categorical(["a", "b"]), pd.Categorical(["a", "b"], ordered=True)),
        (pd.NaT, pd.NA),
    ]


def identified(pairs: list[tuple[Any, Any]]) -> list[Any]:
    return [pytest.param(*pair, id=f"{i}-{type(pair[0]).__name__}") for i, pair in enumerate(pairs)]


@pytest.mark.parametrize(("one", "other"), identified(EQUAL))
def test_equal_values_have_one_fingerprint(one: Any, other: Any) -> None:
    assert value_fingerprint(one) == value_fingerprint(other)
    assert value_fingerprint([one, {"k": other}]) == value_fingerprint([other, {"k": one}])


@pytest.mark.parametrize(("one", "other"), identified(DIFFERENT))
def test_different_values_have_different_fingerprints(one: Any, other: Any) -> None:
    assert value_fingerprint(one) != value_fingerprint(other)
    assert value_fingerprint((one, other)) != value_fingerprint((other, one))


def test_no_two_values_of_the_tables_collide() -> None:
    values = [value for pair in DIFFERENT for value in pair]
    by_digest = collections.defaultdict(set)
    for value in values:
        by_digest[value_fingerprint(value)].add(f"{type(value).__name__} {value!r}")
    # Some stand in the table more than once, and addresses are in some texts.
    assert {len({re.sub("0x[0-9a-f]+", "", text) for text in texts}) for texts in by_digest.values()} == {1}


def test_a_copy_through_a_pickle_is_the_same() -> None:
    checked = 0
    for value in [value for pair in [*EQUAL, *DIFFERENT] for value in pair]:
        # Pickling itself changes these: the method of another object, the native byte order, a fill value.
        if value in (random.random, np.random.rand) if callable(value) else isinstance(value, np.ma.MaskedArray):
            continue
        if isinstance(value, np.ndarray) and not value.dtype.isnative:
            continue
        try:
            copied = pickle.loads(pickle.dumps(value))
        except (TypeError, pickle.PicklingError, AttributeError, ImportError):
            continue  # only cloudpickle can
        assert value_fingerprint(copied) == value_fingerprint(value), value
        checked += 1
    assert checked > 250


def test_memory_map_is_the_array_in_it(tmp_path: Path) -> None:
    np.save(tmp_path / "grid.npy", GRID)
    assert value_fingerprint(np.load(tmp_path / "grid.npy", mmap_mode="r")) == value_fingerprint(GRID)


def test_big_array_in_another_order_is_read_in_blocks() -> None:
    big = np.arange(6_000_000, dtype=np.float64).reshape(2000, 3000)
    assert value_fingerprint(np.asfortranarray(big)) == value_fingerprint(big)


def test_padding_of_long_doubles_does_not_count() -> None:
    one, other = np.full(32, 0, np.uint8).view(np.longdouble), np.full(32, 255, np.uint8).view(np.longdouble)
    one[:], other[:] = 1.5, 1.5
    assert value_fingerprint(one) == value_fingerprint(other)


def test_cached_property_is_no_state() -> None:
    config = Config(layers=[1, 2])
    before = value_fingerprint(config)
    assert config.total == 3
    assert value_fingerprint(config) == before


def test_sharing_does_not_cost_more_than_it_holds() -> None:
    value: list[Any] = []
    for _ in range(200):
        value = [value, value]
    assert value_fingerprint(value) == value_fingerprint(copy.deepcopy(value))


def test_nesting_may_be_deeper_than_the_stack() -> None:
    def nested(innermost: Any) -> Any:
        for _ in range(50_000):
            innermost = [innermost]
        return innermost

    one, same, other = nested(1), nested(1), nested(2)
    assert value_fingerprint(one) == value_fingerprint(same) != value_fingerprint(other)


def test_cycle_is_told_apart_far_from_where_it_is_entered() -> None:
    def chain(last: str) -> dict[str, Any]:
        first: dict[str, Any] = {"value": 0}
        current = first
        for _ in range(60):
            current["next"] = {"value": 0, "previous": current}
            current = current["next"]
        current["value"] = last
        return first

    assert value_fingerprint(chain("a")) == value_fingerprint(chain("a"))
    assert value_fingerprint(chain("a")) != value_fingerprint(chain("b"))


class Refusing:
    def __reduce__(self) -> Any:
        raise OSError("not now")


UNFIT: list[tuple[Any, str, str]] = [
    (threading.Lock(), "value", "_thread.lock"),
    ((i for i in range(3)), "value", "generator"),
    ({"a": [1, threading.Lock()]}, "value['a'][1]", "_thread.lock"),
    ({(1, "b"): [threading.Lock()]}, "value[(1, 'b')][0]", "_thread.lock"),
    (Thing(model=Thing(lock=threading.RLock())), "value.model.lock", "RLock"),
    (Slotted([threading.Lock()]), "value.a[0]", "_thread.lock"),
    ([Refusing()], "value[0]", "not now"),
    (objects(1, threading.Lock()), "value", "_thread.lock"),
]


@pytest.mark.parametrize(("value", "place", "reason"), UNFIT, ids=lambda each: str(each)[:20])
def test_value_without_content_is_refused_with_its_place(value: Any, place: str, reason: str) -> None:
    with pytest.raises(PayloadError) as caught:
        value_fingerprint(value)
    assert caught.value.message.startswith(f"{place} can't be fingerprinted") or place == "value"
    assert place in caught.value.message
    assert reason in caught.value.message


def test_refused_input_is_named() -> None:
    with pytest.raises(PayloadError, match=r"^config\['lock'\] can't be fingerprinted: .*lock"):
        inputs_fingerprint(lambda config: None, ({"lock": threading.Lock()},), {})
    with pytest.raises(PayloadError, match=r"^\*\[1\] can't be fingerprinted"):
        inputs_fingerprint(lambda *more: None, (1, threading.Lock()), {})


# -- inputs -----------------------------------------------------------------------------------------------------------


def call(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, kwargs


def f(x: Any, y: Any = 2, *, z: Any = 3) -> None: ...
def only(x: Any, /, y: Any = 2, **more: Any) -> None: ...
def many(x: Any, *more: Any, z: Any = 0, **keywords: Any) -> None: ...


@functools.wraps(f)
def wrapper(*args: Any, **kwargs: Any) -> None: ...


def with_signature(*args: Any, **kwargs: Any) -> None: ...


def signature_of_f() -> Any:
    import inspect

    with_signature.__signature__ = inspect.signature(f)  # type: ignore[attr-defined]
    return with_signature


class Bound:
    def m(self, x: Any, y: Any = 2) -> None: ...

    def rest(*args: Any) -> None: ...  # type: ignore[misc]

    @classmethod
    def c(cls, x: Any) -> None: ...

    def __call__(self, x: Any) -> None: ...

    def __init__(self, x: Any = 0) -> None: ...


SAME_CALLS: list[tuple[Callable[..., Any], Any, Any]] = [
    (f, call(1), call(x=1)),
    (f, call(1), call(1, 2)),
    (f, call(1), call(1, z=3)),
    (f, call(1, 5, z=6), call(z=6, y=5, x=1)),
    (only, call(1), call(1, y=2)),
    (only, call(1, a=1, b=2), call(1, b=2, a=1)),
    (only, call(1, x=5), call(1, 2, x=5)),
    (many, call(1), call(x=1)),
    (many, call(1, z=0), call(1)),
    (many, call(1, 2, 3, b=1, a=2), call(1, 2, 3, a=2, b=1)),
    (wrapper, call(1), call(x=1, y=2)),
    (signature_of_f(), call(1), call(x=1, y=2)),
    (Bound().m, call(1), call(x=1, y=2)),
    (Bound().c, call(1), call(x=1)),
    (Bound(), call(1), call(x=1)),
    (Bound, call(), call(x=0)),
    (functools.partial(f, y=7), call(1), call(x=1)),
    (len, call([1]), call([1])),
    (max, call(1, 2), call(1, 2)),
]

OTHER_CALLS: list[tuple[Callable[..., Any], Any, Any]] = [
    (f, call(1), call(2)),
    (f, call(1), call(1.0)),
    (f, call(1), call(True)),
    (f, call(1), call(1, 3)),
    (f, call(1, 2), call(2, 1)),
    (f, call(1), call(1, z=4)),
    (only, call(1), call(1, x=1)),
    (only, call(1, a=1), call(1, a=2)),
    (only, call(1, a=1), call(1, b=1)),
    (many, call(1, 2), call(1, 2, 2)),
    (many, call(1, 2, 3), call(1, (2, 3))),
    (many, call(1, more=2), call(1, 2)),
    (many, call(1, a=2), call(1, ("a", 2))),
    (Bound().m, call(1), call(2)),
    (Bound().rest, call(1), call(2)),
    (functools.partial(f, y=7), call(1), call(1, y=8)),
    (max, call(1, 2), call(2, 1)),
]


@pytest.mark.parametrize(("fn", "one", "other"), SAME_CALLS)
def test_calls_that_bind_alike_have_one_fingerprint(fn: Any, one: Any, other: Any) -> None:
    assert inputs_fingerprint(fn, *one) == inputs_fingerprint(fn, *other)


@pytest.mark.parametrize(("fn", "one", "other"), OTHER_CALLS)
def test_calls_that_bind_otherwise_differ(fn: Any, one: Any, other: Any) -> None:
    assert inputs_fingerprint(fn, *one) != inputs_fingerprint(fn, *other)


@pytest.mark.parametrize("fn", [f, only, many, wrapper, Bound().m, Bound().rest, functools.partial(f, z=1)])
@pytest.mark.parametrize("args", [(), (1,), (1, 2), (1, 2, 3)])
@pytest.mark.parametrize("kwargs", [{}, {"x": 1}, {"y": 1}, {"z": 1}, {"a": 1, "z": 2}, {"x": 1, "y": 2}, {"self": 1}])
def test_binding_agrees_with_inspect(fn: Any, args: Any, kwargs: Any) -> None:
    """The quick binding and the standard one bind the same calls, to the same values."""
    import inspect

    def by_inspect(*args: Any, **kwargs: Any) -> None: ...

    by_inspect.__signature__ = inspect.signature(fn)  # type: ignore[attr-defined]
    try:
        expected = inputs_fingerprint(by_inspect, args, kwargs)
    except TypeError:
        with pytest.raises(TypeError):
            inputs_fingerprint(fn, args, kwargs)
        with pytest.raises(TypeError):
            fn(*args, **kwargs) if fn is not wrapper else f(*args, **kwargs)
    else:
        assert inputs_fingerprint(fn, args, kwargs) == expected


def test_purposes_do_not_mix() -> None:
    assert len({value_fingerprint(plain), code_fingerprint(plain), inputs_fingerprint(plain, (1,), {})}) == 3


# -- other processes --------------------------------------------------------------------------------------------------

VALUES = """
import collections, dataclasses, datetime, decimal, enum, functools, importlib.util, pathlib, sys, uuid
import numpy as np
from localrun.model.identity.fingerprint import code_fingerprint, inputs_fingerprint, value_fingerprint

@dataclasses.dataclass
class Config:
    rate: float = 0.1
    tags: set = dataclasses.field(default_factory=lambda: {"a", "b", "c"})

class Color(enum.Enum):
    RED = frozenset({"x", "y", "z"})

class Flags(enum.Flag):
    A = 1
    B = 2

class Node:
    def __init__(self): self.near = set()

def cycle():
    nodes = [Node() for _ in range(5)]
    for node in nodes:
        node.near = set(nodes)
    return nodes[0]

LIMITS = {"low", "high", "middle"}

def work(x, config=Config(), *rest, **more):
    return [each for each in LIMITS if each in {"a", "b", "c", "d"}], Color.RED, Flags.A | Flags.B, work

words = {f"word{i}" for i in range(50)}
values = [words, frozenset(words), dict.fromkeys(words), {w: {w, "x"} for w in words}, collections.Counter(words),
    collections.defaultdict(set, {w: {w} for w in words}), Config(tags=words), Color.RED, Flags.A | Flags.B, cycle(),
    [cycle(), words], np.arange(10)[::2], np.array([words, None], dtype=object), np.float32(1.5), np.dtype("M8[s]"),
    np.zeros(2, [("a", "i1"), ("b", "f8", (2,))]), datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
    decimal.Decimal("1.5"), uuid.UUID(int=7), pathlib.Path("a/b"), functools.partial(work, words), work, Config,
    Config().tags.union, {1: words}.keys(), sys, len, np.exp, np.random.rand, np.random.default_rng(3), object()]
if importlib.util.find_spec("pandas"):
    import pandas
    table = pandas.DataFrame({"word": sorted(words), "n": range(50)})
    values += [table, table["n"], table.set_index("word"), pandas.Timestamp("2024"), pandas.Categorical(sorted(words))]
if importlib.util.find_spec("torch"):
    import torch
    values += [torch.arange(6.0).reshape(2, 3).T, {"w": torch.nn.Parameter(torch.ones(3))}, torch.float16]
for value in values:
    print(value_fingerprint(value))
print(code_fingerprint(work))
print(inputs_fingerprint(work, (1,), {"b": words, "a": 2}))
"""


def test_every_process_computes_the_same() -> None:
    def printed(seed: str) -> list[str]:
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(REPOSITORY)}
        command = [sys.executable, "-c", VALUES]
        return subprocess.run(command, env=environment, text=True, check=True, stdout=subprocess.PIPE).stdout.split()

    first = printed("0")
    assert len(set(first)) == len(first) > 30
    for seed in ("1", "2", "random", "random"):
        assert printed(seed) == first
