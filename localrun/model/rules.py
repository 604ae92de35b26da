"""What each field's value must be, by its dotted path: ``RULES``.

A rule takes the value and the path, and returns the value converted, or raises RunConfigError with one line that begins
with the path. Which keys there are is ``config.py``'s, what they mean together ``request.py``'s.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

from localrun.errors import RunConfigError
from localrun.model.config import described, plain
from localrun.model.names import validate_name
from localrun.model.sizes import parse_size

PRIORITIES = ("high", "auto", "low", "lowest")

_Rule = Callable[[Any, str], Any]
_MOST_RANKS = 1024
_MOST = 10**9  # keeps every duration within what clocks and timeouts take


def validate_metadata(value: Any, field: str = "metadata") -> dict[str, Any]:
    """The metadata if a run may have it: at most 200 keys of 1 to 200 characters, each value's JSON at most 100 KB."""
    metadata = _json_mapping(plain(value), field)
    if len(metadata) > 200:
        raise RunConfigError(f"{field}: must have at most 200 keys, not {len(metadata)}")
    for key, item in metadata.items():
        if not 1 <= len(key) <= 200:
            raise RunConfigError(f"{field}: a key must have 1 to 200 characters, and {described(key)} has {len(key)}")
        size = len(json.dumps(item, ensure_ascii=False).encode("utf-8", "surrogatepass"))
        if size > 100_000:
            raise RunConfigError(f"{field}.{key}: must be at most 100 KB of JSON, not {size} bytes")
    return metadata


def _refuse(field: str, wanted: str, value: object) -> RunConfigError:
    return RunConfigError(f"{field}: must be {wanted}, not {described(value)}")


def _number(*, whole: bool = False, above_zero: bool = False) -> _Rule:
    kinds = int if whole else (int, float)
    wanted = f"{'a whole number' if whole else 'a number'}, {'more than 0' if above_zero else '0 or more'}"

    def rule(value: Any, field: str) -> float:
        number = isinstance(value, kinds) and not isinstance(value, bool)
        if not number or not value >= 0 or (above_zero and value == 0):  # NaN is not >= 0
            raise _refuse(field, wanted, value)
        if value > _MOST:
            raise _refuse(field, f"at most {_MOST}", value)
        return value if whole else float(value)

    return rule


def _text(value: Any, field: str) -> str:
    """Text that a process can be given: no NUL, nothing that has no encoding."""
    if not isinstance(value, str):
        raise _refuse(field, "text", value)
    _check_characters(value, field)
    return value


def _check_characters(text: str, field: str) -> None:
    """Refuse what no process can be given, without showing the text: it may be an environment's value."""
    try:
        encoded = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise RunConfigError(f"{field}: has a character that cannot be encoded") from None
    if b"\0" in encoded:
        raise RunConfigError(f"{field}: must not have a NUL character")


def _folder(value: Any, field: str) -> str:
    if value == "":
        raise RunConfigError(f"{field}: must not be empty")
    return _text(value, field)


def _secrets(value: list[Any], field: str) -> list[str]:
    """The names of secrets, each once; whether there are such is not asked here."""
    return list(dict.fromkeys(validate_name(name, f"{field}[{index}]") for index, name in enumerate(value)))


def _integrations(value: list[Any], field: str) -> list[dict[str, Any]]:
    if not value:
        return []
    from localrun.model.integrations import validate_integrations

    return validate_integrations(value, field)


def _of_containers(rule: str) -> _Rule:
    """The rule of that name in `containers`, which is loaded when it is needed."""

    def validate(value: Any, field: str) -> Any:
        from localrun.model import containers

        return getattr(containers, rule)(value, field)

    return validate


def _flag(value: Any, field: str) -> bool:
    if not isinstance(value, bool):
        raise _refuse(field, "true or false", value)
    return value


def _runs(value: Any, field: str) -> list[Any]:
    """Runs, by name or as Runs; which these are is not asked here."""
    if not isinstance(value, list):
        raise _refuse(field, "a list of runs", value)
    return [each if hasattr(each, "run_uid") else validate_name(each, f"{field}[{i}]") for i, each in enumerate(value)]


def _gpu_type(value: Any, field: str) -> str:
    if not any(character.isascii() and character.isalnum() for character in _text(value, field)) and value != "":
        raise _refuse(field, "a word of a GPU's name, such as 'h100', or 'none'", value)
    return str(value)


def _priority(value: Any, field: str) -> str:
    if not isinstance(value, str) or value.lower() not in PRIORITIES:
        raise _refuse(field, "'high', 'auto', 'low' or 'lowest'", value)
    return value.lower()


def _one_of(*allowed: str) -> _Rule:
    def rule(value: Any, field: str) -> str:
        if value not in allowed:
            raise _refuse(field, " or ".join(map(repr, allowed)), value)
        return str(value)

    return rule


def _processes(value: Any, field: str) -> int | str:
    if value == "gpu":
        return "gpu"
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MOST_RANKS:
        raise _refuse(field, f"'gpu' or a whole number from 1 to {_MOST_RANKS}", value)
    return value


def _one_node(value: Any, field: str) -> int:
    if value != 1 or not isinstance(value, int) or isinstance(value, bool):
        raise _refuse(field, "1, as localrun runs on one machine", value)
    return value


def _environment(value: Any, field: str) -> dict[str, str]:
    """Environment variables as text: numbers in Python's notation, ``true`` and ``false``. Errors show no value."""
    environment = {}
    for name, item in value.items():
        _check_variable(name, field)
        where = _inside(field, name)
        if isinstance(item, bool):
            item = "true" if item else "false"
        elif isinstance(item, int) or (isinstance(item, float) and math.isfinite(item)):
            item = str(item)
        if not isinstance(item, str):
            kind = "NaN or infinite" if isinstance(item, float) else described(item)
            raise RunConfigError(f"{where}: must be text, a number, true or false, not {kind}")
        _check_characters(item, where)
        environment[name] = item
    return environment


def _check_variable(name: Any, field: str) -> None:
    if not isinstance(name, str):
        raise RunConfigError(f"{field}: the name {described(name)} must be text: put it in quotes")
    if not name or "=" in name:  # what follows the = may be a value: not shown
        raise RunConfigError(f"{field}: a name must not be empty or have '=': {described(name.partition('=')[0])}")
    _check_characters(name, _inside(field, name))
    if name == "CUDA_VISIBLE_DEVICES":
        raise RunConfigError(f"{field}.{name}: compute.gpus is the way to ask for GPUs; localrun sets this variable")


def _inside(field: str, key: str) -> str:
    """The dotted path of a key in a field, on one line whatever the key."""
    return f"{field}.{key}" if key.isprintable() else f"{field}.{key!r}"


def _json_mapping(value: Any, field: str) -> dict[str, Any]:
    """A mapping that JSON can hold just as it is."""
    if not isinstance(value, dict):
        raise _refuse(field, "a mapping", value)
    _check_json(value, field)
    return value


def _check_json(value: Any, field: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise RunConfigError(f"{field}: the key {described(key)} must be text: put it in quotes")
            _check_json(item, _inside(field, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_json(item, f"{field}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise _refuse(field, "a finite number, as JSON has no other", value)
    elif not (value is None or isinstance(value, (str, int, float))):
        raise _refuse(field, "text, a number, true, false, null, a list or a mapping", value)


RULES: dict[str, _Rule] = {
    "name": validate_name,
    "parent_name": _text,
    "image": _of_containers("validate_image"),
    "command": _text,
    "cwd": _folder,
    "parameters": _json_mapping,
    "env_variables": _environment,
    "metadata": validate_metadata,
    "secrets": _secrets,
    "integrations": _integrations,
    "compute.cluster": _text,
    "compute.instance": _text,
    "compute.nodes": _one_node,
    "compute.gpu_type": _gpu_type,
    "compute.gpus": _number(whole=True),
    "compute.gpu_memory": parse_size,
    "compute.gpu_binding": _one_of("all", "rank"),
    "compute.gpu_visibility": _one_of("uuid", "index"),
    "compute.allow_shared_gpus": _flag,
    "compute.nproc_per_node": _processes,
    "compute.cpus": _number(),
    "compute.memory": parse_size,
    "compute.volumes": _of_containers("validate_volumes"),
    "compute.shm_size": parse_size,
    "compute.pull": _one_of("missing", "never", "always"),
    "compute.network": _of_containers("validate_network"),
    "scheduling.priority": _priority,
    "scheduling.preemptible": _flag,
    "scheduling.max_retries": _number(whole=True),
    "scheduling.retry_on_system_failure": _flag,
    "scheduling.max_duration": _number(above_zero=True),
    "scheduling.stop_grace": _number(),
    "scheduling.after": _runs,
    "scheduling.after_any": _runs,
}
