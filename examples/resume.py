"""Training that survives being stopped, preempted or retried: it goes on from its last checkpoint.

    localrun run -f examples/resume.yaml --follow
    localrun run -f examples/resume.yaml --sweep learning_rate=0.5,0.1,0.02

A run keeps `checkpoints/` over all its resumptions and is told with RESUMPTION_INDEX which one this is. Here the first
attempt breaks off halfway, as on a machine that fails; the configuration allows retries, and the second goes on.
"""

import json
import os
import random
from pathlib import Path

# The file is YAML; of numbers alone, a line each.
LINES = Path(os.environ["PARAMETERS"]).read_text().splitlines()
PARAMETERS = {name: float(value) for name, value in (line.split(": ") for line in LINES)}
CHECKPOINT = Path(os.environ["LOCALRUN_CHECKPOINT_DIR"], "state.json")
RESUMPTION = int(os.environ["RESUMPTION_INDEX"])


def load() -> dict[str, float]:
    """Where the attempt before this one got to, or the start."""
    if CHECKPOINT.exists():
        state: dict[str, float] = json.loads(CHECKPOINT.read_text())
        print(f"resumption {RESUMPTION} goes on after epoch {state['epoch']:.0f}")
        return state
    return {"epoch": 0, "slope": 0.0, "offset": 0.0}


def save(state: dict[str, float]) -> None:
    """Keep a state, all of it or nothing: an attempt may end at any moment."""
    unfinished = CHECKPOINT.with_suffix(".new")
    unfinished.write_text(json.dumps(state))
    unfinished.replace(CHECKPOINT)


def train(state: dict[str, float], points: list[tuple[float, float]]) -> float:
    """Fit a line to the points for one epoch of gradient descent; the mean squared error."""
    loss = 0.0
    for x, y in points:
        error = state["slope"] * x + state["offset"] - y
        state["slope"] -= PARAMETERS["learning_rate"] * error * x
        state["offset"] -= PARAMETERS["learning_rate"] * error
        loss += error**2 / len(points)
    return loss


def main() -> None:
    """Train from wherever it was left."""
    draw = random.Random(0)
    points = [(x, 3 * x - 1 + draw.gauss(0, 0.05)) for x in (draw.uniform(-1, 1) for _ in range(100))]
    state = load()
    for epoch in range(int(state["epoch"]), int(PARAMETERS["epochs"])):
        loss = train(state, points)
        save({**state, "epoch": epoch + 1})
        print(f"epoch {epoch + 1}: loss {loss:.4f}", flush=True)
        if RESUMPTION == 0 and epoch + 1 == PARAMETERS["break_off_after"]:
            raise SystemExit("the first attempt breaks off here")
    print(f"slope {state['slope']:.2f}, offset {state['offset']:.2f}")


if __name__ == "__main__":
    main()
