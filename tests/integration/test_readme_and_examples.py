"""What the README says and the examples show is so."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support import REPOSITORY, Home, run_python

import localrun

README = (REPOSITORY / "README.md").read_text()
LOCALRUN = [sys.executable, "-c", "from localrun.cli.main import main; main()"]


def blocks(language: str) -> list[str]:
    """The README's code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def command_lines() -> list[list[str]]:
    """Every `localrun …` line of the README, without its comment."""
    lines = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("localrun ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


def test_the_two_commands_set_up_what_they_run() -> None:
    quickstart, tests = (block.strip() for block in blocks("bash")[:2])
    for command in (quickstart, tests):
        assert "\n" not in command
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install --quiet --editable ")
    assert quickstart.endswith("&& .venv/bin/python examples/quickstart.py")
    assert tests.endswith("&& .venv/bin/python -m pytest --quiet -n 3")


def test_ci_runs_the_readmes_test_command() -> None:
    script = (REPOSITORY / ".ci" / "run").read_text()
    assert "python -m pytest --quiet -n 3" in script
    for tool in ("ruff check", "mypy"):
        assert tool in script


@pytest.mark.parametrize("arguments", command_lines(), ids=" ".join)
def test_every_command_line_is_understood(arguments: list[str], home: Home) -> None:
    parts = arguments[: arguments.index("--")] if "--" in arguments else arguments
    ended = subprocess.run([*LOCALRUN, *parts, "--help"], capture_output=True, text=True, cwd=REPOSITORY)
    assert ended.returncode == 0, ended.stderr
    for option in (part for part in parts if part.startswith("-")):
        assert option in ended.stdout


def test_the_python_blocks_use_only_what_there_is() -> None:
    code = "\n".join(blocks("python"))
    for name in re.findall(r"localrun\.(\w+)", code):
        assert hasattr(localrun, name)
    for names in re.findall(r"from localrun import ([\w, ]+)", code):
        for name in names.split(", "):
            assert hasattr(localrun, name)
    for name in re.findall(r"\brun\.(\w+)", code):
        assert hasattr(localrun.Run, name)
    for name in re.findall(r"\btrain\.(\w+)\(", code):
        assert hasattr(localrun.Function, name)


def test_the_folder_is_as_drawn(home: Home) -> None:
    @localrun.function
    def speak() -> int:
        print("said")
        return 1

    run = speak.run(run_name="drawn")
    assert run.result() == 1
    drawn = set(re.findall(r"^    ([\w./]+)  ", blocks("text")[0], re.MULTILINE))
    made = {
        str(path.relative_to(run.path)) + ("/" if path.is_dir() else "")
        for path in (home.runs / "drawn").rglob("*")
        if not path.name.startswith(".")
    }
    conditional = {"artifacts.jsonl", "exception.pkl", "parameters.yaml", "telemetry/0.jsonl"}
    assert made - {"logs/", "logs/0/"} == drawn - conditional


def test_quickstart_trains_once_and_then_remembers(home: Home) -> None:
    pytest.importorskip("sklearn", reason="the quickstart needs the extra 'examples'")
    script = (REPOSITORY / "examples" / "quickstart.py").read_text()
    first = run_python(script, script=home.place / "quickstart.py", timeout=200)
    assert len(re.findall(r"^ +\d+ +0\.\d+ +0\.9\d+$", first.stdout, re.MULTILINE)) == 4
    made = sorted(home.records())
    again = run_python(script, script=home.place / "quickstart.py", timeout=200)
    assert again.stdout.splitlines()[:5] == first.stdout.splitlines()[:5]
    assert sorted(home.records()) == made
    assert {record["status"] for record in home.records().values()} == {"COMPLETED"}


@pytest.fixture
def python_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """``python3`` is this interpreter, as in an environment that is active."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")


@pytest.mark.usefixtures("python_here")
def test_resume_example_goes_on_where_it_was(home: Home) -> None:
    arguments = ["run", "-f", "examples/resume.yaml", "--follow"]
    ended = subprocess.run([*LOCALRUN, *arguments], capture_output=True, text=True, cwd=REPOSITORY)
    assert ended.returncode == 0, ended.stderr
    epochs = re.findall(r"^epoch (\d): loss", ended.stdout, re.MULTILINE)
    assert epochs == ["1", "2", "3", "4", "5", "6"]
    assert "resumption 1 goes on after epoch 3" in ended.stdout
    assert len(home.record("resume")["resumptions"]) == 2


@pytest.mark.usefixtures("python_here")
def test_resume_example_as_a_sweep(home: Home) -> None:
    def localrun_(*arguments: str) -> str:
        return subprocess.run(
            [*LOCALRUN, *arguments], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY, check=True
        ).stdout

    names = localrun_("run", "-f", "examples/resume.yaml", "--sweep", "learning_rate=0.5,0.1,0.02").split()
    assert names == ["resume-learning_rate-0.5", "resume-learning_rate-0.1", "resume-learning_rate-0.02"]
    localrun_("wait", *names)
    for name in names:
        assert re.search(r"^slope \d\.\d\d, offset -\d\.\d\d$", localrun_("logs", name), re.MULTILINE)


def test_command_example(home: Home) -> None:
    arguments = ["run", "-f", "examples/command.yaml", "--follow", "--param", "epochs=5"]
    ended = subprocess.run([*LOCALRUN, *arguments], capture_output=True, text=True, cwd=REPOSITORY)
    assert ended.returncode == 0, ended.stderr
    assert "epochs: 5" in ended.stdout
    assert ended.stdout.endswith("epoch 1\nepoch 2\nepoch 3\n")
    assert (home.runs / "count-words" / "checkpoints" / "last-epoch").read_text() == "3\n"


def test_traced_example(home: Home) -> None:
    shown = run_python((REPOSITORY / "examples" / "traced.py").read_text()).stdout.splitlines()
    assert shown[:2] == ["mean of the squares: 28.5", "and a subprocess"]
    assert shown[2] == f"prep: COMPLETED, 2 lines in {home.runs / 'prep'}"
    assert shown[3] == "broken: ValueError: no such column"
    assert home.status("broken") == "FAILED"
