"""What a run asks for, validated: ``Request``, made of a ``RunConfig`` before anything is created.

Owns what each field's value must be, and names. Which keys there are is ``config.py``'s; whether this machine has what
is asked for is the engine's. Everything here is a pure function of its arguments.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from localrun.errors import RunConfigError
from localrun.model.config import RunConfig, check_keys, described, plain
from localrun.model.sizes import parse_size

PRIORITIES = ("high", "auto", "low", "lowest")

# What is for containers alone.
_OF_CONTAINERS = ("compute.volumes", "compute.shm_size", "compute.pull", "compute.network")


@dataclass(frozen=True, kw_only=True)
class Request:
    """A run's configuration with every value checked, converted and defaulted (fields as in ``mcli.RunConfig``)."""

    name: str | None = None
    parent_name: str | None = None
    image: str | None = None
    command: str = ""
    cwd: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    env_variables: dict[str, str] = field(default_factory=dict, repr=False)
    metadata: dict[str, Any] = field(default_factory=dict)
    secrets: list[str] | None = None  # None: all there are when it starts
    integrations: list[dict[str, Any]] = field(default_factory=list)  # as `integrations` spells them out
    # compute
    cluster: str | None = None
    instance: str | None = None
    nodes: int = 1
    gpu_type: str | None = None
    gpus: int = 0
    gpu_memory: int = 0  # bytes, each GPU's in all; 0 asks for none in particular
    gpu_binding: str = "all"
    gpu_visibility: str = "uuid"
    allow_shared_gpus: bool = False
    nproc_per_node: int | None = None  # "gpu" has become a number
    cpus: float = 1.0  # 0 for a run with GPUs
    memory: int = 0  # bytes; 0 asks for none in particular
    volumes: list[dict[str, Any]] = field(default_factory=list)  # as `containers` spells them out
    shm_size: int = 0  # bytes; 0: half the machine's memory
    pull: str = "missing"
    network: str = "host"
    # scheduling
    priority: str = "auto"
    preemptible: bool = False
    max_retries: int = 0
    retry_on_system_failure: bool = False
    max_duration: float | None = None  # hours
    stop_grace: float = 30.0  # seconds
    after: list[Any] = field(default_factory=list)  # names of runs, or Runs
    after_any: list[Any] = field(default_factory=list)

    @classmethod
    def from_config(cls, config: RunConfig, *, needs_command: bool = True) -> Self:
        """The request a configuration makes, which itself stays as it is; ``needs_command`` unless it runs a function.

        Raises RunConfigError with one line that begins with the field at fault.
        """
        mapping = config.to_mapping()
        check_keys(mapping)
        given = _by_path(mapping)
        values = {path.rpartition(".")[2]: rule(given[path], path) for path, rule in _RULES.items() if path in given}
        if values.get("integrations") and "cwd" in values:
            raise RunConfigError("cwd: a run with integrations works in a folder of its own: leave it out")
        if values.get("image") or any(path in given for path in _OF_CONTAINERS):
            from localrun.model.containers import check_together

            check_together(values, {path: given.get(path) for path in _OF_CONTAINERS})
        if needs_command and not values.get("command", "").strip():
            raise RunConfigError("command: must not be empty")
        return cls(**_with_gpus_settled(values))


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


_NAME_MARKS = "._-"
_NAME_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789" + _NAME_MARKS)
_SCRIPTS = (".py", ".sh", ".R", ".jl", ".js", ".pl", ".rb", ".lua", ".ipynb")
_PREPARATIONS = {"cd", "export", "source", ".", "set", "ulimit", "umask", "mkdir", "module", "echo", "sleep", "exit"}
_PREPARATIONS |= {"pip", "conda", "apt-get", "git", "wget", "curl"}
_WRAPPERS = {"sudo", "env", "/usr/bin/env", "exec", "time", "nohup", "command"}


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


def _by_path(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """What a configuration sets, by dotted path; None sets nothing."""
    parts = [("", mapping), ("compute.", mapping.get("compute", {})), ("scheduling.", mapping.get("scheduling", {}))]
    return {prefix + key: value for prefix, part in parts for key, value in part.items() if value is not None}


def _with_gpus_settled(values: dict[str, Any]) -> dict[str, Any]:
    """The values with what GPUs decide: ``gpu_type: none`` means no GPUs, and a run with GPUs asks for no CPU."""
    gpus, gpu_type = values.get("gpus", 0), values.get("gpu_type")
    if gpu_type is not None and gpu_type.lower() == "none":
        if gpus:
            raise RunConfigError(f"compute.gpu_type: {gpu_type!r} asks for no GPU, and compute.gpus for {gpus}")
        gpu_type = None
    for name, value in (("gpu_type", gpu_type), ("gpu_memory", values.get("gpu_memory"))):
        if value and "gpus" not in values:  # an explicit 0 is a run that tries without
            raise RunConfigError(f"compute.{name}: says which GPUs, and compute.gpus not how many: set that, too")
    kind = {"gpu_type": gpu_type or None} if gpus else {"gpu_type": None, "gpu_memory": 0}
    values = {"cpus": 0.0 if gpus else 1.0} | values | kind
    ranks = values.get("nproc_per_node")
    if ranks == "gpu":
        if not gpus:
            raise RunConfigError("compute.nproc_per_node: 'gpu' starts a process for each GPU: set compute.gpus")
        values["nproc_per_node"] = ranks = gpus
    share = gpus
    if values.get("gpu_binding") == "rank":
        if gpus % (ranks or 1):
            raise RunConfigError(f"compute.gpu_binding: {gpus} GPUs can't be divided among {ranks} ranks")
        share = gpus // (ranks or 1)
    if share > 1 and "mig" in (gpu_type or "").lower():
        raise RunConfigError(
            f"compute.gpus: CUDA gives a process one MIG instance, not {share}: "
            "set compute.gpu_binding to 'rank' and compute.nproc_per_node to 'gpu'"
        )
    return values


# What each field's value must be. A rule takes the value and the field's dotted path, and returns the value converted.

_Rule = Callable[[Any, str], Any]
_MOST_RANKS = 1024
_MOST = 10**9  # keeps every duration within what clocks and timeouts take


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


_RULES: dict[str, _Rule] = {
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
