"""``localrun completion``: in each real shell, on a terminal, with the Tab key; and what the scripts know."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from commandline import Terminal, ok, refused
from support import Home

from localrun.cli.completion import places
from localrun.cli.main import COMMANDS, command_parser
from localrun.model.status import RunStatus

SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "source <(localrun completion bash)"),
    "zsh": (["zsh", "-f", "-i"], "autoload -Uz compinit; compinit -D -u; source <(localrun completion zsh)"),
    "fish": (["fish", "--no-config", "-i"], "localrun completion fish | source"),
}
# What is typed before the Tab key, and the arguments that localrun is then called with.
TYPED = {
    "desc": "describe",
    "get cl": "get cluster",  # as far as clusters and cluster agree
    "get runs --del": "get runs --deleted",
    "run -f train.yaml --nproc": "run -f train.yaml --nproc-per-node",
    "run --name run --nproc": "run --name run --nproc-per-node",
    "logs oth": "logs other",
    "run --clone oth": "run --clone other",
    "stop run --status RUNNING oth": "stop run --status RUNNING other",
    "get runs --status FA": "get runs --status FAILED",
    "get runs --status FAILED,STO": "get runs --status FAILED,STOPPED",
    "get runs -o js": "get runs -o json",
    "run --priority lowe": "run --priority lowest",
    "delete secret to": "delete secret token",
    "create secret file x tr": "create secret file x train.yaml",
    "run -f tr": "run -f train.yaml",
    "run --cwd fold": "run --cwd folder",
    "run -- cat tr": "run -- cat train.yaml",
    "run --name oth": "run --name oth",  # a new one: nobody knows
    "logs nothing": "logs nothing",
}


@pytest.fixture
def called(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What ``localrun`` on the PATH was called with, a line each, unless that was for completion.

    There are runs, a secret, a file and a folder.
    """
    calls, script = tmp_path / "calls", tmp_path / "bin" / "localrun"
    script.parent.mkdir()
    real = f'exec "{sys.executable}" -c "from localrun.cli.main import main; main()" "$@"'
    script.write_text(f'#!/bin/bash\n[[ $1 == completion ]] && {real}\necho "$*" >> "{calls}"\n')
    script.chmod(0o755)
    calls.touch()
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    place = tmp_path / "place"
    (place / "folder").mkdir(parents=True)
    (place / "train.yaml").touch()
    monkeypatch.chdir(place)
    for name in ("lr-01", "lr-02", "other", ".archive"):
        (home.runs / name).mkdir(parents=True)
    ok("create", "secret", "env", "TOKEN=x")
    return calls


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, called: Path) -> Iterator[Terminal]:
    """Each of the shells on a terminal, with the script loaded."""
    program, load = SHELLS[request.param]
    if shutil.which(program[0]) is None:
        pytest.skip(f"{program[0]} is not installed")
    with Terminal(program=program) as terminal:
        terminal.type(f"{load}; localrun ready\r")
        terminal.read_while(lambda: "ready" in called.read_text())
        yield terminal


def test_tab_completes_in_a_real_shell(shell: Terminal, called: Path) -> None:
    for number, (typed, expected) in enumerate(TYPED.items(), 2):
        shell.type(f"localrun {typed}\t\r")
        shell.read_while(lambda number=number: len(called.read_text().splitlines()) >= number)
        assert called.read_text().splitlines()[-1].removesuffix("/") == expected, typed


def test_bash_offers_what_may_come(called: Path) -> None:
    def offered(*words: str) -> list[str]:
        """What is offered for the last of the words behind ``localrun``."""
        script = (
            'source <(localrun completion bash); compopt() { :; }; COMP_WORDS=(localrun "$@"); COMP_CWORD=$#\n'
            '_localrun localrun; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run(["bash", "-c", script, "bash", *words], capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return done.stdout.split()

    assert offered("") == [name for name, *_ in COMMANDS]
    assert offered("get", "") == ["runs", "run", "clusters", "cluster", "secrets", "secret"]
    assert offered("logs", "") == ["lr-01", "lr-02", "other"]
    assert offered("logs", "lr-") == ["lr-01", "lr-02"]
    assert offered("logs", "-f", "--rank", "") == ["all"]
    assert offered("logs", "--tail", "") == []
    assert set(offered("get", "runs", "--status", "=", "")) == {status.value for status in RunStatus}
    assert offered("run", "--p") == ["--path", "--priority", "--pull", "--preemptible", "--param"]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_is_sound_and_says_how_it_is_loaded(home: Home, tmp_path: Path, shell: str) -> None:
    script = tmp_path / "script"
    script.write_bytes(ok("completion", shell).out)
    assert f"localrun completion {shell}" in ok("completion", shell, "--help").text
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    checked = subprocess.run([shell, "-n", str(script)], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_every_command_and_option_is_known() -> None:
    known = {place.words: place for place in places("localrun", command_parser())}
    assert list(known["localrun"].commands) == [name for name, *_ in COMMANDS]
    assert all(known["localrun"].commands.values())
    for words, place in known.items():
        for command in place.commands:
            assert f"{words} {command}" in known
        assert ["-h", "--help"] in [list(option.flags) for option in place.options]
        assert all(option.about for option in place.options)
    assert known["localrun stop run"].operand == ":runs"
    assert known["localrun create secret file"].operand == ":files"


def test_names_are_looked_up_without_importing_much(called: Path) -> None:
    assert ok("completion", "names", "runs").text == "lr-01\nlr-02\nother\n"
    assert ok("completion", "names", "runs", "lr-02").text == "lr-02\n"
    assert ok("completion", "names", "secrets").text == "token\n"
    code = (
        "import sys\nfrom localrun.cli.main import main\n"
        "try:\n    main(['completion', 'names', 'runs'])\nfinally:\n    print(*sys.modules)\n"
    )
    text = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    loaded = {name for name in text.splitlines()[-1].split() if name.startswith(("localrun.", "yaml", "json"))}
    assert loaded <= {
        *(f"localrun.cli{name}" for name in ("", ".main", ".parser", ".terminal", ".completion")),
        "localrun.settings", "localrun.errors",
    }  # fmt: skip


def test_a_home_that_is_not_there_has_no_names(home: Home) -> None:
    assert ok("completion", "names", "runs").out == ok("completion", "names", "secrets").out == b""
    assert not home.path.exists()


def test_bad_command_lines(home: Home) -> None:
    assert "invalid choice: 'tcsh'" in refused("completion", "tcsh")
    assert "KIND" in refused("completion")
    assert "invalid choice: 'clusters'" in refused("completion", "names", "clusters")
