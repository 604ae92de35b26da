"""What a cached result costs, beside joblib.Memory and diskcache where those are installed.

    pip install joblib diskcache
    python tests/benchmarks/cached_result.py [ROUNDS]

A large one is compared with unpickling it from a file; a small one with the least that a hit can do: hash the inputs,
read a record in JSON, unpickle the value. Everything is in the page cache.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import pickle
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rounds import fresh_home, interleaved, report

import localrun

Hit = Callable[[], object]


@localrun.function
def large(megabytes: int) -> Any:
    """Arrays in a dict, as many a result has them."""
    return {"weights": np.ones(megabytes * 1_000_000 // 8), "loss": [0.5, 0.25]}


@localrun.function
def small(x: float, scale: float = 1.0) -> dict[str, float]:
    """A result of a few bytes."""
    return {"value": scale * x * x}


def unpickle(path: str) -> object:
    """Load a pickle."""
    with open(path, "rb") as file:
        return pickle.load(file)


def least(folder: str, *inputs: object) -> object:
    """The least that a hit can do: hash, read, unpickle."""
    hashlib.sha256(pickle.dumps(inputs)).hexdigest()
    with open(f"{folder}/config.json", "rb") as file:
        json.loads(file.read())
    return unpickle(f"{folder}/result.pkl")


def others(function: Any, folder: Path, *inputs: object) -> dict[str, Hit]:
    """The same call through the other caches that are installed, made once."""
    found: dict[str, Hit] = {}
    if importlib.util.find_spec("joblib") is not None:
        import joblib

        memory = joblib.Memory(folder / "joblib", verbose=0).cache(function.fn)
        found["joblib"] = lambda: memory(*inputs)
    if importlib.util.find_spec("diskcache") is not None:
        import diskcache

        cached = diskcache.Cache(str(folder / "diskcache"), size_limit=1 << 40).memoize()(function.fn)
        found["diskcache"] = lambda: cached(*inputs)
    for name in sorted({"joblib", "diskcache"} - found.keys()):
        print(f"({name} is not installed: it is left out)")
    return found


def main() -> None:
    """Measure a large result and a small one."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 21
    with fresh_home(), tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "large.pkl").write_bytes(pickle.dumps(large(100), protocol=pickle.HIGHEST_PROTOCOL))
        medians = interleaved(
            rounds,
            pickle=lambda: unpickle(f"{folder}/large.pkl"),
            localrun=lambda: large.get_or_call(100),
            localrun_mmap=lambda: large.get_or_run(100).result(mmap=True),
            **others(large, folder, 100),
        )
        report(f"a cached result of 100 MB, {rounds} rounds", medians, "pickle", 0.36)

        run = small.get_or_run(3.0, run_name="small").wait()
        medians = interleaved(
            rounds * 20,
            floor=lambda: least(run.path, 3.0),
            localrun=lambda: small.get_or_call(3.0),
            localrun_named=lambda: small.get_or_call(3.0, run_name="small"),
            **others(small, folder, 3.0),
        )
        report(f"a small cached result, {rounds * 20} rounds", medians, "floor", 3)


if __name__ == "__main__":
    main()
