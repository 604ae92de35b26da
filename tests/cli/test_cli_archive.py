"""``localrun export``, ``import``, ``replay`` and what ``diff`` says of provenance, inputs and results."""

from __future__ import annotations

import json
from pathlib import Path

import commandline
import pytest
from commandline import ok, refused
from repositories import repository
from support import Home, execute

import localrun


@pytest.fixture
def root(tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository in which we are."""
    root = repository(tmp_path / "project", data="one\n")
    monkeypatch.chdir(root)
    return root


class TestExportAndImport:
    def test_there_and_back(self, root: Path, home: Home) -> None:
        (root / "new").touch()
        ended = commandline.run("run", "--name", "a", "--follow", "--env", "TOKEN=1", "--", "cat data.txt; exit 3")
        assert ended.code == 3
        exported = ok("export", "a")
        assert exported.text == f"{root}/a.localrun.tar.gz\n"
        assert exported.said.splitlines() == [
            "localrun: not in it are untracked files of the code: new",
            "localrun: it has the values of TOKEN: mind whom you give it to",
        ]
        archive = home.place / "b.tar.gz"
        assert ok("export", "a", "-o", archive).text == f"{archive}\n"
        assert "--name" in refused("import", archive, code=1)
        assert ok("import", archive, "--name", "b").text == "b\n"
        assert ok("logs", "b").text == "one\n"
        assert (home.runs / "b" / ".untrusted").exists()
        assert ok("import", archive, "--name", "c", "--trust").text == "c\n"
        assert not (home.runs / "c" / ".untrusted").exists()

    def test_code_that_is_not_in_it_is_told(self, home: Home, tmp_path: Path) -> None:
        ok("run", "--name", "a", "--follow", "--", "true", cwd=tmp_path)
        assert ok("export", "a", cwd=tmp_path).said == "localrun: its code is not in it: no repository\n"

    def test_bad_command_lines(self, root: Path, home: Home) -> None:
        assert "RUN" in refused("export")
        assert "nowhere" in refused("export", "nowhere", code=1)
        assert "nowhere" in refused("import", "nowhere.tar.gz", code=1)
        assert "no archive" in refused("import", "data.txt")
        assert "name" in refused("import", "data.txt", "--name", "_x")

    def test_a_terminal_does_not_act_on_what_an_error_names(self, root: Path, home: Home) -> None:
        assert r"a\x1b]0;title\x07" in refused("import", "a\x1b]0;title\x07", code=1)


class TestReplay:
    def test_it_prints_what_differs_and_follows(self, root: Path, home: Home) -> None:
        ok("run", "--name", "a", "--follow", "--", "cat data.txt")
        (root / "data.txt").write_text("two\n")
        checked = commandline.run("replay", "a", "--check")
        assert (checked.code, checked.text.splitlines()[0].split()) == (1, ["FIELD", "THEN", "HERE"])
        assert checked.text.splitlines()[1].startswith("diff data.txt")
        as_json = commandline.run("replay", "a", "--check", "-o", "json")
        assert list(json.loads(as_json.text)) == ["diff data.txt"]
        assert len(localrun.get_runs()) == 1
        replayed = ok("replay", "a", "--name", "b")
        assert replayed.text == "two\n"
        assert "diff data.txt" in replayed.said and "localrun: run b" in replayed.said
        assert home.record("b")["cmds"] == ["cat data.txt"]
        assert home.record("a")["uid"] != home.record("b")["uid"]

    def test_nothing_differs_and_it_exits_as_the_run(self, root: Path, home: Home) -> None:
        commandline.run("run", "--name", "a", "--follow", "--", "exit 7")
        assert ok("replay", "a", "--check").said == "localrun: all that is known of a is as it was\n"
        assert commandline.run("replay", "a").code == 7

    def test_what_came_from_elsewhere_needs_trust(self, root: Path, home: Home) -> None:
        ok("run", "--name", "a", "--follow", "--", "echo x")
        ok("export", "a")
        ok("import", "a.localrun.tar.gz", "--name", "b")
        ended = commandline.run("replay", "b")
        assert (ended.code, ended.text) == (1, "")
        assert "--trust" in ended.said
        assert ok("replay", "b", "--trust").text == "x\n"


class TestDiff:
    def test_code_inputs_and_results(self, root: Path, home: Home) -> None:
        @localrun.function
        def add(one: object, other: int = 1) -> object:
            return {"sum": f"{one} {other}"}

        add(1, run_name="a")
        (root / "data.txt").write_text("two\n")
        add(1, other=2, run_name="b")
        ended = commandline.run("diff", "run", "a", "b", "-o", "json")
        found = json.loads(ended.text)
        found.pop("ran", None)
        assert ended.code == 1
        assert found.pop("diff data.txt")[0] is None
        assert found == {
            "argument other": [None, "2"],
            "result": ["{'sum': '1 1'}", "{'sum': '1 2'}"],
        }

    def test_what_is_not_trusted_is_told_by_its_digests(self, root: Path, home: Home) -> None:
        @localrun.function
        def add(one: int) -> int:
            return one + 1

        add(1, run_name="a")
        add(2, run_name="b")
        ok("export", "b")
        ok("import", "b.localrun.tar.gz", "--name", "c")
        found = json.loads(commandline.run("diff", "run", "a", "c", "-o", "json").text)
        assert found["inputs"][0] != found["inputs"][1]
        assert all(digest.startswith("sha256:") for digest in found["result"])

    def test_commands(self, root: Path, home: Home) -> None:
        execute("a", "echo $X", env_variables={"X": "1"})
        execute("b", "echo $X", env_variables={"X": "2" * 1000})
        found = json.loads(commandline.run("diff", "run", "a", "b", "-o", "json").text)
        assert found["stdout"][0] == "1"
        assert found["stdout"][1].endswith("(1001 bytes)")

    def test_secrets_are_not_shown(self, root: Path, home: Home) -> None:
        localrun.create_secret(localrun.Secret("token", "environment", "tops3cret", key="TOKEN"))
        execute("a", "echo $TOKEN 1")
        execute("b", "echo $TOKEN 2")
        assert json.loads(commandline.run("diff", "run", "a", "b", "-o", "json").text)["stdout"] == ["*** 1", "*** 2"]


def test_describe_names_the_commit(root: Path, home: Home) -> None:
    execute("a", "true")
    assert "on main (" in ok("describe", "a").text
    (root / "data.txt").write_text("two\n")
    execute("b", "true")
    assert "on main, changed (" in ok("describe", "b").text
