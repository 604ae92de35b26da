"""Hiding the values of the user's secrets in output that is shown. The log files have every byte."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from localrun import settings
from localrun.api.output.logs import Line

if TYPE_CHECKING:
    from localrun.api.output.following import ByteSink
    from localrun.model.mask import Mask


def current() -> Mask | None:
    """The mask of the secrets there are now; None if there is nothing to hide."""
    home = settings.home()
    if not os.path.exists(f"{home}/secrets"):
        return None
    from localrun.engine.launchers.secretfolder import SecretFolder
    from localrun.model.mask import Mask

    return Mask(SecretFolder(home).values()) or None


def blocks(of: Iterator[Line], mask: Mask | None) -> Iterator[Line]:
    """These blocks of whole lines without the values."""
    return of if mask is None else (Line(mask.data(data), time) for data, time in of)


class MaskedSink:
    """Passes bytes on without the values, as far as they can't be the beginning of one."""

    def __init__(self, sink: ByteSink, mask: Mask) -> None:
        from localrun.model.mask import MaskedStream

        self._sink = sink
        self._masked = MaskedStream(mask)

    def write(self, data: bytes, /) -> None:
        """Pass on what can be."""
        self._pass_on(self._masked.feed(data))

    def flush(self) -> None:
        """Flush what was passed on."""
        self._sink.flush()

    def finish(self) -> None:
        """Pass on the rest."""
        self._pass_on(self._masked.finish())
        self._sink.flush()

    def _pass_on(self, data: bytes) -> None:
        if data:
            self._sink.write(data)
