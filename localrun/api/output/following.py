"""Showing a run's output while it comes: both streams each to its own place, or merged line by line."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

from localrun.api.output import logs, masking
from localrun.engine.dispatch.waiting import wait_until
from localrun.model import record as records
from localrun.model.record import Record

if TYPE_CHECKING:
    from localrun.api.run import Run
    from localrun.model.mask import Mask

# Told of the run whenever it is looked at and has not ended.
Looked = Callable[["Run"], object]


class TextSink(Protocol):
    """Where text goes: a stream of this process, or a notebook's."""

    def write(self, text: str, /) -> object: ...
    def flush(self) -> object: ...


class ByteSink(Protocol):
    """Where bytes go: a binary stream of this process."""

    def write(self, data: bytes, /) -> object: ...
    def flush(self) -> object: ...


def show(run: Run, stdout: TextSink | None, stderr: TextSink | None, *, looked: Looked | None = None) -> None:
    """Wait until a run has ended, passing on what it writes as it comes, each stream to its own sink, as text.

    A sink that can't be written (closed, a pipe that nobody reads, None) gets no more; the run is waited for.
    """
    out, err = _Decoder(stdout), _Decoder(stderr)
    show_bytes(run, out, err, looked=looked)
    out.finish()
    err.finish()


def show_bytes(run: Run, stdout: ByteSink, stderr: ByteSink, *, looked: Looked | None = None) -> None:
    """Wait until a run has ended, passing on the bytes it writes as they come, each stream to its own sink.

    Begins with the first attempt since the run was last started by hand, and goes on with its retries. ``looked`` is
    called with the run whenever it is looked at before its end. The values of the user's secrets are hidden.
    """
    mask = masking.current()
    resumption = run._record["first_resumption"]
    while True:
        paths = (run._folder.stdout(resumption, 0), run._folder.stderr(resumption, 0))
        pumps = [_Pump(path, sink, mask) for path, sink in zip(paths, (stdout, stderr), strict=True)]

        def pump(record: Record, pumps: list[_Pump] = pumps) -> None:
            _tell(run, record, looked)
            for each in pumps:
                each.pump()

        def over(record: Record, resumption: int = resumption) -> bool:
            return _is_over(record, resumption)

        run._record = _wait_for(run, over, pump, paths)
        pump(run._record)
        for each in pumps:
            each.finish()
        if run.status.is_terminal() and resumption + 1 >= len(run._record["resumptions"]):
            return
        resumption += 1


def follow(
    run: Run,
    resumption: int,
    rank: int | None,
    timeout: float | None = None,
    *,
    stream: str | None = None,
    tail: int | None = None,
    live: bool = False,
    looked: Looked | None = None,
) -> Iterator[logs.Line]:
    """The merged output of a rank as it comes, in blocks of whole lines, until that resumption has ended.

    ``stream`` is ``"stdout"`` or ``"stderr"`` for one of them alone. ``tail`` is how many lines are given of what is
    there already (None: all). With ``live``, what there is of a line that has no end yet is given as soon as nothing
    else is there to give: a prompt, or a progress bar. ``looked`` as in `show_bytes`. RunTimeoutError when nothing came
    for ``timeout`` seconds.
    """
    reader: logs.MergedReader | None = None
    record = records.read(run._folder)
    while True:
        chosen = logs.choose_rank(run._folder, resumption, rank)
        paths = (run._folder.log_times(resumption, chosen), run._folder.resumption_logs(resumption))
        reader = reader or logs.MergedReader(run._folder, resumption, chosen, stream)
        over = _is_over(record, resumption)
        there = _available(reader, over=over, live=live)
        yield from there if tail is None else logs.last_lines(there, tail)
        if over:
            run._record = record
            return
        tail = None

        def news(record: Record, reader: logs.MergedReader = reader) -> bool:
            return _is_over(record, resumption) or reader.has_news()

        record = _wait_for(run, news, lambda record: _tell(run, record, looked), paths, timeout)


def follow_all(
    run: Run, resumption: int, *, stream: str | None = None, tail: int | None = None, looked: Looked | None = None
) -> Iterator[tuple[int, logs.Line]]:
    """The output of all ranks as it comes, each block of whole lines with its rank; otherwise as `follow`."""
    ranks = range(run.nproc_per_node or 1)
    readers = [logs.MergedReader(run._folder, resumption, rank, stream) for rank in ranks]
    paths = (*(run._folder.log_times(resumption, rank) for rank in ranks), run._folder.resumption_logs(resumption))
    record = records.read(run._folder)

    def news(record: Record) -> bool:
        return _is_over(record, resumption) or any(reader.has_news() for reader in readers)

    while True:
        over = _is_over(record, resumption)
        for rank, reader in zip(ranks, readers, strict=True):
            there = reader.blocks(over=over)
            yield from ((rank, block) for block in (there if tail is None else logs.last_lines(there, tail)))
        if over:
            run._record = record
            return
        tail = None
        record = _wait_for(run, news, lambda record: _tell(run, record, looked), paths)


def _available(reader: logs.MergedReader, *, over: bool, live: bool) -> Iterator[logs.Line]:
    """What there is to give now."""
    yield from reader.blocks(over=over)
    if live:
        yield from reader.unfinished()


def _wait_for(
    run: Run,
    done: Callable[[Record], bool],
    meanwhile: Callable[[Record], None],
    paths: tuple[str, ...],
    timeout: float | None = None,
) -> Record:
    return wait_until(run._queue, run._folder, done, timeout, meanwhile=meanwhile, also=paths)


def _tell(run: Run, record: Record, looked: Looked | None) -> None:
    run._record = record
    if looked is not None:
        looked(run)


def _is_over(record: Record, resumption: int) -> bool:
    """True if that attempt has ended, or will never be."""
    attempts = record["resumptions"]
    ended = len(attempts) > resumption and attempts[resumption]["ended_at"] is not None
    return ended or records.status(record).is_terminal()


class _Pump:
    """Passes one log file on from where it last left off."""

    def __init__(self, path: str, sink: ByteSink, mask: Mask | None) -> None:
        self._reader = logs.StreamReader(path)
        self._masked = None if mask is None else masking.MaskedSink(sink, mask)
        self._sink = self._masked or sink

    def pump(self) -> None:
        for data in self._reader.read_all():
            self._sink.write(data)
            self._sink.flush()

    def finish(self) -> None:
        if self._masked is not None:
            self._masked.finish()


class _Decoder:
    """A sink of bytes that passes them on as text."""

    def __init__(self, sink: TextSink | None) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._sink = sink

    def write(self, data: bytes, /) -> None:
        self._pass_on(self._decoder.decode(data))

    def flush(self) -> None:
        pass  # with every write

    def finish(self) -> None:
        self._pass_on(self._decoder.decode(b"", final=True))

    def _pass_on(self, text: str) -> None:
        if self._sink is None or not text:
            return
        try:
            self._sink.write(text)
            self._sink.flush()
        except (OSError, ValueError, AttributeError):
            self._sink = None
