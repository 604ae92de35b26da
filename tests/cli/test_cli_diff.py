"""``localrun diff run``: what is not the same about two runs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import commandline
import pytest
from commandline import ok, refused
from support import Home

import localrun


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def different(*args: str, **environment: str) -> str:
    """What is said of runs that differ; the exit code says so too."""
    ended = commandline.run(*args, **environment)
    assert (ended.code, ended.said) == (1, ""), ended
    return ended.text


def test_what_differs_is_shown_and_nothing_else(home: Home) -> None:
    ok("run", "--follow", "--name", "a", "--param", "lr=0.1", "--param", "opt.name=adam", "--env", "T=1", "--", "true")
    commandline.run(
        "run", "--clone", "a", "--name", "b", "--param", "lr=0.2", "--env", "T=2", "--follow", "--", "exit 3"
    )
    differing = json.loads(different("diff", "run", "a", "b", "-o", "json", COLUMNS="20"))
    differing.pop("ran", None)
    assert differing == {
        "status": ["COMPLETED", "FAILED"],
        "reason": ["Completed", "Error"],
        "exit_code": [0, 3],
        "work": ["true", "exit 3"],
        "parameters.lr": [0.1, 0.2],
        "env_variables.T": ["***", "*** (another)"],
    }
    lines = different("diff", "run", "a", str(home.runs / "b")).splitlines()
    assert lines[0].split() == ["FIELD", "a", "b"]
    assert ["parameters.lr", "0.1", "0.2"] in [line.split() for line in lines]


def test_runs_that_do_not_differ(home: Home) -> None:
    ok("run", "--follow", "--name", "a", "--", "true")
    assert ok("diff", "run", "a", "a").said == "a and a don't differ\n"
    assert ok("diff", "run", "a", "a", "-o", "json").text == "{}\n"


def test_what_was_read_differs_also_where_no_digest_is_known(home: Home) -> None:
    with localrun.run(name="used"):
        pass
    Path("large").write_bytes(b"")
    os.truncate("large", 65 << 20)
    for name in ("a", "b"):
        with localrun.run(name=name):
            if name == "b":
                localrun.get_run("used").result()
                with localrun.open("large", "rb") as file:
                    file.read(1)
    differing = json.loads(different("diff", "run", "a", "b", "-o", "json"))
    differing.pop("ran", None)
    assert differing == {
        f"read {home.runs}/used": [None, localrun.get_run("used").run_uid],
        f"read {os.path.realpath('large')}": [None, f"digest unknown, {65 << 20} bytes"],
    }


def test_runs_elsewhere_are_for_python(home: Home) -> None:
    ok("run", "--follow", "--name", "a", "--", "true")
    assert ok("diff", "run", "a", f"file://{home.runs}/a").said == "a and a don't differ\n"
    assert "localrun.run(path='memory://x').to('here')" in refused("diff", "run", "a", "memory://x")


def test_bad_command_lines(home: Home) -> None:
    assert "KIND" in refused("diff")
    assert "RUN" in refused("diff", "run", "a")
    assert "nowhere" in refused("diff", "run", "nowhere", "a", code=1)
    assert not home.path.exists()


def test_the_time_alone_is_no_difference(home: Home) -> None:
    for name in ("a", "b"):
        ok("run", "--follow", "--name", name, "--", "true")
    record = home.record("b")
    for phase in record["lifecycle"]:
        phase["started_at"] = phase["started_at"].replace("2", "1", 1)  # a thousand years before
    (home.runs / "b" / "config.json").write_text(json.dumps(record))
    assert ok("diff", "run", "a", "b").said == "a and b don't differ\n"
