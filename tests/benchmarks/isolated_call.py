"""What an isolated call costs over the floor: a folder, a pickle, an interpreter, load, call, store, read back.

    python tests/benchmarks/isolated_call.py [ROUNDS]
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
from rounds import fresh_home, interleaved, report

import localrun

_CHILD = """
import sys, cloudpickle
folder = sys.argv[1]
with open(folder + "/call.pkl", "rb") as file:
    function, args, kwargs = cloudpickle.load(file)
value = function(*args, **kwargs)
with open(folder + "/result.pkl", "wb") as file:
    cloudpickle.dump(value, file)
"""


@localrun.function
def nothing() -> None:
    """The no-op call."""


@localrun.function
def large(megabytes: int) -> Any:
    """A large NumPy result."""
    return np.ones(megabytes * 1_000_000 // 8)


def floor(function: Any, *args: Any) -> Any:
    """The least that an isolated call with output in files can do."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        (path / "call.pkl").write_bytes(cloudpickle.dumps((function.fn, args, {})))
        with open(path / "out", "wb") as out, open(path / "err", "wb") as err:
            subprocess.run([sys.executable, "-c", _CHILD, folder], stdout=out, stderr=err, check=True)
        with open(path / "result.pkl", "rb") as file:
            return pickle.load(file)


def main() -> None:
    """Measure the no-op and the large result."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 21
    with fresh_home():
        medians = interleaved(
            rounds,
            floor=lambda: floor(nothing),
            localrun=lambda: nothing.run().result(),
            localrun_named=lambda: nothing(run_name="same-name"),
        )
        report(f"isolated no-op call, {rounds} rounds", medians, "floor", 1.4)
        few = max(rounds // 3, 3)
        medians = interleaved(few, floor=lambda: floor(large, 100), localrun=lambda: large(100, run_name="large"))
        report(f"100 MB NumPy result, {few} rounds", medians, "floor", 1.4)


if __name__ == "__main__":
    main()
