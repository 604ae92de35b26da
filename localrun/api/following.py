"""Showing a run's output while it comes."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

from localrun.api import logs
from localrun.engine.waiting import wait_until
from localrun.model import record as records
from localrun.model.record import Record
from localrun.model.status import RunStatus

if TYPE_CHECKING:
    from localrun.api.run import Run


class TextSink(Protocol):
    """Where text goes: a stream of this process, or a notebook's."""

    def write(self, text: str, /) -> object: ...
    def flush(self) -> object: ...


def show(run: Run, stdout: TextSink, stderr: TextSink, *, waiting: Callable[[Run], None] | None = None) -> None:
    """Wait until a run has ended, passing on what it writes as it comes, each stream to its own sink.

    ``waiting`` is called with the run whenever it is looked at while it is still queued.
    """
    first = max(run._record["first_resumption"], 0)
    pumps = {}

    def pump(record: Record) -> None:
        if waiting is not None and records.status(record) in (RunStatus.PENDING, RunStatus.QUEUED):
            run._record = record
            waiting(run)
        for resumption in range(first, len(record["resumptions"])):
            if resumption not in pumps:
                pumps[resumption] = [
                    _Pump(run._folder.stdout(resumption, 0), stdout),
                    _Pump(run._folder.stderr(resumption, 0), stderr),
                ]
        for pair in pumps.values():
            for each in pair:
                each.pump()

    def done(record: Record) -> bool:
        return records.status(record).is_terminal()

    resumption = len(run._record["resumptions"]) - 1
    files = _log_files(run, max(resumption, first))
    run._record = wait_until(run._queue, run._folder, done, meanwhile=pump, also=files)
    pump(run._record)
    for pair in pumps.values():
        for each in pair:
            each.finish()


def _log_files(run: Run, resumption: int) -> tuple[str, ...]:
    return run._folder.stdout(resumption, 0), run._folder.stderr(resumption, 0)


class _Pump:
    """Passes one log file on, as text, from where it last left off."""

    def __init__(self, path: str, sink: TextSink) -> None:
        self._reader = logs.StreamReader(path)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._sink = sink

    def pump(self) -> None:
        for data in self._reader.read_all():
            self._sink.write(self._decoder.decode(data))
            self._sink.flush()

    def finish(self) -> None:
        rest = self._decoder.decode(b"", final=True)
        if rest:
            self._sink.write(rest)


def follow(
    run: Run, resumption: int, rank: int | None, timeout: float | None = None
) -> Iterator[logs.Line]:
    """The merged lines of a rank as they come, until that resumption has ended."""
    reader: logs.MergedReader | None = None

    def over(record: Record) -> bool:
        ended = len(record["resumptions"]) > resumption and record["resumptions"][resumption]["ended_at"] is not None
        return ended or records.status(record).is_terminal()

    while True:
        chosen = logs.choose_rank(run._folder, resumption, rank)
        files = (run._folder.log_times(resumption, chosen), run._folder.resumption_logs(resumption))
        reader = reader or logs.MergedReader(run._folder, resumption, chosen)
        came: list[logs.Line] = []

        def news(record: Record, reader: logs.MergedReader = reader, came: list[logs.Line] = came) -> bool:
            came.extend(reader.lines())
            return bool(came) or over(record)

        record = wait_until(run._queue, run._folder, news, timeout, also=files)
        yield from came
        if over(record):
            yield from reader.rest()
            run._record = record
            return
