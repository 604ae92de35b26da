"""Lines for people: as wide as they are in a pipe, wrapped on a terminal that is too narrow for them."""

from __future__ import annotations

import sys
import unicodedata

from localrun.cli import terminal


def print_line(text: str, hang: int = 4) -> None:
    """Print a line; what does not fit the terminal stands below it, so many columns in, as far as there is room."""
    if not sys.stdout.isatty():
        print(text)
        return
    most = terminal.width()
    indent = " " * min(hang, most // 2)
    first, *others = wrapped(text, most, most - len(indent))
    print("\n".join([first, *(f"{indent}{other}" for other in others)]))


def wrapped(text: str, most: int, later: int) -> list[str]:
    """A text in lines of at most ``most`` columns, ``later`` behind the first; between words where that can be."""
    made = []
    while width(text) > most:
        fits = max(len(start(text, most)), 1)
        space = text.rfind(" ", 0, fits + 1)
        end = space if text[: max(space, 0)].strip() else fits
        made.append(text[:end].rstrip())
        text, most = text[end:].lstrip(), later
    return [*made, text] if text or not made else made


def width(text: str) -> int:
    """How many columns a text takes on a terminal; many an East Asian character takes two, an accent none."""
    if text.isascii():
        return len(text)
    return sum(map(_width, text))


def start(text: str, most: int) -> str:
    """As much of a text as fits so many columns."""
    taken = 0
    for place, character in enumerate(text):
        taken += _width(character)
        if taken > most:
            return text[:place]
    return text


def _width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
