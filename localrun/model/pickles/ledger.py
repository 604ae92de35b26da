"""Which pickles a run's record says that it has, and what they were when they were written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from localrun.model.folder import RunFolder
from localrun.model.pickles.payload import Stored
from localrun.model.record import Record

Entry = tuple[str, Stored | None]


def inputs(folder: RunFolder, record: Record) -> Entry:
    """The inputs of a function run."""
    return folder.inputs, _stored((record.get("given") or {}).get(os.path.basename(folder.inputs)))


def result(folder: RunFolder, record: Record, rank: int | None) -> Entry:
    """The result of a function run that completed; of one of its ranks, if it has several."""
    return folder.result(rank), _stored(record["result"] if rank is None else record["result"][rank])


def exception(folder: RunFolder, record: Record) -> Entry:
    """The exception with which a function run, or a rank of it, failed. It may not have been one that pickles."""
    rank = record["failed_rank"] if record["request"].get("nproc_per_node") else None
    return folder.exception(rank), _stored(record.get("exception"))


def entries(record: Record) -> Iterator[tuple[str, Stored]]:
    """The names of all files whose sizes and digests are known: what was given, and the results or the exception."""
    for name, fields in (record.get("given") or {}).items():
        yield name, Stored(**fields)
    folder = RunFolder("")  # wherever it is
    if record["result"] is not None:
        ranks = range(len(record["result"])) if isinstance(record["result"], list) else [None]
        found = [result(folder, record, rank) for rank in ranks]
    else:
        found = [exception(folder, record)]
    yield from ((os.path.basename(path), stored) for path, stored in found if stored is not None)


def _stored(fields: Any) -> Stored | None:
    return None if fields is None else Stored(**fields)
