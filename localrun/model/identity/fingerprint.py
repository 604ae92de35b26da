"""Fingerprints: when two calls have the same inputs, and when two functions are the same code.

Owns the digest of values, which is the same in every process: it depends on types and contents, not on the order of
sets and dicts, on identity, addresses or hash seeds. What values are made of is ``anatomy``'s, what belongs to a
function's code ``codeid``'s; comparing fingerprints and acting on it is the caller's.

Every value is taken apart into a `Shape`, a head that says what it is and children; its digest is that of its head and
its children's digests. Values that reach themselves have no such digest: they are told apart by what can be seen along
every path (`_of_cycle`), so that a copy of a cycle equals the cycle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from types import CodeType, FunctionType, MethodType
from typing import Any, TypeGuard
from weakref import WeakKeyDictionary

from localrun.errors import PayloadError
from localrun.model.identity.anatomy import opaque, shape_of
from localrun.model.identity.ownership import is_user_module
from localrun.model.identity.shapes import CODE, LEAVES, VALUE, Shape, Unfit, full_name

__all__ = ["code_fingerprint", "inputs_fingerprint", "is_user_module", "value_fingerprint"]

_VARARGS, _VARKEYWORDS = 0x04, 0x08


def value_fingerprint(value: Any) -> str:
    """The canonical digest of a value, as 64 hex digits.

    Types count (``1``, ``1.0``, ``True`` differ), order doesn't where it has no meaning (sets, dicts, keyword
    arguments), sharing never does (``[a, a]`` is ``[a, copy(a)]``). Objects are their class's name and their state;
    functions and classes of the user's project are their code, installed ones their names.

    It is the same in every Python (3.11 to 3.13 were compared, with NumPy 1.26 and 2), but for that code: bytecode
    belongs to one minor version. Objects of libraries are as those take them apart, which may change with theirs.

    Raises: PayloadError for what has no content to speak of (a lock, a socket, a generator), with its place.
    """
    return _fingerprint(b"value", value, VALUE, "value")


def code_fingerprint(fn: Any) -> str:
    """The identity of a function's code and of all code and constants of the user's project that it uses.

    Layout, comments, docstrings, file names and the names of modules don't count; defaults, closures, decorators and
    the interpreter's minor version do. Of installed code only the names count. What is reached by code but has no
    content to speak of (a lock, a pool, a console) counts by its class.
    """
    return _fingerprint(b"code", fn, CODE, "code")


def inputs_fingerprint(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """The identity of a call's inputs, bound to the signature of ``fn``: ``f(1)`` is ``f(x=1)``, and defaults count.

    Raises: TypeError if the call doesn't fit the signature; PayloadError as `value_fingerprint`.
    """
    named, more, keywords = _bind(fn, args, kwargs)
    inputs = named if not more and not keywords else named | {"*": more, "**": keywords}
    flat = tuple(part for item in inputs.items() for part in item)
    return _fingerprint(b"inputs", Shape(b"inputs", flat, group=2, place="attribute"), VALUE, "")


def _fingerprint(purpose: bytes, value: Any, mode: int, place: str) -> str:
    try:
        part = _Digester().part(value, mode)
    except Unfit as error:
        where = (place + error.place).lstrip(".")
        raise PayloadError(f"{where} can't be fingerprinted: {error} (a {full_name(error.culprit)})") from error
    return sha256(purpose + b":" + (part if isinstance(part, bytes) else _of_cycle(part))).hexdigest()


# -- the digest -------------------------------------------------------------------------------------------------------


class _Node:
    """A value that is being taken apart, or that reaches a cycle: its shape, and its children's parts so far."""

    __slots__ = ("mode", "parts", "shape", "value")

    def __init__(self, value: Any, mode: int, shape: Shape) -> None:
        self.value = value
        self.mode = mode
        self.shape = shape
        self.parts: list[Part] = []


# The digest of a value or, if a cycle is below it, its node. A leaf is its own digest.
Part = bytes | _Node

_code_parts: WeakKeyDictionary[CodeType, bytes] = WeakKeyDictionary()


class _Digester:
    """Takes one value apart, without recursion: code reaches deeper than Python's stack."""

    def __init__(self) -> None:
        self._parts: tuple[dict[int, Part], ...] = ({}, {}, {})  # by mode and id
        self._alive: list[Any] = []  # every value in there: another must not get its id
        self._open: list[_Node] = []  # from the value down to the one at work

    def part(self, value: Any, mode: int) -> Part:
        """The part of a value. Raises: Unfit."""
        self._open = []
        found = self._find(value, mode) or self._begin(value, mode)
        if found is not None:
            return found
        while True:
            node = self._open[-1]
            if len(node.parts) < len(node.shape.children):
                self._go_on(node)
                continue
            found = self._finish(self._open.pop())
            if not self._open:
                return found
            self._open[-1].parts.append(found)

    def _find(self, value: Any, mode: int) -> Part | None:
        """The part of a leaf or of a value that was met before."""
        leaf = _LEAVES.get(type(value))
        return self._parts[mode].get(id(value)) if leaf is None else leaf(value)

    def _begin(self, value: Any, mode: int) -> Part | None:
        """The part of a value that has only leaves below it; None if it has more, and is open now."""
        try:
            shape = shape_of(value, mode)
        except Unfit:
            if mode != CODE:
                raise
            shape = opaque(value)
        self._alive.append(value)
        parts = _leading_leaves(shape.children)
        if len(parts) == len(shape.children):
            found = self._parts[mode][id(value)] = _combine(shape, parts)
            return found
        node = self._parts[mode][id(value)] = _Node(value, mode, shape)
        node.parts.extend(parts)
        self._open.append(node)
        return None

    def _go_on(self, node: _Node) -> None:
        """Take the parts of a node's next children, up to one that has more below it, and is open then."""
        children, parts = node.shape.children, node.parts
        mode = node.mode if node.shape.mode is None else node.shape.mode
        while len(parts) < len(children):
            child = children[len(parts)]
            try:
                found = self._find(child, mode) or self._begin(child, mode)
            except Unfit as error:
                self._retreat(error)
                return
            if found is None:
                return
            parts.append(found)

    def _retreat(self, error: Unfit) -> None:
        """Give up the object that code reaches and of which this is a part: it counts as a whole. Else raise."""
        while self._open:
            node = self._open[-1]
            error.place = node.shape.place_of(len(node.parts)) + error.place
            if node.mode == CODE:
                node.shape = opaque(node.value)
                node.parts.clear()
                return
            del self._parts[node.mode][id(node.value)]
            self._open.pop()
        raise error

    def _finish(self, node: _Node) -> Part:
        digests = [part for part in node.parts if isinstance(part, bytes)]
        if len(digests) < len(node.parts):
            return node
        found = self._parts[node.mode][id(node.value)] = _combine(node.shape, digests)
        return found


def _leading_leaves(values: Sequence[Any]) -> list[bytes]:
    """The parts of the values before the first that is no leaf."""
    types = set(map(type, values))
    if len(types) == 1:
        leaf = _LEAVES.get(types.pop())
        return [] if leaf is None else [*map(leaf, values)]  # a long list of numbers
    parts: list[bytes] = []
    for value in values:
        leaf = _LEAVES.get(type(value))
        if leaf is None:
            break
        parts.append(leaf(value))
    return parts


def _code_part(code: CodeType) -> bytes:
    """The part of a code object, once: they never change, never reach a cycle, and are most of the work."""
    found = _code_parts.get(code)
    if found is None:
        digester, shape = _Digester(), shape_of(code, CODE)
        parts = [digester.part(child, CODE) for child in shape.children]
        found = _code_parts[code] = _combine(shape, [part for part in parts if isinstance(part, bytes)])
    return found


_LEAVES = {**LEAVES, CodeType: _code_part}

_LENGTHS = [bytes((length,)) for length in range(256)]


def _combine(shape: Shape, parts: list[bytes]) -> bytes:
    head, group = shape.head, shape.group
    marked = [_LENGTHS[len(part)] + part for part in parts]  # no part is longer; their lengths keep them apart
    if group:
        if group > 1:
            marked = [b"".join(marked[i : i + group]) for i in range(0, len(marked), group)]
        marked.sort()
    return b"\0" + sha256(b"%d:%b%d:%b" % (len(head), head, group, b"".join(marked))).digest()


def _of_cycle(root: _Node) -> bytes:
    """The digest of a value that reaches a cycle: nodes get labels from their children's, until no more differ.

    The labels then say of each node what it looks like from inside; the set of all labels belongs to the digest
    because the root's own says only what is as near to it as there were rounds.
    """
    nodes = {root}
    waiting = [root]
    while waiting:
        below = {part for part in waiting.pop().parts if isinstance(part, _Node)} - nodes
        nodes |= below
        waiting.extend(below)
    labels = dict.fromkeys(nodes, b"?")
    count = 0
    while count < (count := len(set(labels.values()))):
        labels = {
            node: _combine(node.shape, [labels[part] if isinstance(part, _Node) else part for part in node.parts])
            for node in nodes
        }
    return b"\1" + sha256(labels[root] + b"".join(sorted(set(labels.values())))).digest()


# -- binding ----------------------------------------------------------------------------------------------------------

_Bound = tuple[dict[str, Any], tuple[Any, ...], dict[str, Any]]


def _bind(fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Bound:
    """The parameters' values with defaults, surplus positional and surplus keyword arguments."""
    plain = fn
    while isinstance(plain, FunctionType) and "__wrapped__" in vars(plain) and "__signature__" not in vars(plain):
        plain = vars(plain)["__wrapped__"]
    if isinstance(plain, MethodType) and _is_plain(plain.__func__) and plain.__func__.__code__.co_argcount:
        bound = _bind_plain(plain.__func__, (plain.__self__, *args), kwargs)
        if bound is not None:
            del bound[0][plain.__func__.__code__.co_varnames[0]]
            return bound
    elif _is_plain(plain) and (bound := _bind_plain(plain, args, kwargs)) is not None:
        return bound
    return _bind_by_signature(fn, args, kwargs)


def _is_plain(fn: Any) -> TypeGuard[FunctionType]:
    return isinstance(fn, FunctionType) and vars(fn).keys().isdisjoint({"__signature__", "__wrapped__"})


def _bind_plain(fn: FunctionType, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Bound | None:
    """As ``inspect`` binds, for a plain function and a call that fits, without its 15 ms of import; else None."""
    code = fn.__code__
    count, names = code.co_argcount, code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    named = dict(zip(names[:count], args, strict=False))
    keywords = {}
    for name, value in kwargs.items():
        if name in named or name not in names[code.co_posonlyargcount :]:
            keywords[name] = value
        else:
            named[name] = value
    defaults = fn.__defaults__ or ()
    by_default = dict(zip(names[count - len(defaults) : count], defaults, strict=True)) | (fn.__kwdefaults__ or {})
    bound = by_default | named
    taken_twice = not keywords.keys().isdisjoint(names[code.co_posonlyargcount :])
    surplus = (len(args) > count and not code.co_flags & _VARARGS) or (keywords and not code.co_flags & _VARKEYWORDS)
    if surplus or taken_twice or len(bound) < len(names):
        return None
    return bound, args[count:], keywords


def _bind_by_signature(fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Bound:
    import inspect

    try:
        signature = inspect.signature(fn)
    except ValueError:  # some builtins have none
        return {}, args, kwargs
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    kinds = {name: parameter.kind for name, parameter in signature.parameters.items()}
    surplus = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    more: tuple[Any, ...] = ()
    keywords: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        if kinds[name] is inspect.Parameter.VAR_POSITIONAL:
            more = value
        elif kinds[name] is inspect.Parameter.VAR_KEYWORD:
            keywords = value
    return {name: value for name, value in bound.arguments.items() if kinds[name] not in surplus}, more, keywords
