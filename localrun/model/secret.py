"""A secret as its user names it: ``Secret``, and what its fields must be. Where it is kept is the engine's.

Loaded by supervisors of runs that get secrets: what only its creation needs is imported there.
"""

from __future__ import annotations

from localrun.errors import RunConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ENVIRONMENT, MOUNTED = "environment", "mounted"

# The kernel's limit for one NAME=value, its end included (MAX_ARG_STRLEN).
_LONGEST_VARIABLE = 131071
# What localrun sets in a run, and what decides which programs and libraries it gets.
RESERVED = frozenset({
    "PATH", "HOME", "VIRTUAL_ENV", "RUN_NAME", "RESUMPTION_INDEX", "PARAMETERS",
    "RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK", "ROLE_RANK", "ROLE_NAME", "NUM_NODES", "MASTER_ADDR",
    "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE", "MASTER_PORT",
    "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER",
})  # fmt: skip
_RESERVED_BEGINNINGS = ("LOCALRUN_", "TORCHELASTIC_", "SECRET_PATH_", "LD_", "PYTHON")

_MARKS = str.maketrans(".-", "__")


class Secret:
    """A value that runs get and nothing shows (``mcli.Secret``): as an environment variable, or as a file.

    ``secret_type`` is ``"environment"`` or ``"mounted"``. ``key`` is an environment secret's variable, by default the
    name in upper case with ``_`` for ``.`` and ``-``. A mounted one is the file ``<mount_path>/secret`` of a
    container, by default ``/secrets/<name>/secret``; in a process run its path is in ``SECRET_PATH_<NAME>``. ``value``
    is text or, if mounted, bytes too; None in lists, which show no values, and in pickles and copies.
    """

    _columns = ("name", "secret_type", "key", "mount_path")  # of a list of them; never the value

    def __init__(
        self,
        name: str,
        secret_type: str = ENVIRONMENT,
        value: str | bytes | None = None,
        key: str | None = None,
        mount_path: str | None = None,
    ) -> None:
        self.name = name
        self.secret_type = secret_type
        self.value = value
        self.key = key
        self.mount_path = mount_path

    @property
    def variable(self) -> str:
        """The environment variable of a run that has the value or, of a mounted secret, the path of its file."""
        name = str(self.name).upper().translate(_MARKS)
        return f"SECRET_PATH_{name}" if self.secret_type == MOUNTED else self.key or name

    def checked(self) -> Secret:
        """This secret with its defaults filled in and its value as bytes. RunConfigError if it can't be one (400)."""
        from localrun.model.config import described
        from localrun.model.names import validate_name

        validate_name(self.name)
        if self.secret_type not in (ENVIRONMENT, MOUNTED):
            raise RunConfigError(f"secret_type: must be 'environment' or 'mounted', not {described(self.secret_type)}")
        is_mounted = self.secret_type == MOUNTED
        if (self.key if is_mounted else self.mount_path) is not None:
            field, other = ("key", ENVIRONMENT) if is_mounted else ("mount_path", MOUNTED)
            raise RunConfigError(f"{field}: is for {other} secrets, and {self.name} is {self.secret_type}")
        mount_path = _mount_path(self.mount_path, self.name) if is_mounted else None
        key = None if is_mounted else _key(self.variable, given=self.key is not None)
        return Secret(self.name, self.secret_type, self._checked_value(), key, mount_path)

    def _checked_value(self) -> bytes:
        """The value as bytes; no error shows it."""
        if not isinstance(self.value, str | (bytes if self.secret_type == MOUNTED else str)):
            what = "nothing" if self.value is None else f"of type {type(self.value).__name__}"
            raise RunConfigError(f"value: must be text{' or bytes' * (self.secret_type == MOUNTED)}, and is {what}")
        try:
            value = self.value if isinstance(self.value, bytes) else self.value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise RunConfigError("value: has a character that cannot be encoded") from None
        if self.secret_type == ENVIRONMENT:
            if b"\0" in value:
                raise RunConfigError("value: must not have a NUL character, which no environment variable can have")
            if len(self.variable) + len(value) + 1 > _LONGEST_VARIABLE:
                raise RunConfigError("value: is longer than an environment variable may be: use a mounted secret")
        return value

    def __repr__(self) -> str:
        fields = {"secret_type": self.secret_type, "key": self.key, "mount_path": self.mount_path}
        shown = "".join(f", {name}={value!r}" for name, value in fields.items() if value is not None)
        return f"Secret({self.name!r}{shown}, value='***')"

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other) if isinstance(other, Secret) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        # Without the value: a function that happens to hold a secret must not take it into its run's folder.
        return Secret, (self.name, self.secret_type, None, self.key, self.mount_path)


def _key(key: Any, *, given: bool) -> str:
    from localrun.model.config import described

    if not isinstance(key, str) or not (key.isascii() and key.isidentifier()):
        hint = "" if given else ": give a key"
        raise RunConfigError(f"key: must be letters, digits and '_', with no digit first, not {described(key)}{hint}")
    if key in RESERVED or key.startswith(_RESERVED_BEGINNINGS):
        hint = "" if given else ": give a key"
        raise RunConfigError(f"key: {key} is a variable that localrun or the system sets{hint}")
    return key


def _mount_path(path: Any, name: str) -> str:
    from localrun.model.config import described

    if path is None:
        return f"/secrets/{name}"
    if not isinstance(path, str) or not path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise RunConfigError(f"mount_path: must be an absolute path without '..', not {described(path)}")
    return path
