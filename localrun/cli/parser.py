"""argparse as localrun uses it: arguments added when a command is asked for, errors in one line, examples in the help."""

from __future__ import annotations

import argparse
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself would cost --help 5 ms
    from collections.abc import Callable
    from typing import Any, NoReturn


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help in the terminal's width, asked for without the library that argparse would load for that alone."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=terminal_width() - 2)


def terminal_width() -> int:
    """The columns of the terminal on stdout, or what ``COLUMNS`` says, or 80."""
    said = os.environ.get("COLUMNS", "")
    if said.isdigit() and int(said) > 0:
        return int(said)
    try:
        return os.get_terminal_size(1).columns or 80
    except OSError:  # no terminal
        return 80


class Parser(argparse.ArgumentParser):
    """The parser of a command; ``fill`` adds its arguments once the command is really asked for."""

    def __init__(self, *, fill: Callable[[Parser], None] | None = None, **options: Any) -> None:
        options.setdefault("formatter_class", _Help)
        super().__init__(allow_abbrev=False, **options)
        self._fill = fill

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, with the command's arguments added first."""
        fill, self._fill = self._fill, None
        if fill is not None:
            fill(self)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """End with exit code 2 and one line."""
        self.exit(2, f"localrun: error: {' '.join(message.split())} (see '{self.prog} --help')\n")

    def examples(self, *lines: str) -> None:
        """Show these after the help."""
        self.epilog = "examples:\n" + "\n".join(f"  {line}" for line in lines)

    def kinds(self) -> argparse._SubParsersAction[Parser]:
        """The second words of a command such as ``get runs``."""
        return self.add_subparsers(metavar="KIND", required=True)


def no_command(parser: Parser) -> int:
    """What ``localrun`` alone does: the help, as an error."""
    parser.print_help(sys.stderr)
    return 2
