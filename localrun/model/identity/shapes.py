"""The shape of a value: a head that says what it is, and its children; and the values that have none, with their bytes.

Owns what a shape is and how scalars are written. Which type has which shape is ``anatomy``'s, walking them and the
digest are ``fingerprint``'s.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Sequence
from hashlib import sha256
from types import EllipsisType, NoneType, NotImplementedType
from typing import Any, NamedTuple

# How a value is looked at: as an input, whose class is a name; as something that code reaches, whose class is code too;
# as part of an installed class's instance that code reaches.
VALUE, CODE, PART = range(3)


class Shape(NamedTuple):
    """A value, one level deep. Children in groups of one or two have no order among the groups; 0 means ordered."""

    head: bytes
    children: Sequence[Any] = ()
    group: int = 0
    mode: int | None = None  # how the children are looked at; None: as the value is
    place: str = ""  # how a child is called in an error: "index", "key", "attribute", or not at all

    def place_of(self, i: int) -> str:
        """Where child ``i`` stands in the value, as one would write it in Python."""
        key = self.children[i - i % 2]
        return {"index": f"[{i}]", "key": f"[{key!r}]", "attribute": f".{key}"}.get(self.place, "")


class Unfit(Exception):  # noqa: N818 - it becomes a PayloadError
    """A value that has no content to speak of; ``place`` is its place below the one that was asked for."""

    def __init__(self, culprit: type, reason: str) -> None:
        super().__init__(reason)
        self.culprit = culprit
        self.place = ""


class Known(bytes):
    """A child whose part is known: itself."""


def full_name(named: Any) -> str:
    """The module and qualified name of a class or function."""
    return f"{named.__module__}.{named.__qualname__}"


# -- leaves: the parts of values without children, shorter than 256 bytes ----------------------------------------------


def _short(part: bytes) -> bytes:
    return part if len(part) <= 64 else b"#" + sha256(part).digest()


def _int(value: int) -> bytes:
    return _short(b"i%x" % value)


def text_part(value: str) -> bytes:
    """The part of a text."""
    return _short(b"s" + value.encode("utf-8", "surrogatepass"))


def _buffer(tag: bytes, value: bytes | bytearray) -> bytes:
    if len(value) < 64:
        return tag + value
    digest = sha256(tag)
    digest.update(value)
    return b"#" + digest.digest()


LEAVES: dict[type, Callable[[Any], bytes]] = {
    NoneType: lambda value: b"N",
    bool: lambda value: b"T" if value else b"F",
    int: _int,
    float: lambda value: b"f" + struct.pack(">d", value),
    complex: lambda value: b"c" + struct.pack(">dd", value.real, value.imag),
    str: text_part,
    bytes: functools.partial(_buffer, b"b"),
    bytearray: functools.partial(_buffer, b"a"),
    EllipsisType: lambda value: b"E",
    NotImplementedType: lambda value: b"I",
    range: lambda value: _short(b"r%d,%d,%d" % (value.start, value.stop, value.step)),
    Known: bytes,
}
