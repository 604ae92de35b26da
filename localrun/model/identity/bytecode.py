"""The canonical form of a code object: equal for two sources that differ only in layout, comments or docstrings.

Owns the reading of CPython's bytecode. What a function *uses* besides its own instructions belongs to ``codeid``.

Line numbers reach further into bytecode than the line table: the compiler keeps NOPs, folds jumps and fuses
instructions only where lines agree, and a docstring shifts every constant. So the instructions are written down in the
order in which control reaches them: jumps and NOPs vanish, fused instructions are taken apart, constants and names are
numbered by use. ``dis`` would do for the reading alone, at twice the cost of all of this, which every cached call of a
new process pays.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from functools import cache
from types import CodeType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

# *args, **kwargs, generator, coroutine, iterable coroutine, async generator. The other flags tell of nesting,
# docstrings and ``__future__`` imports.
_MEANINGFUL_FLAGS = 0x04 | 0x08 | 0x20 | 0x80 | 0x100 | 0x200
_ABOUT_THE_TEXT = frozenset({"__doc__", "__firstlineno__", "__static_attributes__"})  # stored by class bodies
_BRANCH_IF_TRUE, _BRANCH_IF_NONE = 1000, 1001

# Kinds of opcodes. Those up to _NAME go on to the next instruction; those from _GOTO on have no effect of their own.
_PLAIN, _CONSTANT, _NAME, _BRANCH, _JUMP, _FINAL, _FINAL_CONSTANT, _GOTO, _NOP = range(9)


class LocalImport(NamedTuple):
    """An import statement: ``from <level dots><name> import <names>``."""

    level: int
    name: str
    names: tuple[str, ...]


class CodeForm(NamedTuple):
    """A code object without its layout, and the names through which it reaches other code."""

    signature: tuple[Any, ...]  # name, counts of arguments, flags, variable names
    flow: bytes  # rows of integers, one for each instruction
    constants: tuple[Any, ...]  # in order of first use; nested code objects are left as they are
    names: tuple[str, ...]  # in order of first use
    reads: frozenset[str]  # globals that it reads and never assigns
    imports: tuple[LocalImport, ...]


class _Opcodes:
    """What this interpreter's opcodes mean."""

    def __init__(self) -> None:
        import opcode

        number = opcode.opmap
        branches = [name for name in number if name.startswith("POP_JUMP")]
        shift = {"LOAD_GLOBAL": 1, "LOAD_ATTR": 1 if sys.version_info >= (3, 12) else 0, "LOAD_SUPER_ATTR": 2}
        self.number = number
        self.kind = self._kinds()  # by opcode
        # Opcodes that index co_names, and how many bits of flags stand below the index.
        self.shift = {op: shift.get(opcode.opname[op], 0) for op in opcode.hasname}
        self.backward = frozenset(op for name, op in number.items() if "BACKWARD" in name)
        # Branches that jump if the condition holds, and those whose condition is to be None instead of true.
        self.jumps_if_so = frozenset(number[name] for name in branches if name.endswith(("IF_TRUE", "IF_NONE")))
        self.asks_none = frozenset(number[name] for name in branches if name.endswith("NONE"))
        self.fused = self._fused()
        self.reads_global = _those("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")

    def _kinds(self) -> list[int]:
        import opcode

        kinds = (
            (_CONSTANT, opcode.hasconst),
            (_NAME, opcode.hasname),
            (_JUMP, opcode.hasjrel),
            (_BRANCH, [op for name, op in opcode.opmap.items() if name.startswith("POP_JUMP")]),
            (_FINAL, _those("RETURN_VALUE", "RAISE_VARARGS", "RERAISE")),
            (_FINAL_CONSTANT, _those("RETURN_CONST")),
            (_GOTO, _those("JUMP_FORWARD", "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT")),
            (_NOP, _those("NOP", "NOT_TAKEN")),
        )
        kind = [_PLAIN] * 256
        for meaning, ops in kinds:
            for op in ops:
                if op < len(kind):  # above are the compiler's pseudo-instructions
                    kind[op] = meaning
        return kind

    def _fused(self) -> dict[int, tuple[int, int]]:
        """The opcodes that stand for two, such as ``STORE_FAST_LOAD_FAST`` (3.13)."""
        number = self.number
        singles = [name for name in ("LOAD_FAST", "STORE_FAST", "LOAD_FAST_BORROW") if name in number]
        pairs = [(f"{first}_{second}", first, second) for first in singles for second in singles]
        return {number[name]: (number[first], number[second]) for name, first, second in pairs if name in number}


def _those(*names: str) -> frozenset[int]:
    """The opcodes of these names that this Python has."""
    import opcode

    return frozenset(opcode.opmap[name] for name in names if name in opcode.opmap)


_opcodes = cache(_Opcodes)
_forms: WeakKeyDictionary[CodeType, CodeForm] = WeakKeyDictionary()


def canonical(code: CodeType) -> CodeForm:
    """The canonical form of ``code`` itself; nested code objects appear among its constants."""
    form = _forms.get(code)
    if form is None:
        form = _forms[code] = _Reading(code).form()
    return form


class _Reading:
    """One code object, decoded: instruction ``i`` has ``ops[i]``, ``args[i]`` and, if it jumps, ``targets[i]``."""

    def __init__(self, code: CodeType) -> None:
        self.code = code
        self.known = _opcodes()
        self.ops: list[int] = []
        self.args: list[int] = []
        self.targets: dict[int, int] = {}
        self.index: dict[int, int] = {}  # of each offset
        self._decode()
        self._forget_texts()
        self.handlers = self._handlers()

    def form(self) -> CodeForm:
        code = self.code
        flow, constants, names = self._write_down()
        counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & _MEANINGFUL_FLAGS)
        return CodeForm(
            signature=(code.co_name, *counts, code.co_varnames, code.co_cellvars, code.co_freevars),
            flow=flow,
            constants=tuple(code.co_consts[i] for i in constants),
            names=tuple(code.co_names[i] for i in names),
            reads=self._named(self.known.reads_global) - self._named(frozenset({self.known.number["STORE_GLOBAL"]})),
            imports=tuple(self._imports()),
        )

    def _decode(self) -> None:
        known, raw, ops, args = self.known, self.code.co_code, self.ops, self.args
        extended, cached = known.number["EXTENDED_ARG"], known.number["CACHE"]
        kind, fused, size, jumps = known.kind, known.fused, len(raw), (_BRANCH, _JUMP, _GOTO)
        at = start = extension = 0
        while at < size:
            op, arg = raw[at], raw[at + 1] | extension
            at += 2
            if op == extended:
                extension = arg << 8
                continue
            while at < size and raw[at] == cached:  # jumps count from behind the inline caches
                at += 2
            self.index[start] = len(ops)
            if op in fused:
                ops.extend(fused[op])
                args.extend((arg >> 4, arg & 15))
            else:
                if kind[op] in jumps:
                    self.targets[len(ops)] = at - 2 * arg if op in known.backward else at + 2 * arg
                    arg = 0
                ops.append(op)
                args.append(arg)
            start, extension = at, 0
        self.index[start] = len(ops)
        self.targets = {i: self.index[offset] for i, offset in self.targets.items()}

    def _forget_texts(self) -> None:
        """Turn the storing of a class body's docstring and line number into NOPs, with the loading before it."""
        store, nop = self.known.number["STORE_NAME"], self.known.number["NOP"]
        if _ABOUT_THE_TEXT.isdisjoint(self.code.co_names):
            return
        for i, op in enumerate(self.ops):
            if op == store and self.code.co_names[self.args[i]] in _ABOUT_THE_TEXT:
                self.ops[i - 1 : i + 1] = nop, nop

    def _handlers(self) -> dict[int, tuple[int, int]]:
        """The exception handler of each protected instruction, and the depth of the stack that it keeps."""
        found = {}
        for start, end, handler, depth in _exception_table(self.code):
            for i in range(self.index[start], self.index[end]):
                found[i] = self.index[handler], depth
        return found

    def _land(self, i: int) -> int:
        """The first instruction with an effect that control meets from ``i`` on."""
        seen = set()
        while self.known.kind[self.ops[i]] >= _GOTO and i not in seen:
            seen.add(i)  # ``while True: pass`` is a jump to itself
            i = self.targets.get(i, i + 1)
        return i

    def _order(self) -> dict[int, list[int]]:
        """The instructions that control can reach, in the order of a depth-first walk, and where it goes from each."""
        kind, ops, handlers = self.known.kind, self.ops, self.handlers
        found: dict[int, list[int]] = {}
        waiting = [self._land(0)]
        while waiting:
            i = waiting.pop()
            while i not in found:
                if kind[ops[i]] > _NAME or kind[ops[i + 1]] >= _GOTO or i in handlers:
                    found[i] = ways = self._ways(i)
                    waiting.extend(ways[::-1])
                    break
                found[i] = [i + 1]  # by far the most, so the loop asks for nothing else
                i += 1
        return found

    def _ways(self, i: int) -> list[int]:
        """Where control may go from instruction ``i``, in an order that doesn't depend on the layout."""
        op = self.ops[i]
        kind = self.known.kind[op]
        if kind >= _GOTO:  # an empty endless loop
            ways = [i]
        elif kind in (_FINAL, _FINAL_CONSTANT):
            ways = []
        elif i in self.targets:
            ways = [self._land(i + 1), self._land(self.targets[i])]
            if op in self.known.jumps_if_so:
                ways.reverse()
        else:
            ways = [self._land(i + 1)]
        if i in self.handlers:
            ways.append(self._land(self.handlers[i][0]))
        return ways

    def _write_down(self) -> tuple[bytes, dict[int, int], dict[int, int]]:
        """The rows of all instructions, and the constants and names they use, numbered by first use."""
        known, handlers = self.known, self.handlers
        constants: dict[int, int] = {}
        names: dict[int, int] = {}
        flow: list[int] = []
        order = self._order()
        number = {i: n for n, i in enumerate(order)}
        for i, ways in order.items():
            op, arg = self.ops[i], self.args[i]
            kind = known.kind[op]
            if kind in (_CONSTANT, _FINAL_CONSTANT):
                arg = constants.setdefault(arg, len(constants))
            elif kind == _NAME:
                shift = known.shift[op]
                arg = names.setdefault(arg >> shift, len(names)) << shift | arg & ((1 << shift) - 1)
            elif kind == _BRANCH:
                op = _BRANCH_IF_NONE if op in known.asks_none else _BRANCH_IF_TRUE
            flow += (op, arg, handlers[i][1] if i in handlers else -1, len(ways))
            flow += [number[way] for way in ways]
        return struct.pack(f"<{len(flow)}q", *flow), constants, names

    def _named(self, ops: frozenset[int]) -> frozenset[str]:
        names, args, shift = self.code.co_names, self.args, self.known.shift
        return frozenset(names[args[i] >> shift[op]] for i, op in enumerate(self.ops) if op in ops)

    def _imports(self) -> Iterator[LocalImport]:
        """Import statements: the two instructions before IMPORT_NAME load the level and the names."""
        kind, consts = self.known.kind, self.code.co_consts
        for i, op in enumerate(self.ops):
            if op == self.known.number["IMPORT_NAME"]:
                level = self.args[i - 2]
                if kind[self.ops[i - 2]] == _CONSTANT:  # else 3.14's LOAD_SMALL_INT
                    level = consts[level]
                yield LocalImport(level, self.code.co_names[self.args[i]], consts[self.args[i - 1]] or ())


def _exception_table(code: CodeType) -> Iterator[tuple[int, int, int, int]]:
    """Start, end, handler (offsets) and depth of each protected range: CPython's exception_handling_notes.txt."""
    stream = iter(code.co_exceptiontable)

    def number(byte: int) -> int:
        value = byte & 63
        while byte & 64:
            byte = next(stream)
            value = value << 6 | byte & 63
        return value

    for byte in stream:
        start, length, handler, depth = number(byte), number(next(stream)), number(next(stream)), number(next(stream))
        yield 2 * start, 2 * (start + length), 2 * handler, depth
