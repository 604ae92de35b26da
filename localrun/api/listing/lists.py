"""Lists of what localrun has, with mcli's names: they show themselves in notebooks, become tables, and have pages."""

from __future__ import annotations

import html
import importlib
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from localrun.errors import MissingPackageError

T = TypeVar("T")


class ObjectList(list[T]):
    """A list of objects of one type (``mcli.ObjectList``), a row each where it is shown as a table.

    Its columns are the attributes that the type names in ``_columns``.
    """

    def __init__(self, data: Iterable[T], obj_type: type[T]) -> None:
        super().__init__(data)
        self.type = obj_type

    def to_pandas(self) -> Any:
        """The table as a ``pandas.DataFrame``, statuses as text. MissingPackageError where pandas isn't installed."""
        try:
            pandas = importlib.import_module("pandas")
        except ImportError:
            raise MissingPackageError("to_pandas: pandas is not installed: pip install pandas") from None
        return pandas.DataFrame([self._cells(each) for each in self], columns=list(self._columns))

    def _repr_html_(self) -> str:
        """The table as a notebook shows it."""
        head = "".join(f"<th>{html.escape(column)}</th>" for column in self._columns)
        rows = "".join(
            f"<tr>{''.join(f'<td>{_shown(cell)}</td>' for cell in self._cells(each))}</tr>\n" for each in self
        )
        return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table>"

    @property
    def _columns(self) -> tuple[str, ...]:
        return tuple(getattr(self.type, "_columns", ()))

    def _cells(self, each: T) -> list[Any]:
        return [_plain(getattr(each, column)) for column in self._columns]


class PaginatedObjectList(ObjectList[T]):
    """One page of a list (``mcli.PaginatedObjectList``).

    ``query_function`` gives the page behind this one, of at most so many objects (None: as many as this one at most).
    """

    def __init__(
        self,
        data: Iterable[T],
        obj: type[T],
        query_function: Callable[[int | None], PaginatedObjectList[T]],
    ) -> None:
        super().__init__(data, obj)
        self._query = query_function

    def next_page(self, limit: int | None = None) -> PaginatedObjectList[T]:
        """The page behind this one; what came since it was made moves nothing. StopIteration if there is none."""
        page = self._query(limit)
        if not page:
            raise StopIteration("there is no further page")
        return page


def _plain(value: Any) -> Any:
    """A cell's value; a status, which is an enum, as text."""
    return value.value if hasattr(value, "value") else value


def _shown(value: Any) -> str:
    return "" if value is None else html.escape(str(value))
