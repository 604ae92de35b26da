"""What is not the same about the inputs and the results of two runs: by value where that is short, else by digest.

Values are unpickled for that only where it is known to execute nobody else's code.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from localrun.api.output import masking
from localrun.api.provenance.compare import Difference
from localrun.api.run import Run
from localrun.model.folder import RunFolder
from localrun.model.record import Record
from localrun.model.status import RunStatus

_LARGEST_LOADED = 64 << 10
_LARGEST_SHOWN = 200
_PLAIN = (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, type(None))


def differences(one: Run, other: Run) -> list[Difference]:
    """The arguments, the results and the output that differ."""
    found = [*_of_inputs(one, other), *_of_results(one, other)]
    return [Difference(*row) for row in found if row[1] != row[2]]


def _of_inputs(one: Run, other: Run) -> Iterator[tuple[str, Any, Any]]:
    ours, theirs = ((run._record.get("fingerprints") or {}).get("inputs") for run in (one, other))
    if ours == theirs:
        return
    arguments = [_loaded(run, RunFolder(run.path).inputs, run.inputs) for run in (one, other)]
    if all(isinstance(each, Mapping) for each in arguments):
        mine, other_ones = (_named(each) for each in arguments)
        rows = [(name, mine.get(name), other_ones.get(name)) for name in dict.fromkeys([*mine, *other_ones])]
        rows = [row for row in rows if row[1] != row[2]]
        if rows:
            yield from rows
            return
    yield "inputs", ours, theirs


def _of_results(one: Run, other: Run) -> Iterator[tuple[str, Any, Any]]:
    if not all(os.path.lexists(RunFolder(run.path).function) for run in (one, other)):
        yield "stdout", _output(one), _output(other)
        return
    ours, theirs = (json.dumps(run._record.get("result"), sort_keys=True) for run in (one, other))
    if ours == theirs or not one.status is other.status is RunStatus.COMPLETED:
        return
    values = [_loaded(run, RunFolder(run.path).result(), run.result) for run in (one, other)]
    if _unloaded not in values and all(type(value) in _PLAIN for value in values) and _are_equal(*values):
        return
    shown = [None if value is _unloaded else _shown(value) for value in values]
    if None not in shown and shown[0] != shown[1]:
        yield "result", shown[0], shown[1]
    else:
        yield "result", _digest(one._record), _digest(other._record)


_unloaded = object()


def _loaded(run: Run, path: str, load: Callable[[], Any]) -> Any:
    """What is pickled in a file of a run's, if it is short and may be loaded."""
    try:
        if not run.is_trusted or os.path.getsize(path) > _LARGEST_LOADED:
            return _unloaded
        return load()
    except Exception:  # noqa: BLE001 - whatever keeps it from being loaded here, its digest tells what is to be told
        return _unloaded


def _are_equal(one: Any, other: Any) -> bool:
    try:
        return type(one) is type(other) and bool(one == other)
    except Exception:  # noqa: BLE001 - arrays, say, have no answer to that
        return False


def _named(inputs: Mapping[str, Any]) -> dict[str, str]:
    positional = {f"argument {place}": value for place, value in enumerate(inputs["args"])}
    named = {f"argument {name}": value for name, value in inputs["kwargs"].items()}
    return {name: _shown(value) for name, value in {**positional, **named}.items()}


def _shown(value: Any) -> str:
    """A value in words, the secrets left out; a long one cut."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - somebody's own
        return f"a {type(value).__name__}"
    mask = masking.current()
    text = text if mask is None else mask.text(text)
    return text if len(text) <= _LARGEST_SHOWN else f"{text[:_LARGEST_SHOWN]}… ({len(text)} characters)"


def _digest(record: Record) -> str | None:
    stored = record.get("result")
    ranks = stored if isinstance(stored, list) else [stored]
    known = [f"sha256:{each['sha256'][:16]} ({each['size']} bytes)" for each in ranks if each]
    return ", ".join(known) or None


def _output(run: Run) -> str | None:
    """What a run wrote to its standard output: the text if it is short, else its digest."""
    path = RunFolder(run.path).stdout(run.latest_attempt, 0)
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            if size <= _LARGEST_SHOWN:
                data, mask = file.read(), masking.current()
                return (data if mask is None else mask.data(data)).decode(errors="backslashreplace").rstrip("\n")
            import hashlib

            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()[:16]} ({size} bytes)"
    except OSError:
        return None
