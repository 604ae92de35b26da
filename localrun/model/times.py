"""Times as records have them: UTC ISO 8601 with offset, in microseconds."""

from __future__ import annotations

import time


def now() -> str:
    """The time now."""
    return iso(time.time())


def iso(seconds: float) -> str:
    """A time in seconds since the epoch."""
    whole, micro = divmod(round(seconds * 1_000_000), 1_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{micro:06d}+00:00"


def seconds(text: str) -> float:
    """Such a time in seconds since the epoch."""
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()
