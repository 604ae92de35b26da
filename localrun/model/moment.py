"""Times as people compare them: aware datetimes that also compare with naive ones, taken as local time."""

from __future__ import annotations

from datetime import datetime
from typing import Any


class Moment(datetime):
    """An aware ``datetime``; comparing or subtracting a naive one takes that as local time."""

    @classmethod
    def parse(cls, text: str | None) -> Moment | None:
        """A time of a record; None stays None."""
        return None if text is None else cls.fromisoformat(text)

    def __lt__(self, other: Any) -> bool:
        return super().__lt__(_aware(other))

    def __le__(self, other: Any) -> bool:
        return super().__le__(_aware(other))

    def __gt__(self, other: Any) -> bool:
        return super().__gt__(_aware(other))

    def __ge__(self, other: Any) -> bool:
        return super().__ge__(_aware(other))

    def __eq__(self, other: object) -> bool:
        return super().__eq__(_aware(other))

    def __hash__(self) -> int:
        return super().__hash__()

    def __sub__(self, other: Any) -> Any:
        return super().__sub__(_aware(other))

    def __rsub__(self, other: Any) -> Any:
        return _aware(other) - datetime.fromisoformat(self.isoformat())


def _aware(other: Any) -> Any:
    return other.astimezone() if isinstance(other, datetime) and other.tzinfo is None else other
