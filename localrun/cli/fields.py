"""The fields of a run's configuration as options, named as the fields are, and what the command line sets of them."""

from __future__ import annotations

import copy
import shlex
from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from localrun.cli.arguments import names, pair, processes, typed_pair
from localrun.errors import RunConfigError
from localrun.model.config import RunConfig

if TYPE_CHECKING:
    from localrun.cli.parser import Parser

_FIELDS: tuple[tuple[str, str, Callable[[str], object], str], ...] = (
    ("--name", "NAME", str, "the run's name"),
    ("--gpus", "N", int, "how many GPUs it needs"),
    ("--gpu-type", "TYPE", str, "which GPUs, as in their names"),
    ("--gpu-memory", "SIZE", str, "how much memory each GPU has at least"),
    ("--gpu-binding", "all|rank", str, "each process sees all its GPUs, or only its share of them"),
    ("--gpu-visibility", "uuid|index", str, "how CUDA_VISIBLE_DEVICES names them"),
    ("--nproc-per-node", "N|gpu", processes, "how many processes, or one for each GPU"),
    ("--cpus", "N", float, "how many CPUs it needs (1); may be 0 or a fraction"),
    ("--memory", "SIZE", str, "how much of the machine's memory it needs, such as 8GiB"),
    ("--priority", "PRIORITY", str, "high, auto, low or lowest"),
    ("--max-retries", "N", int, "how often it is tried again when it fails (0)"),
    ("--max-duration", "HOURS", float, "after which it is stopped"),
    ("--stop-grace", "SECONDS", float, "from SIGTERM to SIGKILL when it is stopped (30)"),
    ("--cwd", "FOLDER", str, "where it runs (here)"),
    ("--secrets", "NAMES", names, "which of your secrets it gets, as a,b, or '' for none (all)"),
    ("--image", "IMAGE", str, "the container image to run in"),
    ("--shm-size", "SIZE", str, "a container's shared memory"),
    ("--pull", "WHEN", str, "when the image is fetched (missing)"),
    ("--network", "NAME", str, "a container's network"),
    ("--cluster", "NAME", str, "mcli's: a name for this machine"),
    ("--instance", "NAME", str, "mcli's: the same"),
    ("--nodes", "N", int, "mcli's: 1, as there is one machine"),
)
# A flag, its opposite, and what it does.
_FLAGS: tuple[tuple[str, str, str], ...] = (
    ("--preemptible", "--not-preemptible", "may be stopped and queued again for a run of higher priority"),
    ("--retry-on-system-failure", "--no-retry-on-system-failure", "try again when localrun or the machine failed"),
    ("--allow-shared-gpus", "--no-shared-gpus", "GPUs do that processes which are no runs use"),
)
# An option that may be repeated, the field it is an item of, and what it is.
_LISTS: tuple[tuple[str, str, str, str], ...] = (
    ("--after", "after", "RUN", "start when that run has completed; may be repeated"),
    ("--after-any", "after_any", "RUN", "start when that run has ended, whatever as; may be repeated"),
    ("--volume", "volumes", "HOST:CONTAINER", "a folder for a container, with :ro read only; may be repeated"),
)
_PAIRS: tuple[tuple[str, Callable[[str], object], str], ...] = (
    ("--env", pair, "an environment variable; may be repeated"),
    ("--param", typed_pair, "a parameter, its value read as YAML; a.b=1 is {a: {b: 1}}; may be repeated"),
    ("--metadata", typed_pair, "an entry of the metadata; may be repeated"),
)


def add_fields(parser: Parser) -> None:
    """The fields as options; what is given of them `overrides` says."""
    fields = parser.add_argument_group("fields of the configuration")
    for flag, metavar, kind, what in _FIELDS:
        fields.add_argument(flag, metavar=metavar, type=kind, help=what)
    for flag, opposite, what in _FLAGS:
        dest = _field(flag)
        fields.add_argument(flag, dest=dest, action="store_const", const=True, help=what)
        fields.add_argument(opposite, dest=dest, action="store_const", const=False, help=f"the opposite of {flag}")
    for flag, field, metavar, what in _LISTS:
        fields.add_argument(flag, dest=field, metavar=metavar, action="append", help=what)
    for flag, kind, what in _PAIRS:
        fields.add_argument(flag, metavar="NAME=VALUE", type=kind, action="append", default=[], help=what)


def overrides(args: Namespace, base: RunConfig) -> dict[str, Any]:
    """The fields that the command line sets; mappings with what ``base`` has of them, lists instead of it."""
    flags = [*(flag for flag, *_ in _FIELDS), *(flag for flag, *_ in _FLAGS)]
    fields = [*map(_field, flags), *(field for _, field, *_ in _LISTS)]
    given = {field: getattr(args, field) for field in fields}
    if args.words:
        given["command"] = args.words[0] if len(args.words) == 1 else shlex.join(args.words)
    if args.env:
        given["env_variables"] = base.env_variables | dict(args.env)
    if args.param:
        given["parameters"] = copy.deepcopy(base.parameters)
        for dotted, value in args.param:
            put(given["parameters"], dotted.split("."), value, f"--param {dotted}")
    if args.metadata:
        given["metadata"] = base.metadata | dict(args.metadata)
    return {field: value for field, value in given.items() if value is not None}


def put(mapping: dict[str, Any], keys: Sequence[str], value: Any, option: str) -> None:
    """Set what is at these keys, one inside the other. RunConfigError if there is something else on the way there."""
    *outer, last = keys
    for key in outer:
        mapping = mapping.setdefault(key, {})
        if not isinstance(mapping, dict):
            raise RunConfigError(f"{option}: there is a value at {key!r}, where a mapping belongs")
    mapping[last] = value


def _field(flag: str) -> str:
    return flag.lstrip("-").replace("-", "_")
