"""What a configuration's ``integrations`` must be: checked, and with every key and default spelled out.

Types and keys are mcli's, with ``find_links`` besides (a folder of wheels: pip then installs from nowhere else). What
they do is ``engine.preparation``'s.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from localrun.errors import RunConfigError
from localrun.model.config import described

Integration = dict[str, Any]
_Rule = Callable[[Any, str], Any]

_ELSEWHERE = ("wandb", "mlflow", "comet_ml")


def validate_integrations(value: list[Any], field: str = "integrations") -> list[Integration]:
    """The integrations in their order, each with all keys of its type; relative places are the caller's folder's.

    Raises RunConfigError with one line that begins with the key at fault.
    """
    checked = [_checked(item, f"{field}[{index}]") for index, item in enumerate(value)]
    taken: dict[str, str] = {}
    for index, item in enumerate(checked):
        if "path" in item:
            where = f"{field}[{index}].path"
            if item["path"] in taken:
                raise RunConfigError(f"{where}: {item['path']!r} is taken by {taken[item['path']]}: set another path")
            taken[item["path"]] = f"{field}[{index}]"
    return checked


def described_integration(integration: Mapping[str, Any]) -> str:
    """An integration in a few words: its type and what it brings."""
    what = integration.get("git_repo") or " ".join(integration.get("packages", ()))
    return f"{integration['integration_type']} {what}"


def needs_venv(integrations: Sequence[Mapping[str, Any]]) -> bool:
    """True if they install Python packages."""
    return any("packages" in integration or integration["pip_install"] for integration in integrations)


def _checked(item: Any, where: str) -> Integration:
    if not isinstance(item, dict):
        raise RunConfigError(f"{where}: must be a mapping, not {described(item)}")
    given = {key: value for key, value in item.items() if value is not None}
    kind = given.pop("integration_type", None)
    rules = _TYPES.get(kind) if isinstance(kind, str) else None
    if rules is None:
        raise RunConfigError(f"{where}.integration_type: {_refused_type(kind)}")
    for key in given:
        if key not in rules:
            raise RunConfigError(f"{where}: unknown key {described(key)}{_hint(key, rules)}")
    for key, (_, default) in rules.items():
        if default is _REQUIRED and key not in given:
            raise RunConfigError(f"{where}.{key}: {kind} needs it")
    values = {
        key: rule(given[key], f"{where}.{key}") if key in given else default for key, (rule, default) in rules.items()
    }
    return {"integration_type": kind, **(_repository(values, where) if kind == "git_repo" else values)}


def _refused_type(kind: Any) -> str:
    if kind == "apt_packages":
        return "apt_packages needs a container in which a run is root: install them on the machine, or in the image"
    if kind in _ELSEWHERE:
        return f"{kind} is not one of localrun's: log to it from your code, with its key as a secret"
    if kind is None:
        return f"must be given: {' or '.join(_TYPES)}"
    return f"{described(kind)} is none of {', '.join(_TYPES)}{_hint(kind, _TYPES, allowed=False)}"


def _hint(key: Any, keys: Mapping[str, Any], *, allowed: bool = True) -> str:
    import difflib

    close = difflib.get_close_matches(str(key), keys, 1)
    return f": did you mean {close[0]!r}?" if close else f": allowed are {', '.join(keys)}" * allowed


def _repository(values: dict[str, Any], where: str) -> dict[str, Any]:
    """A repository's keys with its URL and its place settled: ``owner/name`` is ``host``'s, by ssh unless told not."""
    host, by_ssh = values.pop("host"), values.pop("ssh_clone")
    repo = values["git_repo"]
    path = values["path"] or repo.rstrip("/").rpartition("/")[2].rpartition(":")[2].removesuffix(".git")
    if "://" not in repo and ":" not in repo.partition("/")[0] and not repo.startswith("/"):
        if repo.count("/") != 1 or not all(repo.split("/")):
            raise RunConfigError(
                f"{where}.git_repo: must be owner/name, a URL, or a path that begins with /, ./, ../ or ~, "
                f"not {described(repo)}"
            )
        repo = f"git@{host}:{repo}.git" if by_ssh else f"https://{host}/{repo}.git"
    return values | {"git_repo": repo, "path": _inside_work(path, f"{where}.path")}


# What each key must be. A rule takes the value and where it stands, and returns the value converted.


def _text(value: Any, where: str) -> str:
    """Text that a program can be given as an argument, and won't take for an option."""
    if not isinstance(value, str) or not value.strip():
        raise RunConfigError(f"{where}: must be text, not {described(value)}")
    if value.startswith("-") or not value.isprintable():
        raise RunConfigError(f"{where}: must be printable and not begin with '-': {described(value)}")
    return value


def _place(value: Any, where: str) -> str:
    """Text; a path that begins with ``./``, ``../`` or ``~`` made absolute."""
    text = _text(value, where)
    if text in (".", "..", "~") or text.startswith(("./", "../", "~/")):
        return os.path.abspath(os.path.expanduser(text))
    return text


def _folder(value: Any, where: str) -> str:
    return os.path.abspath(os.path.expanduser(_text(value, where)))


def _inside_work(value: Any, where: str) -> str:
    path = os.path.normpath(_text(value, where))
    if path.startswith(("/", "..")) or path == ".":
        raise RunConfigError(f"{where}: must name a folder inside the run's working folder, not {described(value)}")
    return path


def _flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise RunConfigError(f"{where}: must be true or false, not {described(value)}")
    return value


def _packages(value: Any, where: str) -> list[str]:
    if not isinstance(value, list) or not value:
        raise RunConfigError(f"{where}: must be a list of packages, not {described(value)}")
    return [_place(each, f"{where}[{index}]") for index, each in enumerate(value)]


def _arguments(value: Any, where: str) -> list[str]:
    """What comes after ``pip install`` on a command line, as words."""
    if not isinstance(value, str) or not value.strip():
        raise RunConfigError(f"{where}: must be text, not {described(value)}")
    try:
        return shlex.split(value)
    except ValueError as error:
        raise RunConfigError(f"{where}: {error}: {described(value)}") from None


_REQUIRED: Any = object()
# Each type's keys: a key's rule, and what it is when not given.
_TYPES: dict[str, dict[str, tuple[_Rule, Any]]] = {
    "git_repo": {
        "git_repo": (_place, _REQUIRED),
        "git_branch": (_text, None),
        "git_commit": (_text, None),
        "path": (_text, None),
        "ssh_clone": (_flag, True),
        "host": (_text, "github.com"),
        "pip_install": (_arguments, None),
    },
    "pip_packages": {
        "packages": (_packages, _REQUIRED),
        "upgrade": (_flag, False),
        "find_links": (_folder, None),
    },
}
