"""``localrun completion``: a script for a shell, made from the parsers themselves, so that it knows what they know.

A script holds all words there are; only names that come and go, of runs and secrets, does it ask ``localrun completion
names`` for, which imports next to nothing. What a value is, its placeholder in the help says: RUN, FILE, STATUS, ….
"""

from __future__ import annotations

import argparse
import os

from localrun import settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from localrun.cli.parser import Parser
    from localrun.cli.shells import Place

_HOW = {
    "bash": "source <(localrun completion bash)        # in ~/.bashrc",
    "zsh": "source <(localrun completion zsh)         # in ~/.zshrc, behind compinit",
    "fish": "localrun completion fish | source         # in ~/.config/fish/config.fish",
}
_NAMED = {"RUN": ":runs", "SECRET": ":secrets", "FILE": ":files", "FOLDER": ":folders"}
_ANYTHING = ":any"


def add_completion(parser: Parser) -> None:
    """The second words of ``localrun completion``."""
    kinds = parser.add_subparsers(title="kinds", metavar="KIND", required=True)
    for shell in _HOW:
        kinds.add_parser(shell, help=f"the script for {shell}", fill=_filler(shell))
    kinds.add_parser("names", help="the names that a script asks for", fill=_add_names)
    parser.examples(*_HOW.values())


def _filler(shell: str) -> Callable[[Parser], None]:
    def fill(parser: Parser) -> None:
        parser.description = f"Print a script that lets {shell} complete localrun's commands, options and names."
        parser.examples(_HOW[shell])
        parser.set_defaults(command=script, shell=shell)

    return fill


def _add_names(parser: Parser) -> None:
    parser.description = "Print the names of runs or secrets, a line each."
    parser.add_argument("what", choices=("runs", "secrets"), help="of what")
    parser.add_argument("prefix", nargs="?", default="", metavar="PREFIX", help="only those that begin so")
    parser.examples("localrun completion names runs lr-")
    parser.set_defaults(command=names, touches_queue=False)


def names(args: argparse.Namespace) -> None:
    """Print the names of runs or secrets, by no more than a look into their folder."""
    folder = settings.runs_dir() if args.what == "runs" else f"{settings.home()}/secrets"
    try:
        found = sorted(name for name in os.listdir(folder) if name.startswith(args.prefix) and name[0] != ".")
    except OSError:
        return  # nothing is no error to whoever presses Tab
    print("".join(f"{name}\n" for name in found), end="")


def script(args: argparse.Namespace) -> None:
    """Print the script for a shell."""
    from localrun.cli import shells
    from localrun.cli.main import command_parser

    print(shells.SCRIPTS[args.shell](list(places("localrun", command_parser()))), end="")


def places(words: str, parser: Parser) -> Iterator[Place]:
    """Where something can be completed: behind these words, and behind those that may follow them."""
    from localrun.cli.shells import Option, Place

    parser.fill()
    commands: dict[str, str] = {}
    options, operand, inner = [], "", []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            about = {name: each.help for each in action._choices_actions for name in (each.dest, *_aliases(each))}
            commands = {name: about.get(name) or "" for name in action.choices}
            inner = list(action.choices.items())
        elif action.option_strings:
            options.append(Option(tuple(action.option_strings), _value(action), action.help or ""))
        elif action.help is not argparse.SUPPRESS:
            operand = _value(action) if operand in ("", _ANYTHING) else operand
    yield Place(words, commands, options, operand)
    for name, each in inner:
        yield from places(f"{words} {name}", each)


def _aliases(choice: argparse.Action) -> list[str]:
    """The other names of a command, from how argparse shows them: ``runs (run)``."""
    _, _, others = str(choice.metavar).partition(" (")
    return others.removesuffix(")").split(", ")


def _value(action: argparse.Action) -> str:
    """What an option or operand takes: ``""`` for nothing, words, or the mark of a kind of names."""
    if action.nargs == 0:
        return ""
    if action.choices is not None:
        return " ".join(map(str, action.choices))
    placeholder = str(action.metavar)
    if placeholder == "STATUS":
        from localrun.model.status import RunStatus

        return " ".join(status.value for status in RunStatus)
    if placeholder == "PRIORITY":
        from localrun.model.rules import PRIORITIES

        return " ".join(PRIORITIES)
    literal = [word for word in placeholder.split("|") if word.islower()]
    return _NAMED.get(placeholder) or " ".join(literal) or _ANYTHING
