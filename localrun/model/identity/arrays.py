"""The content of NumPy arrays and torch tensors: every byte that means something, none that doesn't.

Neither library is imported here: whoever has an array has it loaded.
"""

from __future__ import annotations

import sys
from hashlib import sha256
from typing import Any

_BLOCK = 16 << 20
_BUILTIN_TYPES = 24  # numbers from here on are types that others registered: their ``str`` doesn't tell them apart


def _numpy() -> Any:
    return sys.modules["numpy"]


def is_plain(array: Any) -> bool:
    """True for an array that is its elements and nothing else; a memory map is one that lies in a file."""
    np = _numpy()
    return type(array) in (np.ndarray, np.memmap)


def of_scalar(scalar: Any) -> Any:
    """The array without dimensions that holds a NumPy scalar."""
    return _numpy().asarray(scalar)


def dtype_name(dtype: Any) -> str | None:
    """What says all of a simple dtype, byte order included; None for structures, others' types and metadata."""
    simple = dtype.names is None and dtype.subdtype is None and dtype.metadata is None
    return dtype.str if simple and dtype.num < _BUILTIN_TYPES else None


def digest(array: Any) -> bytes:
    """The digest of an array's bytes in C order, without copying it: at most block by block."""
    found = sha256()
    if array.flags.c_contiguous:
        found.update(_bytes_of(array))
    elif array.nbytes:
        rows = max(1, _BLOCK * len(array) // array.nbytes)
        for start in range(0, len(array), rows):
            found.update(_bytes_of(array[start : start + rows]))
    return found.digest()


def _bytes_of(array: Any) -> Any:
    np = _numpy()
    if array.nbytes == 0:
        return b""
    raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    if array.dtype.char in "gG" and np.finfo(np.longdouble).nmant == 63:
        # 80-bit floats: the rest of each is padding, with whatever the memory held before.
        raw = np.ascontiguousarray(raw.reshape(-1, np.dtype(np.longdouble).itemsize)[:, :10])
    return raw


def of_tensor(tensor: Any) -> Any:
    """The bytes of a torch tensor as an array, wherever and however it lies; None if it isn't a plain block of numbers.

    Taken apart as for pickling, a tensor would differ every time: its storage goes by its address.
    """
    torch = sys.modules["torch"]
    plain = tensor.layout is torch.strided and not tensor.is_quantized and tensor.device.type != "meta"
    if not plain or "numpy" not in sys.modules:
        return None
    values = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    return values.reshape(-1).view(torch.uint8).numpy()
