"""The configuration of a run as its user writes it: ``RunConfig``, made from keywords, a mapping or a file.

Owns which keys there are and their older spellings. How text is read and written is ``configtext``'s, what the values
must be ``request``'s.
Names and shapes are those of ``mcli.RunConfig`` (Python SDK, Manage a run with the SDK).
"""

from __future__ import annotations

import copy
import operator
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Self, TypedDict

from localrun import files
from localrun.errors import RunConfigError
from localrun.model import configtext
from localrun.model.configtext import described as described


class ComputeConfig(TypedDict, total=False):
    """What a run needs of the machine (``mcli.ComputeConfig``). Sizes are bytes, or text such as "8GiB" and "500MB"."""

    cluster: str  # a name for this machine: any is accepted
    instance: str  # the same
    nodes: int  # 1: localrun knows one machine
    gpu_type: str  # matched loosely with the GPU's own name; "none" for CPU only
    gpus: int
    gpu_memory: int | str  # at least so much in all, of each GPU
    cpus: float  # may be 0 or a fraction; default 1, and 0 for a run with GPUs
    memory: int | str  # the machine's
    nproc_per_node: int | str  # ranks, or "gpu" for one per GPU
    gpu_binding: str  # "rank": each rank sees its own slice of the GPUs
    gpu_visibility: str  # "uuid" (default) or "index": how CUDA_VISIBLE_DEVICES names GPUs
    allow_shared_gpus: bool  # also take GPUs on which foreign processes hold memory
    volumes: list[str]  # "HOST:CONTAINER[:ro]"
    shm_size: int | str  # a container's shared memory
    pull: str  # when a container's image is fetched: "missing" by default
    network: str  # a container's


class SchedulingConfig(TypedDict, total=False):
    """When a run starts, is retried and must end (``mcli.SchedulingConfig``)."""

    priority: str  # "high", "auto" (default), "low" or "lowest"
    preemptible: bool  # may be stopped and requeued for a run of higher priority
    max_retries: int  # after failures of the run itself; default 0
    retry_on_system_failure: bool
    max_duration: float  # hours, from the first start
    stop_grace: float  # seconds between SIGTERM and SIGKILL; default 30
    after: list[str]  # runs that must complete first
    after_any: list[str]  # runs that must end first, whatever they end as


@dataclass(init=False, repr=False)
class RunConfig:
    """A run's configuration, not yet validated and free to change (``mcli.RunConfig``).

    Every field is optional; ``None`` leaves it unset. Fields of ``compute`` and ``scheduling`` are attributes too:
    ``config.gpus = 8`` sets ``config.compute["gpus"]`` and ``None`` unsets it. What is given is copied deeply when the
    config is made and again by ``to_mapping()``, so that a submitted run never changes with its caller's objects.
    An unknown key or attribute is a RunConfigError; mcli's older spellings work with a DeprecationWarning.
    """

    name: str | None = None
    parent_name: str | None = None
    image: str | None = None
    command: str = ""
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    scheduling: SchedulingConfig = field(default_factory=SchedulingConfig)
    parameters: dict[str, Any] = field(default_factory=dict)
    integrations: list[dict[str, Any]] = field(default_factory=list)  # done first: `model.integrations` has their keys
    env_variables: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    secrets: list[str] | None = None  # the names of those it gets; all of the user's by default
    cwd: str | None = None  # the run's working folder; the submitter's by default

    def __init__(
        self,
        name: str | None = None,
        parent_name: str | None = None,
        image: str | None = None,
        gpu_type: str | None = None,
        gpu_num: int | None = None,
        cpus: float | None = None,
        cluster: str | None = None,
        scheduling: Mapping[str, object] | None = None,
        compute: Mapping[str, object] | None = None,
        parameters: Mapping[str, Any] | None = None,
        integrations: Sequence[Mapping[str, Any]] | None = None,
        env_variables: Mapping[str, Any] | list[dict[str, Any]] | None = None,
        metadata: Mapping[str, Any] | None = None,
        command: str | None = "",
        dependent_deployment: Mapping[str, Any] | None = None,
        _suppress_deprecation_warnings: bool = False,
        *,
        secrets: Sequence[str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        **older: Any,
    ) -> None:
        given = older | {"name": name, "parent_name": parent_name, "image": image, "command": command}
        given |= {"gpu_type": gpu_type, "gpu_num": gpu_num, "cpus": cpus, "cluster": cluster}
        given |= {"compute": compute, "scheduling": scheduling, "parameters": parameters, "integrations": integrations}
        given |= {"env_variables": env_variables, "metadata": metadata, "secrets": secrets, "cwd": cwd}
        given |= {"dependent_deployment": dependent_deployment}
        with warnings.catch_warnings():
            if _suppress_deprecation_warnings:
                warnings.simplefilter("ignore", DeprecationWarning)
            self.__dict__.update(_unset() | _settled(given))

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Self:
        """The configuration in a file: JSON if its name ends in ``.json``, else YAML (where ``1e-4`` is a number).

        Raises FileNotFoundError, or RunConfigError with the file's name and, for bad syntax, the line.
        """
        if not isinstance(path, str | os.PathLike):
            raise RunConfigError(f"path: must be a file's path, not {described(path)}")
        file = Path(path)
        source = str(file) if str(file).isprintable() else repr(str(file))
        try:
            text = file.read_bytes().decode("utf-8-sig")
        except IsADirectoryError:
            raise RunConfigError(f"{source}: is a folder, not a file") from None
        except UnicodeDecodeError as error:
            raise RunConfigError(f"{source}: must be UTF-8 text, and byte {error.start} is not") from None
        read = configtext.read_json if file.suffix.lower() == ".json" else configtext.read_yaml
        try:
            mapping = read(text)
        except RecursionError:
            raise RunConfigError(f"{source}: nests too deeply") from None
        except RunConfigError as error:
            raise RunConfigError(f"{source}: {error.message}") from None
        return cls.from_mapping(mapping, source)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any], source: str | None = None) -> Self:
        """The configuration a mapping holds; ``source`` (a file's name, say) begins every error's message."""
        try:
            check_keys(mapping)
            return cls(**mapping)
        except RunConfigError as error:
            if source is None:
                raise
            raise RunConfigError(f"{source}: {error.message}") from None

    def to_mapping(self) -> dict[str, Any]:
        """What was set and nothing else, as a deep copy in plain dicts and lists: ``from_mapping`` gives it back."""
        unset = _unset()
        return {name: plain(value) for name, value in vars(self).items() if value != unset[name]}

    def to_yaml(self) -> str:
        """What was set, as YAML text that `from_file` reads back exactly; RunConfigError if YAML can't hold it."""
        return self._written(configtext.write_yaml, configtext.read_yaml)

    def to_json(self) -> str:
        """What was set, as JSON text that `from_file` reads back exactly; RunConfigError if JSON can't hold it."""
        return self._written(configtext.write_json, configtext.read_json)

    def to_file(self, path: str | os.PathLike[str]) -> None:
        """Write the configuration to a file for `from_file`: JSON if its name ends in ``.json``, else YAML.

        Readable by its owner alone: environment variables may be secret. A file that is there is replaced.
        """
        text = self.to_json() if Path(path).suffix.lower() == ".json" else self.to_yaml()
        files.replace(os.path.abspath(path), text.encode())

    def _written(self, write: Callable[[Any], str], read: Callable[[str], Any]) -> str:
        mapping = self.to_mapping()
        try:
            text = write(mapping)
            is_exact = read(text) == mapping
        except (TypeError, ValueError, RecursionError) as error:
            raise RunConfigError(f"a run's configuration that can't be written: {str(error).splitlines()[0]}") from None
        if not is_exact:
            raise RunConfigError("a run's configuration that can't be written: it has keys or values that are no text, "
                                 "finite number, true, false, null, list or mapping")  # fmt: skip
        return text

    def copy(self) -> Self:
        """A deep copy, to be changed independently."""
        return copy.deepcopy(self)

    def __repr__(self) -> str:
        shown = self.to_mapping()
        if "env_variables" in shown:
            shown["env_variables"] = dict.fromkeys(shown["env_variables"], "***")
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    def __getattr__(self, name: str) -> Any:
        """A field of ``compute`` or ``scheduling``, None if unset. Only called for what is no field of the config."""
        if name.startswith("__"):  # copy, pickle and the like, asking whether there is one
            raise AttributeError(name)
        part, key = _place(name)
        return getattr(self, part).get(key) if part else getattr(self, key)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _FIELDS:
            super().__setattr__(name, _shaped(name, value))
            return
        part, key = _place(name)
        if name != key:
            _warn_older(name, _PLACES[name])
        if not part:
            setattr(self, key, value)
        elif value is None:
            getattr(self, part).pop(key, None)
        else:
            getattr(self, part)[key] = value


class UnknownFieldError(RunConfigError, AttributeError):
    """An attribute that a run's configuration does not have (400). An AttributeError too, as ``hasattr`` needs it."""


_FIELDS = tuple(one.name for one in fields(RunConfig))
_KEYS = {
    "": _FIELDS,
    "compute": tuple(ComputeConfig.__annotations__),
    "scheduling": tuple(SchedulingConfig.__annotations__),
}
_MAPPINGS = {"compute", "scheduling", "parameters", "env_variables", "metadata"}
_LISTS = {"integrations", "secrets"}

_OLDER = {
    "run_name": "name",
    "entrypoint": "command",
    "gpu_num": "compute.gpus",
    "gpu_type": "compute.gpu_type",
    "cpus": "compute.cpus",
    "cluster": "compute.cluster",
    "platform": "compute.cluster",
}
# mcli's, taken where they ask for nothing.
_NOTHING = {"dependent_deployment", "partitions", "optimization_level"}
# Where an attribute lives that is no field of RunConfig.
_PLACES = _OLDER | {key: f"{part}.{key}" for part in ("compute", "scheduling") for key in _KEYS[part]}


def _place(attribute: str) -> tuple[str, str]:
    """The part ("" for the config itself) and the key in it that an attribute stands for."""
    if attribute not in _PLACES:
        raise UnknownFieldError(f"RunConfig has no attribute {described(attribute)}{_hint(attribute, None)}")
    part, _, key = _PLACES[attribute].rpartition(".")
    return part, key


def check_keys(mapping: Mapping[Any, Any]) -> None:
    """Refuse, with a RunConfigError, what is no mapping, unknown keys and parts that are neither mapping nor list."""
    if not isinstance(mapping, Mapping):
        raise RunConfigError(f"a run's configuration must be a mapping, not {described(mapping)}")
    parts = {part: _shaped(part, mapping.get(part)) for part in ("compute", "scheduling")}
    for part, keys in {"": mapping, **parts}.items():
        for key in keys:
            is_older = not part and (key in _OLDER or (key in _NOTHING and not keys[key]))
            if key not in _KEYS[part] and not is_older:
                where = f"{part}: " if part else ""
                raise RunConfigError(f"{where}unknown key {described(key)}{_hint(key, part)}")


def plain(value: Any) -> Any:
    """A deep copy of plain dicts, lists, text and numbers; other objects stay themselves, for ``Request`` to refuse."""
    try:
        return _plain(value)
    except RecursionError:
        raise RunConfigError("a run's configuration must not hold itself or nest too deeply") from None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_plain_leaf(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return _plain_leaf(value)


def _plain_leaf(value: Any) -> Any:
    """Subclasses of text and numbers (enums, NumPy's) as text and numbers, a path as text."""
    if isinstance(value, bool):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float):
        return float.__float__(value)
    try:
        return operator.index(value)
    except TypeError:
        return value


def _unset() -> dict[str, Any]:
    """Every field as it is when nothing was given."""
    made = {one.name: one.default_factory for one in fields(RunConfig)}
    return {one.name: one.default if one.default is not MISSING else made[one.name]() for one in fields(RunConfig)}  # type: ignore[operator]


def _settled(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that were given, deeply copied, with older spellings moved to where they belong now."""
    check_keys(given)
    settled = {name: _shaped(name, plain(given[name])) for name in _FIELDS if given.get(name) is not None}
    for old in [old for old in _OLDER if given.get(old) is not None]:
        part, _, name = _OLDER[old].rpartition(".")
        target = settled.setdefault(part, {}) if part else settled
        if target.get(name) not in (None, ""):
            raise RunConfigError(f"{old}: is the older spelling of {_OLDER[old]}, which is given too")
        _warn_older(old, _OLDER[old])
        target[name] = plain(given[old])
    return settled


def _shaped(name: str, value: Any) -> Any:
    """A field's value if it has the field's shape; what the field is when unset for None. Not a copy."""
    if name == "env_variables" and isinstance(value, list):
        value = _from_pairs(value)
    if value is None:
        return _unset()[name]
    if name in _MAPPINGS and not isinstance(value, Mapping):
        raise RunConfigError(f"{name}: must be a mapping, not {described(value)}")
    if name in _LISTS and not isinstance(value, (list, tuple)):
        raise RunConfigError(f"{name}: must be a list, not {described(value)}")
    return dict(value) if name in _MAPPINGS and not isinstance(value, dict) else value


def _from_pairs(pairs: list[Any]) -> dict[str, Any]:
    """Environment variables from mcli's older list of ``{"key": …, "value": …}``."""
    named: dict[str, Any] = {}
    for index, pair in enumerate(pairs):
        if not isinstance(pair, Mapping) or set(pair) != {"key", "value"} or not isinstance(pair["key"], str):
            raise RunConfigError(f"env_variables[{index}]: must be a mapping of 'key' and 'value'")
        if pair["key"] in named:
            raise RunConfigError(f"env_variables[{index}]: {described(pair['key'])} is given twice")
        named[pair["key"]] = pair["value"]
    if pairs:
        _warn_older("a list of env_variables", "a mapping of names to values")
    return named


def hint(key: Any, allowed: Sequence[str], names: Mapping[str, str] | None = None) -> str:
    """What a key may have been meant to be, else what is allowed; ``names`` are more it may be, with their meaning."""
    import difflib

    meant = {**(names or {}), **{name: name for name in allowed}}
    close = difflib.get_close_matches(str(key), meant, 1)
    return f": did you mean {meant[close[0]]!r}?" if close else f": allowed are {', '.join(allowed)}"


def _hint(key: Any, part: str | None) -> str:
    """The hint on a key of a part: its own keys go by their bare names, others with their place.

    For an attribute ``part`` is None: there every key goes by its bare name.
    """
    places = {key: f"{place}.{key}" if place else key for place, keys in _KEYS.items() for key in keys}
    return hint(key, _KEYS[part] if part is not None else tuple(places), places)


def _warn_older(old: str, new: str) -> None:
    """Warn of an older spelling, at the line outside localrun that used it."""
    frame, level = sys._getframe(), 1
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == "localrun":
        frame, level = frame.f_back, level + 1
    warnings.warn(f"{old} is an older spelling: use {new}", DeprecationWarning, stacklevel=level)
