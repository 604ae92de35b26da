"""Names of runs: which there may be, and which a command without a name gets."""

from __future__ import annotations

from typing import Any

from localrun.errors import RunConfigError
from localrun.model.config import described

_NAME_MARKS = "._-"
_NAME_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789" + _NAME_MARKS)
_SCRIPTS = (".py", ".sh", ".R", ".jl", ".js", ".pl", ".rb", ".lua", ".ipynb")
_PREPARATIONS = {"cd", "export", "source", ".", "set", "ulimit", "umask", "mkdir", "module", "echo", "sleep", "exit"}
_PREPARATIONS |= {"pip", "conda", "apt-get", "git", "wget", "curl"}
_WRAPPERS = {"sudo", "env", "/usr/bin/env", "exec", "time", "nohup", "command"}


def validate_name(name: Any, field: str = "name") -> str:
    """The name itself if a run may have it: 1 to 128 of letters, digits, ``.``, ``_``, ``-``, no mark at its start."""
    rule = "use letters, digits, '.', '_' and '-', starting with a letter or digit, at most 128"
    if not isinstance(name, str):
        raise RunConfigError(f"{field}: must be text, not {described(name)}")
    strange = next((character for character in name if character not in _NAME_CHARACTERS), None)
    if not name:
        problem = "is empty"
    elif strange is not None:
        problem = f"has {strange!r}"
    elif name[0] in _NAME_MARKS:
        problem = f"starts with {name[0]!r}"
    elif len(name) > 128:
        problem = f"has {len(name)} characters"
    else:
        return name
    raise RunConfigError(f"{field}: {described(name)} {problem}: {rule}")


def name_from_command(command: str) -> str:
    """A readable name for a command's unnamed run: its script's or else its program's; at most 60 characters.

    ``cd /data && python train.py --lr 0.1`` gives ``train``. Not unique: that is for the caller to see to.
    """
    for words in _simple_commands(command[:10_000]):
        scripts = [word.rpartition(".")[0] for word in words if word.endswith(_SCRIPTS)]
        modules = [words[index + 1] for index, word in enumerate(words[:-1]) if word == "-m"]
        for candidate in (*scripts, *modules, *words):
            name = _name_characters(candidate.rpartition("/")[2])
            if name and not candidate.startswith("-"):
                return name
    return "run"


def _simple_commands(command: str) -> list[list[str]]:
    """The words of each command in a command line, less variables and wrappers; those that only prepare come last."""
    import shlex

    found: list[list[str]] = []
    for line in command.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        try:
            tokens = list(lexer)
        except ValueError:  # a quotation that ends in another line
            tokens = line.split()
        words: list[str] = []
        is_target = False
        for token in [*tokens, ";"]:
            if is_target:
                is_target = False
            elif "<" in token or ">" in token:
                is_target = True  # what is read from or written to comes next
            elif not token or token[0] in "();|&":
                found.append(words)
                words = []
            elif words or (token not in _WRAPPERS and "=" not in token):
                words.append(token)
    found = [words for words in found if words]
    return sorted(found, key=lambda words: words[0] in _PREPARATIONS)


def _name_characters(text: str) -> str:
    """A text made a name, as far as it goes: other characters become ``-``."""
    name = "".join(character if character in _NAME_CHARACTERS else "-" for character in text)
    return name.lstrip(_NAME_MARKS)[:60].rstrip(_NAME_MARKS)
