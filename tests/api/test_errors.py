"""The errors: one tree, each with its status, in one line, and whole after a journey."""

from __future__ import annotations

import errno
import inspect
import pickle

import pytest

import localrun
from localrun import errors

STATUSES = {
    "RunConfigError": 400, "NotARunError": 400, "RunNotFoundError": 404, "SecretNotFoundError": 404,
    "RunExistsError": 409, "SecretExistsError": 409, "IllegalTransitionError": 409, "CacheMismatchError": 409,
    "RunFailedError": 500, "RunTimeoutError": 408, "UntrustedRunError": 403,
}  # fmt: skip
CLASSES = [
    each
    for name, each in inspect.getmembers(errors, inspect.isclass)
    if issubclass(each, errors.LocalrunError) and each is not errors.LocalrunError and not name.startswith("_")
]


def test_the_base_is_mclis() -> None:
    assert localrun.MAPIException is localrun.LocalrunError
    error = localrun.MAPIException(503, "offline", "come back later")
    assert (error.status, error.message, error.description) == (503, "offline", "come back later")
    assert str(error) == "offline\ncome back later"
    assert localrun.MAPIException(500).message == "Unknown Error"


@pytest.mark.parametrize("kind", CLASSES)
def test_each_has_a_status_and_travels(kind: type[errors.LocalrunError]) -> None:
    error = kind("what happened")
    assert isinstance(error, localrun.MAPIException)
    assert 400 <= error.status <= 599
    assert error.status == STATUSES.get(kind.__name__, error.status)
    assert str(error) == error.message == "what happened"
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.status, again.message, vars(again)) == (kind, error.status, error.message, vars(error))


def test_a_timeout_is_pythons_too() -> None:
    error = errors.RunTimeoutError("run a is RUNNING after 1 s")
    assert isinstance(error, TimeoutError) and isinstance(error, localrun.LocalrunError)
    assert (error.errno, str(error)) == (errno.ETIMEDOUT, "run a is RUNNING after 1 s")
