"""The command line as a whole: help, version, what is loaded, and what becomes of errors."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import commandline
import pytest
from commandline import PROGRAM, ok, refused
from support import Home

from localrun.cli.main import COMMANDS, parse

COMMAND_LINES = [[name] for name, *_ in COMMANDS]
COMMAND_LINES += [["get", kind] for kind in ("clusters", "secrets")] + [["update", "run"], ["diff", "run"]]
COMMAND_LINES += [["delete", "secret"], ["create", "secret"], ["create", "secret", "env"], ["create", "secret", "file"]]
COMMAND_LINES += [["completion", kind] for kind in ("bash", "zsh", "fish", "names")]
COMMAND_LINES += [[verb, kind] for verb in ("get", "stop", "start", "delete") for kind in ("run", "runs")]


def test_help_names_every_command_and_loads_none(home: Home) -> None:
    code = (
        "import sys\nfrom localrun.cli.main import main\n"
        "try:\n    main(['--help'])\n"
        "finally:\n    print(*(name for name in sys.modules if name.startswith(('localrun', 'typing', 'rich'))))\n"
    )
    text = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for name, _, does in COMMANDS:
        assert f"\n    {name:12} {does}\n" in text
    loaded = set(text.splitlines()[-1].split())
    assert loaded <= {f"localrun{name}" for name in ("", ".cli", ".cli.main", ".cli.parser", ".cli.terminal")}


@pytest.mark.parametrize("words", COMMAND_LINES, ids=" ".join)
def test_every_command_has_help_with_an_example(home: Home, words: list[str]) -> None:
    text = ok(*words, "--help").text
    assert "usage: localrun" in text
    examples = text.partition("examples:\n")[2]
    assert f"localrun {words[0]}" in examples
    for line in examples.splitlines():
        example = re.sub(r"\$\(.*?\)|   .*|source <", "", line[2:]).strip("()")
        assert parse(shlex.split(re.split(r" [<|] ", example)[0])[1:]).command, line
    assert ok(*words, "-h").text == text
    assert not home.path.exists()


def test_version(home: Home) -> None:
    import localrun

    assert ok("--version").text == f"localrun {localrun.__version__}\n"


def test_it_is_a_module_too(home: Home) -> None:
    def module(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "localrun", *words], capture_output=True, text=True, check=False)

    assert module("--version").stdout == ok("--version").text
    assert module("--help").stdout == ok("--help").text
    assert (module("nonsense").returncode, module("describe", "nowhere").returncode) == (2, 1)


def test_nothing_is_help_and_an_error(home: Home) -> None:
    ended = commandline.run()
    assert (ended.code, ended.out) == (2, b"")
    assert ended.said.startswith("usage: localrun")


def test_an_unknown_command_is_one_line(home: Home) -> None:
    assert "invalid choice: 'rnu'" in refused("rnu")
    assert "unrecognized arguments: --verbose" in refused("util", "--verbose")


def test_an_unusable_home_is_one_line(home: Home, tmp_path: Path) -> None:
    home.path.write_text("")
    assert "LOCALRUN_HOME" in refused("run", "--", "true", code=1)
    home.path.unlink()
    home.path.mkdir()
    home.path.chmod(0o777)
    assert "writable by others" in refused("run", "--", "true", code=1)
    assert list(home.path.iterdir()) == []


def test_closed_streams_do_no_harm(home: Home) -> None:
    for closed in (">&-", "2>&-", ">&- 2>&-", "<&-"):
        done = subprocess.run(["bash", "-c", f'exec "$@" {closed}', "bash", *PROGRAM, "get", "runs"], check=False)
        assert done.returncode == 0, closed


def test_an_encoding_that_lacks_a_character_is_no_error(home: Home) -> None:
    ok("run", "--follow", "--name", "it", "--", "true ü")
    assert "true \\xfc" in ok("get", "runs", PYTHONIOENCODING="ascii").text
    assert "true ü" in ok("get", "runs", PYTHONIOENCODING="utf-8").text
