"""Sizes in bytes, as people write them."""

from __future__ import annotations

import re
from typing import Any

from localrun.errors import RunConfigError
from localrun.model.config import described

_SIZE = re.compile(r"\s*([0-9]{1,18}(?:\.[0-9]{0,18})?|\.[0-9]{1,18})\s*(?:([kmgt])(ib?|b)?|b)?\s*", re.IGNORECASE)
_POWER = {"k": 1, "m": 2, "g": 3, "t": 4}


def size(count: float) -> str:
    """A number of bytes in words, to three digits: "512 MiB", "1.5 GiB"."""
    units = iter(("bytes", "KiB", "MiB", "GiB", "TiB"))
    unit = next(units)
    while count >= 999.5 and unit != "TiB":
        count, unit = count / 1024, next(units)
    return f"{count:.3g} {'byte' if count == 1 and unit == 'bytes' else unit}"


def parse_size(value: Any, field: str) -> int:
    """The bytes of a size: a whole number, or text such as "8GiB", "1.5 GiB", "500MB" and "10g", in any case.

    KB, MB, GB and TB are decimal; KiB, MiB, GiB and TiB binary, as are the single letters (docker's). A fraction of
    a byte is rounded. Raises RunConfigError, beginning with ``field``, for anything else.
    """
    if isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        number, letter, rest = match.groups()
        base = 1000 if (rest or "").lower() == "b" else 1024
        factor = base ** _POWER[letter.lower()] if letter else 1
        return int(number) * factor if number.isdigit() else round(float(number) * factor)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0 and value % 1 == 0:
        return int(value)
    raise RunConfigError(
        f"{field}: must be a size, a number of bytes or text such as '8GiB' or '500MB', not {described(value)}"
    )
