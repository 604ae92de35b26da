"""Artifacts of real runs, and the graph that they make: `localrun.lineage`."""

from __future__ import annotations

import json
import os
import sys
import xml.etree.ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import Home, execute, kill, submit, wait_until

import localrun
from localrun.api.lineage.graph import Edge
from localrun.api.tracing import current
from localrun.model import catalogue
from localrun.model.folder import RunFolder


@pytest.fixture(autouse=True)
def _place(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home.place)


@localrun.function
def step(read: list[str], made: list[str], used: list[str], text: str = "") -> str:
    """A run that reads, uses and makes these."""
    for name in used:
        text += localrun.get_run(name).result()
    for name in read:
        with localrun.open(name) as file:
            text += file.read()
    for name in made:
        with localrun.open(name, "w") as file:
            file.write(f"{text} in {name}")
    return text


def names(noted: list[dict[str, Any]]) -> list[str]:
    return [each.get("name") or os.path.basename(each["url"]) for each in noted]


def edges(lineage: localrun.Lineage) -> set[tuple[str, str, str]]:
    """The edges by the names of what they lead from and to; those of a changed file say so."""

    def shown(edge: Edge) -> tuple[str, str, str]:
        kind = f"{edge.kind}, changed" if edge.changed else edge.kind
        return lineage.node(edge.source).name, kind, lineage.node(edge.target).name

    return {shown(edge) for edge in lineage.edges}


# -- artifacts of runs ------------------------------------------------------------------------------------------------


def test_a_function_run_has_its_artifacts(home: Home) -> None:
    Path("in").write_text("x")
    step([], [], [], text="first", run_name="first")
    run = step.run(["in"], ["out"], ["first"], run_name="second")
    assert run.result() == "firstx"
    first = home.record("first")
    used, read = run.refresh().upstream_artifacts
    assert used.pop("time") <= read["time"]
    assert used == {
        "kind": "run", "url": str(home.runs / "first"), "name": "first", "uid": first["uid"],
        "size": first["result"]["size"], "digest": f"sha256:{first['result']['sha256']}",
    }  # fmt: skip
    assert names([read]) == ["in"]
    assert names(run.downstream_artifacts) == ["out"]
    assert home.record("second")["upstream_artifacts"] == run.upstream_artifacts
    assert first["upstream_artifacts"] == []
    wait_until(lambda: not (home.runs / "second" / "artifacts.jsonl").exists())  # its end comes first


def test_a_command_run_has_its_artifacts(home: Home) -> None:
    code = "import localrun; localrun.open('out', 'w').write('x'); print(localrun.open('out').read())"
    run = execute("run", f'"{sys.executable}" -c "{code}"')
    assert run.stdout() == "x\n"
    assert names(run.downstream_artifacts) == names(run.upstream_artifacts) == ["out"]


def test_what_was_not_closed_is_noted_at_the_programs_end(home: Home) -> None:
    @localrun.function
    def keep() -> None:
        import localrun

        sys.kept = localrun.open("out", "w")  # type: ignore[attr-defined]
        sys.kept.write("kept")  # type: ignore[attr-defined]

    keep(run_name="run")
    (artifact,) = localrun.get_run("run").downstream_artifacts
    assert artifact["size"] == 4
    assert Path("out").read_text() == "kept"


def test_an_active_runs_artifacts_are_shown(home: Home) -> None:
    @localrun.function
    def write_and_wait() -> None:
        import time

        import localrun

        with localrun.open("out", "w") as file:
            file.write("x")
        while True:
            time.sleep(1)

    run = write_and_wait.run(run_name="run")
    wait_until(lambda: names(run.refresh().downstream_artifacts) == ["out"])
    assert home.record("run")["downstream_artifacts"] == []
    run.stop().wait()
    assert names(home.record("run")["downstream_artifacts"]) == ["out"]


def test_a_lost_run_keeps_its_artifacts(home: Home) -> None:
    @localrun.function
    def write_and_wait() -> None:
        import time

        import localrun

        localrun.open("out", "w").close()
        while True:
            time.sleep(1)

    run = write_and_wait.run(run_name="run")
    wait_until(lambda: names(run.refresh().downstream_artifacts) == ["out"])
    kill(home.supervisor("run"))
    assert run.wait().reason == "SystemFailure"
    assert names(home.record("run")["downstream_artifacts"]) == ["out"]


def test_the_artifacts_of_all_attempts_add_up(home: Home) -> None:
    code = (
        "import localrun, os, sys; n = os.environ['RESUMPTION_INDEX']; f = localrun.open(n, 'w'); f.write(n);"
        " f.close(); sys.exit(n == '0')"
    )
    run = execute("run", f'"{sys.executable}" -c "{code}"', max_retries=1)
    assert run.status is localrun.RunStatus.COMPLETED
    assert names(home.record("run")["downstream_artifacts"]) == ["0", "1"]
    run.start().wait()
    assert names(home.record("run")["downstream_artifacts"]) == ["0", "1", "2"]


def test_so_many_artifacts_that_they_stay_beside_the_record(home: Home) -> None:
    @localrun.function
    def make() -> None:
        import os

        import localrun

        for number in range(3000):
            os.makedirs(f"out/{number % 10}", exist_ok=True)
            with localrun.open(f"out/{number % 10}/{number}", "w") as file:
                file.write("x")

    make(run_name="run")
    run = localrun.get_run("run")
    assert home.record("run")["downstream_artifacts"] == []
    assert sorted(names(run.downstream_artifacts)) == sorted(map(str, range(3000)))
    os.rename(run.path, home.place / "moved")
    assert len(localrun.run(path=home.place / "moved").downstream_artifacts) == 3000
    os.rename(home.place / "moved", run.path)
    step(["out/7/7"], [], [], run_name="reader")
    assert ("run", "made", "7") in edges(localrun.lineage("reader"))


# -- runs used in runs ------------------------------------------------------------------------------------------------


@pytest.fixture
def block(home: Home) -> Iterator[RunFolder]:
    """A block around the code of a test."""
    folder = RunFolder(home.place / "block", "uid-of-the-block")
    os.mkdir(folder.path)
    current.enter(folder)
    yield folder
    current.leave(folder)


@pytest.mark.parametrize("ask", ["result", "exception", "inputs", "stdout", "stderr", "logs", "follow_logs"])
def test_each_question_is_a_use(home: Home, ask: str, block: RunFolder) -> None:
    run = step.run([], [], [], run_name="run").wait()
    assert catalogue.of(block, {}, "upstream") == []
    for _ in range(3):
        getattr(run, ask)()
        getattr(localrun.get_run("run"), ask)()
    (used,) = catalogue.of(block, {}, "upstream")
    assert (used["kind"], used["name"], used["uid"]) == ("run", "run", run.run_uid)
    assert len(Path(block.artifacts).read_bytes().split()) > 0


def test_a_run_that_is_asked_early_and_late_is_noted_with_its_result(home: Home, block: RunFolder) -> None:
    run = step.run([], [], [], run_name="run")
    run.inputs()
    run.result()
    (used,) = catalogue.of(block, {}, "upstream")
    assert used["digest"] is not None


def test_a_run_that_asks_itself_uses_nothing(home: Home) -> None:
    @localrun.function
    def ask() -> str:
        import os

        import localrun

        run = localrun.get_run("run")
        run.log_artifact(__import__("sys").executable)
        return run.stdout() + str(run.inputs()) + os.environ["RUN_NAME"]

    ask(run_name="run")
    run = localrun.get_run("run")
    assert run.upstream_artifacts == []
    assert names(run.downstream_artifacts) == [os.path.basename(os.path.realpath(sys.executable))]


def test_a_cached_value_is_a_use(home: Home) -> None:
    @localrun.function
    def inner(x: int) -> int:
        return x

    @localrun.function
    def outer() -> int:
        return inner.get_or_call(1, run_name="inner") + inner.get_or_call(1, run_name="inner")

    assert outer(run_name="outer") == 2
    assert outer(run_name="again") == 2
    assert names(localrun.get_run("outer").upstream_artifacts) == ["inner"]
    assert names(localrun.get_run("again").upstream_artifacts) == ["inner"]


# -- the graph --------------------------------------------------------------------------------------------------------


@pytest.fixture
def pipeline(home: Home) -> None:
    """raw → prep → table → train → model → score; base is used by train; side reads raw too."""
    Path("raw").write_text("x")
    step([], [], [], text="base", run_name="base")
    step(["raw"], ["table"], [], run_name="prep")
    step(["raw"], [], [], run_name="side")
    step(["table"], ["model"], ["base"], run_name="train")
    step(["model"], ["score"], [], run_name="score-run")


def test_upwards_and_downwards(pipeline: None) -> None:
    up = {
        ("raw", "read", "prep"), ("prep", "made", "table"), ("table", "read", "train"), ("base", "used", "train"),
    }  # fmt: skip
    down = {
        ("train", "made", "model"), ("model", "read", "score-run"), ("score-run", "made", "score"),
    }  # fmt: skip
    assert edges(localrun.lineage("train")) == up | down
    assert edges(localrun.lineage(localrun.get_run("score-run"))) == up | down
    assert edges(localrun.lineage("base")) == down | {("base", "used", "train")}
    assert edges(localrun.lineage("side")) == {("raw", "read", "side")}
    found = localrun.lineage("train")
    assert (found.root.name, found.root.status) == ("train", "COMPLETED")
    assert all(node.now is None for node in found.nodes)


def test_a_file_that_was_changed_since(pipeline: None, home: Home) -> None:
    Path("model").write_text("tampered")
    step(["model"], [], [], run_name="later")
    found = edges(localrun.lineage("later"))
    assert ("train", "made, changed", "model") in found
    assert ("base", "used", "train") in found
    found_from_train = localrun.lineage("train")
    assert ("train", "made", "model") in edges(found_from_train)
    assert ("train", "made, changed", "model") in edges(found_from_train)
    assert {node.now for node in found_from_train.nodes if node.name == "model"} == {"changed", None}
    Path("table").unlink()
    assert {node.now for node in localrun.lineage("train").nodes if node.name == "table"} == {"gone"}


def test_a_file_of_the_same_size_that_was_changed_since(pipeline: None) -> None:
    Path("raw").write_text("y")
    assert {node.now for node in localrun.lineage("side").nodes if node.name == "raw"} == {"changed"}


def test_who_made_it_after_it_was_read_did_not_make_it(home: Home) -> None:
    Path("file").write_text("x in file")
    step(["file"], [], [], run_name="reader")
    step([], ["file"], [], text="x", run_name="maker")
    assert edges(localrun.lineage("reader")) == {("file", "read", "reader")}
    assert edges(localrun.lineage("maker")) == {("maker", "made", "file")}


def test_circles_come_to_an_end(home: Home) -> None:
    Path("state").write_text("0")
    for number in range(3):
        step(["state"], ["state"], [], run_name=f"turn-{number}")
    step(["state"], ["copy", "state"], ["turn-0"], run_name="last")
    found = localrun.lineage("turn-1")
    assert ("turn-0", "made", "state") in edges(found)
    assert ("turn-0", "used", "last") in edges(localrun.lineage("turn-0"))
    localrun.lineage("last").svg()


def test_a_run_that_reads_what_it_made(home: Home) -> None:
    @localrun.function
    def both() -> None:
        import localrun

        localrun.open("file", "w").close()
        localrun.open("file").close()

    both(run_name="both")
    assert edges(localrun.lineage("both")) == {("both", "made", "file"), ("file", "read", "both")}
    localrun.lineage("both").svg()


def test_archived_renamed_and_vanished_runs(pipeline: None, home: Home) -> None:
    localrun.delete_run("prep")
    localrun.get_run("base").save("base-renamed")
    found = edges(localrun.lineage("train"))
    assert {("prep", "made", "table"), ("base-renamed", "used", "train")} <= found
    import shutil

    shutil.rmtree(home.runs / "base-renamed")
    found_now = localrun.lineage("train")
    assert ("base", "used", "train") in edges(found_now)
    assert next(node for node in found_now.nodes if node.name == "base").status == ""


def test_a_run_elsewhere_and_one_that_cannot_be_read(pipeline: None, home: Home) -> None:
    step.options(path=home.place / "far")(["table"], [], [], run_name="far")
    assert ("prep", "made", "table") in edges(localrun.lineage(localrun.run(path=home.place / "far")))
    record = home.runs / "score-run" / "config.json"
    record.write_text(record.read_text().replace('"kind": "file"', '"kind": 12, "size": []'))
    (home.runs / "side" / "config.json").write_text('{"upstream_artifacts": 12')
    assert ("table", "read", "train") in edges(localrun.lineage("train"))


@pytest.mark.parametrize(
    "strange", [{"url": []}, {"url": None}, {"time": 3}, {"size": "x"}, {"digest": {}}, {"kind": "run", "uid": []}],
    ids=str,
)  # fmt: skip
def test_a_record_that_says_nonsense_spoils_no_others_lineage(home: Home, strange: dict[str, Any]) -> None:
    Path("file").write_text("x")
    step(["file"], [], [], run_name="reader")
    step(["file"], ["made"], [], run_name="odd")
    record = home.record("odd")
    for field in ("upstream_artifacts", "downstream_artifacts"):
        record[field] = [record[field][0] | strange, "x", *record[field]]
    (home.runs / "odd" / "config.json").write_text(json.dumps(record))
    assert edges(localrun.lineage("reader")) == {("file", "read", "reader")}
    assert edges(localrun.lineage("odd")) == {("file", "read", "odd"), ("odd", "made", "made")}


def test_a_run_without_artifacts(home: Home) -> None:
    submit("plain", "true").wait()
    found = localrun.lineage("plain")
    assert (found.nodes, found.edges) == ([found.root], [])
    with pytest.raises(localrun.RunNotFoundError):
        localrun.lineage("nowhere")


def test_pictures(pipeline: None) -> None:
    found = localrun.lineage("train")
    svg = xml.etree.ElementTree.fromstring(found.svg())
    boxes = {"".join(each.itertext()) for each in svg.iter("{http://www.w3.org/2000/svg}text")}
    assert {"raw", "prep", "table", "train", "model", "score-run", "score", "base"} <= boxes
    lines = [each for each in svg.iter("{http://www.w3.org/2000/svg}path") if "marker-end" in each.attrib]
    assert len(lines) == len(found.edges)
    assert found._repr_svg_() == found.svg()
    dot = found.dot()
    assert dot.startswith("digraph lineage {")
    assert dot.count(" -> ") == len(found.edges)


def test_names_that_pictures_could_stumble_over(home: Home) -> None:
    odd = 'a<b>&"c"\\\n\x1b]é\udcff'
    Path(odd).write_text("x")
    step([odd], [], [], run_name="run")
    found = localrun.lineage("run")
    xml.etree.ElementTree.fromstring(found.svg().encode())
    assert '\\"c\\"' in found.dot() and "é" in found.dot()
    assert any(node.url.endswith(odd) for node in found.nodes)
