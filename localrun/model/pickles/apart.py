"""The memory of large arrays that lies behind a pickle in its file: read when the unpickler asks for it, or mapped.

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
from typing import BinaryIO

from localrun.errors import ResultUnavailableError

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
