"""One value of each kind whose fingerprint must not change, by name.

Their digests are in ``test_pinned``: those of `VALUES` are the same in every Python, of `CODE` in one minor version.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import json
import math
import operator
import pathlib
import random
import re
import types
import uuid
import zoneinfo
from typing import Any, NamedTuple

import numpy as np

from localrun.model.identity.fingerprint import code_fingerprint, inputs_fingerprint, value_fingerprint


class Point(NamedTuple):
    x: int
    y: int


@dataclasses.dataclass
class Config:
    rate: float = 0.1
    tags: set[str] = dataclasses.field(default_factory=lambda: {"a", "b", "c"})
    inner: Any = None


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    name: str
    size: int = 1


class Color(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    LOW = 1


class Mode(enum.Flag):
    READ = 1
    WRITE = 2


class Thing:
    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)

    def method(self) -> int:
        return 1


class Tags(set):  # type: ignore[type-arg]
    pass


LIMITS = {"low", "high", "middle"}


def scaled(x: float, scale: float = 2.0, *rest: Any, offset: float = 0.0, **more: Any) -> Any:
    return [x * scale + offset, LIMITS, math.pi, np.float64(1), Config]


def cycle() -> list[Any]:
    made: list[Any] = [1]
    made.append(made)
    return made


WORDS = [f"word{i}" for i in range(20)]
GRID = np.arange(12, dtype=np.float64).reshape(3, 4)
NOON = datetime.datetime(2024, 2, 29, 12, 30, 15, 250)

VALUES: dict[str, Any] = {
    "None": None,
    "bool": True,
    "int": 7,
    "large int": 10**100,
    "float": 0.1,
    "nan": float("nan"),
    "complex": 1 - 2j,
    "str": "naïve 🙂",
    "long str": "x" * 1000,
    "bytes": b"\0\xff",
    "bytearray": bytearray(b"\0\xff"),
    "memoryview": memoryview(b"abc"),
    "Ellipsis": ...,
    "range": range(1, 10, 2),
    "slice": slice(1, None, 2),
    "tuple": (1, "a", 2.5),
    "list": [1, [2, [3]]],
    "dict": {"b": 1, "a": [2], (1, 2): {"c": None}},
    "set": set(WORDS),
    "frozenset": frozenset(WORDS),
    "sets in a dict": {word: {word, "x"} for word in WORDS},
    "cycle": cycle(),
    "named tuple": Point(1, 2),
    "dataclass": Config(inner=Config(0.5, set(WORDS))),
    "frozen dataclass": Frozen("a"),
    "object": Thing(a=1, b={"x", "y"}),
    "set subclass": Tags(WORDS),
    "namespace": types.SimpleNamespace(a=1),
    "OrderedDict": collections.OrderedDict(b=1, a=2),
    "defaultdict": collections.defaultdict(list, a=[1]),
    "Counter": collections.Counter("banana"),
    "deque": collections.deque([1, 2], 5),
    "enum": Color.RED,
    "int enum": Level.LOW,
    "flags": Mode.READ | Mode.WRITE,
    "datetime": NOON,
    "aware datetime": NOON.replace(tzinfo=datetime.UTC),
    "datetime in a zone": NOON.replace(tzinfo=zoneinfo.ZoneInfo("Etc/GMT+3")),
    "date": NOON.date(),
    "time": NOON.time(),
    "timedelta": datetime.timedelta(1, 2, 3),
    "Decimal": decimal.Decimal("1.10"),
    "Fraction": fractions.Fraction(1, 3),
    "UUID": uuid.UUID(int=7),
    "Path": pathlib.Path("a/b"),
    "PurePath": pathlib.PurePosixPath("/a/b"),
    "pattern": re.compile("a+", re.IGNORECASE),
    "exception": ValueError("a", 1),
    "builtin function": len,
    "method of a builtin": {"a": 1}.get,
    "module": math,
    "installed function": json.dumps,
    "installed class": decimal.Decimal,
    "random state": random.Random(1),
    "generic alias": list[int],
    "operator": operator.itemgetter(1, 2),
    "partial of a builtin": functools.partial(int, base=2),
    "array": GRID,
    "array of ints": np.arange(5, dtype=np.int16),
    "array of big-endian": np.arange(5, dtype=">i4"),
    "array of bools": np.array([True, False]),
    "array of texts": np.array(["a", "bcd"]),
    "array of times": np.array(["2024-01-01", "NaT"], "M8[D]"),
    "array of structures": np.array([(1, 2.5)], [("a", "i1"), ("b", "f8")]),
    "array of objects": np.array([{"a", "b"}, None], object),
    "array without elements": np.zeros((0, 3)),
    "array without dimensions": np.array(1.5),
    "strided array": GRID[::-1, ::2],
    "Fortran array": np.asfortranarray(GRID),
    "NumPy scalar": np.float32(1.5),
    "dtype": np.dtype("f8"),
}

CODE: dict[str, Any] = {
    "function": scaled,
    "partial": functools.partial(scaled, scale=3.0),
    "class": Config,
    "method": Thing(a=1).method,
}


def fingerprints() -> dict[str, str]:
    """Those of all values, of a call and of a function's code, by name."""
    found = {name: value_fingerprint(value) for name, value in (VALUES | CODE).items()}
    found["a call's inputs"] = inputs_fingerprint(scaled, (1, 2, 3), {"b": WORDS, "a": {"x", "y"}})
    found["a function's code"] = code_fingerprint(scaled)
    return found
