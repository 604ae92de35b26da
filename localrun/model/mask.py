"""What hides the values of secrets in what is shown: ``Mask``, for texts and bytes as a whole or as they come.

A value of several lines is hidden line by line, so that whoever shows whole lines splits nothing. Very short ones are
left: hiding them would spoil what has nothing to do with them.
"""

from __future__ import annotations

from collections.abc import Iterable

SHOWN = "***"

_SHORTEST, _SHORTEST_OF_SEVERAL = 4, 8
# A larger file is no token or key, but data of thousands of lines, each of which would be looked for.
_LARGEST = 64 << 10


class Mask:
    """Puts ``***`` for each of these values, as they are and as ``repr`` shows them. False if there is none to hide."""

    def __init__(self, values: Iterable[bytes]) -> None:
        found: set[bytes] = set()
        for value in values:
            found.update(_lines(value) if len(value) <= _LARGEST else ())
        shown = {form for line in found for form in _forms(line)}
        self._bytes = sorted(found | shown, key=lambda each: (-len(each), each))
        self._texts = [each.decode("utf-8", "surrogateescape") for each in self._bytes]

    def __bool__(self) -> bool:
        return bool(self._bytes)

    def __eq__(self, other: object) -> bool:
        return self._bytes == other._bytes if isinstance(other, Mask) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self._bytes))

    def data(self, data: bytes) -> bytes:
        """These bytes without the values."""
        for value in self._bytes:
            if value in data:
                data = data.replace(value, SHOWN.encode())
        return data

    def text(self, text: str) -> str:
        """This text without the values."""
        for value in self._texts:
            text = text.replace(value, SHOWN)
        return text

    def is_needed(self, data: bytes) -> bool:
        """True if one of the values is in these bytes."""
        return any(value in data for value in self._bytes)

    def safe_until(self, data: bytes) -> int:
        """How much of what has come can be shown: behind it may stand the beginning of a value."""
        until = min((_begins(value, data) for value in self._bytes), default=len(data))
        while True:  # and no value may be cut in two
            inside = (data.find(each, max(until - len(each) + 1, 0), until + len(each) - 1) for each in self._bytes)
            earlier = min((at for at in inside if at >= 0), default=until)
            if earlier >= until:
                return until
            until = earlier


class MaskedStream:
    """The mask of bytes that come in pieces: what may be the beginning of a value waits for what follows."""

    def __init__(self, mask: Mask) -> None:
        self._mask = mask
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What can be shown now that these bytes have come."""
        data = self._held + data
        until = self._mask.safe_until(data)
        self._held = data[until:]
        return self._mask.data(data[:until])

    def finish(self) -> bytes:
        """What was held back, when nothing follows."""
        data, self._held = self._mask.data(self._held), b""
        return data


def _lines(value: bytes) -> list[bytes]:
    """What is looked for of a value."""
    lines = [line.strip() for line in value.strip().splitlines()]
    shortest = _SHORTEST if len(lines) == 1 else _SHORTEST_OF_SEVERAL
    return [line for line in lines if len(line) >= shortest]


def _forms(line: bytes) -> tuple[bytes, bytes]:
    """How ``repr`` shows it, as text and as bytes: of a ``KeyError``, say."""
    text = repr(line.decode("utf-8", "surrogateescape"))
    return text[1:-1].encode("utf-8", "surrogateescape"), repr(line)[2:-1].encode()


def _begins(value: bytes, data: bytes) -> int:
    """Where the end of the data is the beginning of a value, and not all of it; the data's length if nowhere."""
    at = data.find(value[:1], max(len(data) - len(value) + 1, 0))
    while at >= 0:
        if value.startswith(data[at:]):
            return at
        at = data.find(value[:1], at + 1)
    return len(data)
