"""What runs themselves say of their starts and ends, and that none was there twice at once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path


class Journal:
    """A file to which runs append. Each holds a lock of its own all along, and so do its children."""

    def __init__(self, place: Path) -> None:
        self._place = place / "journal"
        self._place.mkdir(exist_ok=True)
        self._lines = self._place / "lines"
        self._lines.touch()

    def command(self, work: str = "true", code: str = "0") -> str:
        """A command that does this work between its start and its end."""
        return f"""
            cd '{self._place}'
            exec 9>> "lock-$LOCALRUN_RUN_UID"
            flock --nonblock 9 || echo "twice $RUN_NAME" >> lines
            echo "start $RUN_NAME $RESUMPTION_INDEX" >> lines
            {work}
            echo "end $RUN_NAME $RESUMPTION_INDEX" >> lines
            exit {code}
        """

    def lines(self) -> list[list[str]]:
        """Kind, run name and resumption, in order."""
        return [line.split() for line in self._lines.read_text().splitlines()]

    def order(self) -> list[str]:
        """The runs in the order of their starts."""
        return [name for kind, name, *_ in self.lines() if kind == "start"]

    def check(self) -> None:
        """Nobody was there twice at once, and no attempt was started or ended twice."""
        counts = Counter(map(tuple, self.lines()))
        twice = {line: count for line, count in counts.items() if count > 1 or line[0] == "twice"}
        assert not twice, twice
