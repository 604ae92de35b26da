"""The calls on secrets, with mcli's names and signatures. What a secret is stands in `Secret`; no call prints a value.

A run gets all of its user's secrets that there are when it starts, or those its configuration names (``secrets``).
They go over the submitter's environment; the run's own ``env_variables`` go over them.
"""

from __future__ import annotations

from collections.abc import Sequence

from localrun import settings
from localrun.api.calls import call
from localrun.api.listing.lists import ObjectList
from localrun.engine.launchers.secretfolder import SecretFolder
from localrun.errors import RunConfigError
from localrun.model.config import described
from localrun.model.names import validate_name
from localrun.model.secret import ENVIRONMENT, Secret


@call
def create_secret(secret: Secret, *, timeout: float | None = 10, future: bool = False) -> Secret:
    """Keep a secret for runs to come; returns it with its defaults filled in and without its value.

    Raises:
        RunConfigError: a field is not what it must be (400).
        SecretExistsError: a secret has that name, or gives runs the same variable (409). Nothing was changed.
    """
    if not isinstance(secret, Secret):
        raise RunConfigError(f"secret: must be a Secret, not {described(secret)}")
    checked = secret.checked()
    _folder().create(checked)
    return _folder().read(checked.name)


@call
def get_secrets(
    secrets: Sequence[Secret | str] | None = None,
    *,
    values: bool = False,
    timeout: float | None = 10,
    future: bool = False,
) -> ObjectList[Secret]:
    """The secrets of these names, or all, sorted by name. Their values are None unless asked for (``values``).

    Raises:
        SecretNotFoundError: there is none of a name (404).
    """
    names = _folder().names() if secrets is None else _names(secrets)
    found = [_folder().read(name, with_value=values) for name in sorted(names)]
    for secret in found:
        if isinstance(secret.value, bytes) and secret.secret_type == ENVIRONMENT:
            secret.value = secret.value.decode("utf-8", "surrogateescape")
    return ObjectList(found, Secret)


@call
def delete_secrets(
    secrets: Sequence[Secret | str] | None = None, *, timeout: float | None = 10, future: bool = False
) -> ObjectList[Secret]:
    """Delete secrets, and return them without their values. Runs that have started keep their environment.

    Mounted ones are gone for them too.

    Raises:
        SecretNotFoundError: there is none of a name (404); none was deleted.
        RunConfigError: none was named: all of them are ``delete_secrets(get_secrets())``.
    """
    if secrets is None:
        raise RunConfigError("secrets: say which to delete; all of them are delete_secrets(get_secrets())")
    names = _names(secrets)
    found = [_folder().read(name) for name in names]
    if names:
        _folder().remove(names)
    return ObjectList(found, Secret)


def _folder() -> SecretFolder:
    return SecretFolder(settings.home())


def _names(secrets: Sequence[Secret | str]) -> list[str]:
    """The names, each once."""
    if isinstance(secrets, str | bytes | Secret):
        raise RunConfigError("secrets: must be a list of names or Secrets: put it in brackets")
    return list(dict.fromkeys(validate_name(getattr(each, "name", each), "secrets") for each in secrets))
