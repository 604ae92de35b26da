"""Fingerprints: when two calls have the same inputs, and when two functions are the same code.

Owns the digest of values, which is the same in every process: it depends on types and contents, not on the order of sets
and dicts, on identity, on addresses or on hash seeds. What belongs to a function's code is ``codeid``'s; comparing
fingerprints and acting on it is the caller's.

Every value is taken apart into a `Shape`: a head that says what it is, and children. A value's digest is the digest of
its head and its children's digests. Values that can reach themselves have no such digest; they are told apart by what
can be seen along every path (`_fixpoint`), so that a copy of a cycle equals the cycle.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from copyreg import dispatch_table
from functools import partial
from hashlib import sha256
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    EllipsisType,
    FunctionType,
    MethodType,
    ModuleType,
    NoneType,
    NotImplementedType,
)
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from localrun.errors import PayloadError
from localrun.model import codeid
from localrun.model.bytecode import canonical
from localrun.model.codeid import is_user_module

__all__ = ["code_fingerprint", "inputs_fingerprint", "is_user_module", "value_fingerprint"]
