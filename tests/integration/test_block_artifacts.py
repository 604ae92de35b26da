"""What a traced block reads, makes and uses: opened with `localrun.open`, or seen by ``trace_files``."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from support import Home, find_processes, run_python, wait_until

import localrun


@pytest.fixture(autouse=True)
def project(home: Home, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = home.place / "project"
    path.mkdir()
    monkeypatch.chdir(path)
    Path("in.txt").write_text("in")
    return path


def names(noted: list[dict[str, Any]]) -> list[str]:
    return [each.get("name") or os.path.basename(each["url"]) for each in noted]


def test_a_block_has_its_artifacts(home: Home) -> None:
    with localrun.run(name="first") as first:
        print("said")
    with localrun.run(name="second") as run:
        localrun.open("in.txt").close()
        with localrun.open("out.txt", "w") as file:
            file.write(first.stdout())
        Path("plot.png").write_text("x")
        run.log_artifact("plot.png")
        assert names(run.downstream_artifacts) == ["out.txt", "plot.png"]
        left = localrun.open("left.txt", "w")
        left.write("x")
    left.close()
    assert names(run.upstream_artifacts) == ["in.txt", "first"]
    assert names(home.record("second")["downstream_artifacts"]) == ["out.txt", "plot.png", "left.txt"]
    assert not Path(run.path, "artifacts.jsonl").exists()
    with pytest.raises(localrun.IllegalTransitionError):
        run.log_artifact("plot.png")


def test_nested_blocks_both_have_them(home: Home) -> None:
    with localrun.run(name="outer") as outer:
        with localrun.run(name="inner") as inner, localrun.open("out.txt", "w") as file:
            file.write("x")
        inner.stdout()
    assert names(inner.downstream_artifacts) == names(outer.downstream_artifacts) == ["out.txt"]
    assert names(outer.upstream_artifacts) == ["inner"]


def test_trace_files(home: Home) -> None:
    with localrun.run(name="run", trace_files=True) as run:
        pickle.dumps(run)
        text = Path("in.txt").read_text()
        for number in range(1000):
            Path(f"{number}.out").write_text(text)
        print("shown")
    assert names(run.upstream_artifacts) == ["in.txt"]
    assert sorted(names(run.downstream_artifacts)) == sorted(f"{number}.out" for number in range(1000))
    assert all(each["digest"] for each in run.downstream_artifacts)
    with localrun.Run(name="reader", trace_files=["."]) as reader:
        Path("7.out").read_text()
    assert names(reader.upstream_artifacts) == ["7.out"]
    lineage = localrun.lineage("reader")
    assert {(lineage.node(edge.source).name, edge.kind) for edge in lineage.edges} == {
        ("run", "made"), ("in.txt", "read"), ("7.out", "read"),
    }  # fmt: skip


def test_a_block_that_fails_has_them(home: Home) -> None:
    with pytest.raises(ZeroDivisionError), localrun.run(name="run", trace_files=True):
        Path("out.txt").write_text("x")
        1 / 0  # noqa: B018
    assert names(home.record("run")["downstream_artifacts"]) == ["out.txt"]


def test_what_can_not_be_traced_is_refused_before_anything_is_made(home: Home) -> None:
    with pytest.raises(localrun.RunConfigError, match="trace_files"):
        localrun.Run(name="run", trace_files="data")
    assert not home.path.exists()


def test_what_a_block_reads_shows_while_it_is_at_work(home: Home) -> None:
    Path("in.txt").write_text("x")
    os.utime("in.txt", (1e9, 1e9))
    with localrun.run(name="run", trace_files=True) as run:
        Path("in.txt").read_text()
        wait_until(lambda: names(localrun.get_run("run").upstream_artifacts) == ["in.txt"])
        Path("out.txt").write_text("x")
    assert names(home.record("run")["downstream_artifacts"]) == ["out.txt"]
    assert names(run.upstream_artifacts) == ["in.txt"]


def test_a_block_whose_process_is_killed_has_them(home: Home) -> None:
    code = """
        import os, localrun
        with localrun.run(name="run", trace_files=True):
            with localrun.open("out.txt", "w") as file:
                file.write("x")
            for number in range(900):
                open(f"{number}.out", "w").close()
            os.kill(os.getpid(), 9)
    """
    run_python(code, ok=False)
    wait_until(lambda: not [each for each in find_processes(f"LOCALRUN_HOME={home.path}") if "witness" in each.command])
    run = localrun.get_run("run")
    assert run.reason == "SystemFailure"
    assert "out.txt" in names(run.downstream_artifacts)
    assert len(run.downstream_artifacts) > 700
