"""The dispatcher's log: the only place where it can say what goes wrong."""

from __future__ import annotations

import os

from localrun.model import times

_LIMIT = 1 << 20  # bytes


def traceback() -> str:
    """The traceback of the exception that is being handled."""
    from traceback import format_exc

    return format_exc()


class Log:
    """Lines in the user's dispatcher log. It starts over when it has grown large."""

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            if os.stat(path).st_size > _LIMIT:
                os.replace(path, f"{path}.old")
        except OSError:
            pass

    def __call__(self, message: str) -> None:
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, f"{times.now()} [{os.getpid()}] {message}\n".encode(errors="replace"))
            finally:
                os.close(fd)
        except OSError:
            pass  # a full disk must not stop the queue
