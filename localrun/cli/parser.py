"""argparse as localrun uses it: arguments come when a command is asked for, errors in one line, help with examples."""

from __future__ import annotations

import argparse

from localrun.cli import terminal

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself would cost --help 5 ms
    from collections.abc import Callable
    from typing import Any, NoReturn


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help in the terminal's width, told by us: argparse would load a library for that alone."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=max(terminal.width() - 2, 40))

    def add_argument(self, action: argparse.Action) -> None:
        """As argparse's, which forgets that the names of commands are indented once more than options."""
        super().add_argument(action)
        if isinstance(action, argparse._SubParsersAction):
            self._action_max_length += self._indent_increment


class Parser(argparse.ArgumentParser):
    """The parser of a command; ``fill`` adds its arguments once the command is really asked for."""

    def __init__(self, *, fill: Callable[[Parser], None] | None = None, **options: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_Help, **options)
        self._fill = fill

    def fill(self) -> None:
        """Add the command's arguments, unless they have been."""
        fill, self._fill = self._fill, None
        if fill is not None:
            fill(self)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, with the command's arguments added first."""
        self.fill()
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """End with exit code 2 and one line."""
        self.exit(2, f"localrun: error: {' '.join(message.split())} (see '{self.prog} --help')\n")

    def examples(self, *lines: str) -> None:
        """Show these after the help."""
        self.epilog = "examples:\n" + "\n".join(f"  {line}" for line in lines)
