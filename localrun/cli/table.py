"""Tables for people: as wide as they are in a pipe, never wider than the terminal on one.

Where a terminal is too narrow, whole columns are left out, in the order that the table says, until there is some room
for each; and long cells are cut with ``…``, those of the first column in their middle: names often differ at their
ends. A row is one line, but for a column that is to be whole: it stands beneath the row where it doesn't fit.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from localrun.cli import terminal
from localrun.cli.lines import print_line, start, width
from localrun.cli.output import one_line

_GAP = 2
_LEAST = 8  # to no less is a cell cut: columns are left out instead
_BOLD = "1"
_COLOURS = {
    "QUEUED": "33", "STARTING": "36", "RUNNING": "36", "TERMINATING": "36", "COMPLETED": "32", "STOPPED": "35",
    "FAILED": "31",
}  # fmt: skip


def print_table(
    titles: Sequence[str], rows: Sequence[Sequence[object]], expendable: Sequence[str] = (), *, whole: bool = False
) -> None:
    """Print a table; ``expendable`` are the columns that a narrow terminal can do without, the first to go first.

    With ``whole`` the last column is never cut.
    """
    columns = [[title, *map(_text, cells)] for title, *cells in zip(titles, *rows, strict=True)]
    widths = [max(map(width, column)) for column in columns]
    beneath: list[str] = []
    if sys.stdout.isatty():
        most = terminal.width()
        if whole and _total(widths) > most:
            titles, widths, (_, *beneath) = titles[:-1], widths[:-1], columns.pop()
        chosen = _chosen(titles, widths, expendable, most)
        columns, widths = [columns[place] for place in chosen], _fitted([widths[place] for place in chosen], most)
    if terminal.has_colours(sys.stdout):
        columns = [_coloured(column) for column in _shaped(columns, widths)]
    else:
        columns = _shaped(columns, widths)
    for place, line in enumerate(zip(*columns, strict=True)):
        print((" " * _GAP).join(line).rstrip())
        if beneath and place > 0:
            print_line(f"    {beneath[place - 1]}")


def _chosen(titles: Sequence[str], widths: Sequence[int], expendable: Sequence[str], most: int) -> list[int]:
    """The columns that are shown: all, or as many as there is some room for; of the others the last go first."""
    left = list(range(len(titles)))
    gone = [titles.index(title) for title in expendable]
    gone += [place for place in reversed(left[1:]) if place not in gone]
    while gone and _total([min(widths[place], _LEAST) for place in left]) > most:
        left.remove(gone.pop(0))
    return left


def _fitted(widths: Sequence[int], most: int) -> list[int]:
    """Widths that fit: the last column gives way first, then the widest of the others."""
    made = list(widths)
    surplus = _total(made) - most
    for place in [len(made) - 1, *sorted(range(len(made) - 1), key=lambda each: -made[each])]:
        give = max(min(made[place] - _LEAST, surplus), 0)
        made[place] -= give
        surplus -= give
    return made if surplus <= 0 else [most]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * (len(widths) - 1)


def _shaped(columns: Sequence[Sequence[str]], widths: Sequence[int]) -> list[list[str]]:
    """The cells, each cut and padded to its column's width."""
    return [
        [_padded(_cut(cell, most, middle=place == 0), most) for cell in column]
        for place, (column, most) in enumerate(zip(columns, widths, strict=True))
    ]


def _coloured(column: Sequence[str]) -> list[str]:
    title, *cells = column
    codes = _COLOURS if title.strip() == "STATUS" else {}
    return [_in_colour(title, _BOLD), *(_in_colour(cell, codes.get(cell.split(" ")[0])) for cell in cells)]


def _in_colour(text: str, code: str | None) -> str:
    return text if code is None else f"\x1b[{code}m{text}\x1b[0m"


def _text(cell: object) -> str:
    return "" if cell is None else one_line(str(cell))


def _cut(text: str, most: int, *, middle: bool) -> str:
    """A text of at most so many columns, with ``…`` where something is missing."""
    if width(text) <= most:
        return text
    head = (most - 1) // 2 if middle else most - 1
    return f"{start(text, head)}…{start(text[::-1], most - 1 - head)[::-1] if middle else ''}"


def _padded(text: str, to: int) -> str:
    return text + " " * (to - width(text))
