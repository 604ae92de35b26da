"""The memory of large arrays that lies behind a pickle in its file: how arrays give it away, and how they get it back.

It is read when the unpickler asks for it, or mapped.

Read is the default, although a private mapping would be writable too and cost nothing: an array that was read is the
process's own. Under one that is mapped the file must stay as it is (a file that is cut kills whoever then looks at the
array), pages that can't be read are signals and not errors, and each page that is written to costs more than reading
it would have.

Reading takes as long as copying from the page cache. What makes it slow elsewhere is the memory for it, 4 KiB at a
time: it is asked for in huge pages, and each array has its own, so that it goes when the array goes.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from pickle import PickleBuffer
from typing import Any, BinaryIO

from localrun.errors import ResultUnavailableError

SET_APART = 256 << 10  # bytes of an array; below that, it would gain nothing
_HUGE_PAGE = 2 << 20

Places = Sequence[Sequence[int]]


def mapped(file: BinaryIO, places: Places) -> Iterator[memoryview]:
    """The parts of a file by offset and length, in one read-only mapping; it outlives the file's name."""
    whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    for offset, length in places:
        yield whole[offset : offset + length]


def read(file: BinaryIO, places: Places) -> Iterator[memoryview]:
    """The parts of a file by offset and length, each in writable memory of its own.

    Raises: ResultUnavailableError if the file ends before.
    """
    for offset, length in places:
        memory = _room(length)
        done = 0
        while done < length:
            count = os.preadv(file.fileno(), [memory[done:]], offset + done)
            if not count:
                raise ResultUnavailableError(f"{file.name} was cut short while it was read; it was not loaded")
            done += count
        yield memory


def reduced(array: Any) -> Any:
    """How a large NumPy array is pickled whose memory NumPy would copy into the pickle; NotImplemented of all else.

    That is memory in pieces, and that of elements which no buffer is allowed to have, as times.
    """
    kind = type(array)
    if kind.__name__ != "ndarray" or kind.__module__ != "numpy" or array.nbytes < SET_APART:
        return NotImplemented
    if array.dtype.hasobject or _gives_itself_away(array):
        return NotImplemented
    order = "F" if array.flags.fnc else "C"
    memory = array.ravel(order)
    memory = memory if memory.flags.writeable else memory.copy()  # as NumPy's own copy would be
    from_buffer, _ = kind(1).__reduce_ex__(5)  # what NumPy has for this; its place differs by version
    return from_buffer, (PickleBuffer(memory.view("u1")), array.dtype, array.shape, order)


def _gives_itself_away(array: Any) -> bool:
    """True if NumPy has no need to copy it: it is contiguous, possibly with its axes exchanged (from NumPy 2.0 on)."""
    try:
        memoryview(array)
    except ValueError:
        return False
    by_stride = sorted(range(array.ndim), key=lambda axis: -array.strides[axis])
    return bool(array.transpose(by_stride).flags.c_contiguous)


def _room(length: int) -> memoryview:
    """Memory to read into, in huge pages if it is large and the kernel has some."""
    if length < _HUGE_PAGE:
        return memoryview(bytearray(length))
    try:
        memory = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"no room for {length} bytes") from error
    try:
        memory.madvise(mmap.MADV_HUGEPAGE)
    except OSError:
        pass  # a kernel without them
    return memoryview(memory)
