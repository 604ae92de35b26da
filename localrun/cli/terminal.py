"""What a terminal is to the command line: its width, and a line that is updated in place. Imports almost nothing."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself would cost --help 5 ms
    from typing import TextIO


def width(fd: int = 1) -> int:
    """The columns of the terminal on a descriptor, or what ``COLUMNS`` says, or 80."""
    said = os.environ.get("COLUMNS", "")
    if said.isdigit() and int(said) > 0:
        return int(said)
    try:
        return os.get_terminal_size(fd).columns or 80
    except OSError:  # no terminal
        return 80


def has_colours(stream: TextIO) -> bool:
    """True if a stream shows colours: a terminal that can, unless ``NO_COLOR`` says that nobody wants them."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


class StatusLine:
    """A line about how things stand: updated in place on a terminal, elsewhere a line for each change."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._in_place = stream.isatty()
        self._shown = ""

    @property
    def in_place(self) -> bool:
        """True on a terminal, where what is shown can be taken back."""
        return self._in_place

    def show(self, text: str) -> None:
        """Show this text, unless it is what is shown already."""
        if text == self._shown:
            return
        self._shown = text
        if self._in_place:
            self._stream.write(f"\r{text[: width(self._stream.fileno()) - 1]}\x1b[K")
        else:
            self._stream.write(f"{text}\n")
        self._stream.flush()

    def clear(self) -> None:
        """Take it back, as far as it can be."""
        if self._shown and self._in_place:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
        self._shown = ""
