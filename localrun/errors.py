"""Every error localrun raises: one tree, each with an HTTP-like status.

The base is shaped like ``mcli.MAPIException(status, message, description)`` and is exported under that name too.
Errors pickle, so that they travel out of futures and worker processes as they are.
"""

from __future__ import annotations

import errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class LocalrunError(Exception):
    """Base of all errors: ``status`` (HTTP-like code), ``message`` (one line), ``description`` (more, or None)."""

    def __init__(self, status: int = 500, message: str = "Unknown Error", description: str | None = None) -> None:
        super().__init__(status, message, description)
        self.status = status
        self.message = message
        self.description = description

    def __str__(self) -> str:
        return self.message if self.description is None else f"{self.message}\n{self.description}"


MAPIException = LocalrunError


class _StatusError(LocalrunError):
    """An error whose status belongs to its class, so that it is raised with its message alone."""

    code = 500

    def __init__(self, message: str, description: str | None = None) -> None:
        super().__init__(self.code, message, description)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message, self.description), self.__dict__


class RunConfigError(_StatusError, ValueError):
    """A configuration, name or argument that localrun refuses (400). Nothing was created or changed."""

    code = 400


class NotARunError(_StatusError):
    """A folder that exists but is not a run folder (400); the message says what is missing."""

    code = 400


class UntrustedRunError(_StatusError):
    """A pickle that lies where others could have written it, and was not loaded (403)."""

    code = 403


class RunNotFoundError(_StatusError, LookupError):
    """No run of that name or at that place (404)."""

    code = 404


class SecretNotFoundError(_StatusError, LookupError):
    """No secret of that name (404)."""

    code = 404


class SecretExistsError(_StatusError):
    """The name or the variable is another secret's already (409). Nothing was changed."""

    code = 409


class RunExistsError(_StatusError):
    """The name is taken by a run that is still active, or that must not be replaced (409)."""

    code = 409


class IllegalTransitionError(_StatusError):
    """A status change that the lifecycle does not allow (409). The record was left as it was."""

    code = 409


class RunStatusNotReached(_StatusError):  # noqa: N818 - the name is mcli's
    """A run ended without reaching the status that was waited for (409)."""

    code = 409


class RunTimeoutError(_StatusError, TimeoutError):
    """What was waited for did not come within ``timeout`` seconds (408). It may still."""

    code = 408

    def __init__(self, message: str, description: str | None = None) -> None:
        super().__init__(message, description)
        self.errno = errno.ETIMEDOUT  # an OSError would take the status for it


class RunNotRunningError(_StatusError):
    """Something was asked for that only a RUNNING run can give, a shell inside it, say, and it is none (409)."""

    code = 409


class CacheMismatchError(_StatusError):
    """A cached run of that name was made by other code or other inputs, and ``on_mismatch="error"`` (409)."""

    code = 409


class RunFailedError(_StatusError):
    """A run FAILED and its own exception can't be raised here; the message has its text and where its log is (500)."""

    code = 500


class RunStoppedError(RunFailedError):
    """The result of a run was asked for, and the run was STOPPED (409)."""

    code = 409


class ResultUnavailableError(_StatusError):
    """A result file is missing, cut short or altered, and was not loaded (500)."""

    code = 500


class PayloadError(_StatusError):
    """A function, its inputs or its result cannot be pickled or unpickled (400)."""

    code = 400


class MissingPackageError(_StatusError, ImportError):
    """What was asked for needs an optional package that is not installed (501); the message names it."""

    code = 501


class SystemFailureError(_StatusError):
    """localrun's own machinery can't work here: no locks, no dispatcher, an unreadable record (503)."""

    code = 503


class CacheMismatchWarning(UserWarning):
    """A cached result was returned although it was made by other code or other inputs than now asked for."""
