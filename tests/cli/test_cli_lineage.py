"""``localrun lineage``: the graph as a tree, and for programs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from commandline import Terminal, ok, refused
from support import Home

import localrun


@localrun.function
def step(read: list[str], made: list[str], used: list[str]) -> int:
    """A run that reads, makes and uses these."""
    for name in used:
        localrun.get_run(name).result()
    for name in read:
        with localrun.open(name) as file:
            file.read()
    for name in made:
        with localrun.open(name, "w") as file:
            file.write(f"{name}\n")
    return 1


@pytest.fixture(autouse=True)
def _place(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home.place)
    monkeypatch.setenv("HOME", str(home.place))


def test_the_tree(home: Home) -> None:
    Path("raw.csv").write_text("x")
    step([], [], [], run_name="base")
    step(["raw.csv"], ["table.csv"], [], run_name="prep")
    step(["table.csv"], ["model.bin"], ["base"], run_name="train")
    with open("model.bin", "a") as file:
        file.write("more")
    step(["model.bin", "table.csv"], ["score.json"], [], run_name="score")
    assert ok("lineage", "train").text == (
        "train  COMPLETED\n"
        "├─ read ~/table.csv  10 bytes\n"
        "│  └─ made by prep  COMPLETED\n"
        "│     └─ read ~/raw.csv  1 byte\n"
        "├─ used base  COMPLETED\n"
        "├─ made ~/model.bin  10 bytes, another one by now\n"
        "└─ made ~/model.bin  14 bytes, changed since\n"
        "   └─ read by score  COMPLETED\n"
        "      └─ made ~/score.json  11 bytes\n"
    )
    assert ok("lineage", str(home.runs / "score")).text == (
        "score  COMPLETED\n"
        "├─ read ~/model.bin  14 bytes\n"
        "│  └─ made by train  COMPLETED, changed since\n"
        "│     ├─ read ~/table.csv  10 bytes\n"
        "│     │  └─ made by prep  COMPLETED\n"
        "│     │     └─ read ~/raw.csv  1 byte\n"
        "│     └─ used base  COMPLETED\n"
        "├─ read ~/table.csv  10 bytes\n"
        "│  └─ made by prep  COMPLETED (see above)\n"
        "└─ made ~/score.json  11 bytes\n"
    )


def test_for_programs(home: Home) -> None:
    Path("raw.csv").write_text("x")
    step(["raw.csv"], [], [], run_name="prep")
    graph = json.loads(ok("lineage", "prep", "-o", "json", COLUMNS="20").text)
    assert graph["root"] == f"run:{home.record('prep')['uid']}"
    run, file = graph["nodes"]
    assert (run["name"], run["status"], file["url"], file["size"]) == (
        "prep", "COMPLETED", str(home.place / "raw.csv"), 1,
    )  # fmt: skip
    assert graph["edges"] == [{"source": file["id"], "target": run["id"], "kind": "read", "changed": False}]
    assert ok("lineage", "prep", "-o", "dot").text.startswith("digraph")
    assert ok("lineage", "prep", "-o", "svg").text.startswith("<svg")


def test_a_terminal_of_80_columns_is_wide_enough(home: Home) -> None:
    deep = Path("a-folder-with-a-long-name/" * 4)
    deep.mkdir(parents=True)
    (deep / "the-data.csv").write_text("x")
    for number in range(30):
        (deep / f"{number}.csv").write_text("x")
    step([str(deep / "the-data.csv"), *(str(deep / f"{number}.csv") for number in range(30))], [], [], run_name="run")
    with Terminal("lineage", "run", columns=80) as terminal:
        assert terminal.end() == 0
        lines = terminal.seen.splitlines()
    assert max(map(len, lines)) <= 80
    assert re.search(r"read ~/a-folder-wi.*….*/the-data.csv  1 byte", terminal.seen)
    assert lines[-1] == "└─ and 11 files more: -o json has them all"
    assert str(deep / "the-data.csv") in ok("lineage", "run").text


def test_a_run_of_which_nothing_is_known(home: Home) -> None:
    ok("run", "--follow", "--name", "plain", "--", "true")
    assert ok("lineage", "plain").text.splitlines() == [
        "plain  COMPLETED", "└─ nothing is known that it read, used or made",
    ]  # fmt: skip


def test_bad_command_lines(home: Home) -> None:
    assert "RUN" in refused("lineage")
    assert "nowhere" in refused("lineage", "nowhere", code=1)
    assert "png" in refused("lineage", "run", "-o", "png")
