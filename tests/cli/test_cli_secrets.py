"""``localrun create``, ``get`` and ``delete secret``: how a value gets in, and that no command shows it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import commandline
import pytest
from commandline import Terminal, ok, refused, start
from support import Home

import localrun

VALUE = "hunter2"


def given(text: str, *args: object) -> commandline.Ended:
    """Run a command with this on its standard input."""
    process = start(*args, stdin=subprocess.PIPE)
    out, err = process.communicate(text.encode(), timeout=60)
    return commandline.Ended(process.returncode, out, err)


def value(variable: str) -> str:
    """What a run has in a variable."""
    name = f"value-of-{variable.lower().replace('_', '-')}"
    ok("run", "--follow", "--name", name, "--cpus", 0, "--", f'printf %s "${variable}"')
    return localrun.get_run(name).stdout()


def names() -> list[str]:
    """The secrets there are."""
    return ok("get", "secrets", "-o", "name").text.split()


def test_a_value_comes_by_argument_or_on_standard_input(home: Home) -> None:
    ended = ok("create", "secret", "env", f"HF_TOKEN={VALUE}=x")
    assert (ended.text, ended.said) == ("", "hf-token: created; runs to come have it in $HF_TOKEN\n")
    assert value("HF_TOKEN") == f"{VALUE}=x"
    assert given(f" {VALUE}\n\n", "create", "secret", "env", "other", "--name", "mine").code == 0
    assert value("other") == f" {VALUE}\n"  # less the newline at its end, and no more
    assert names() == ["hf-token", "mine"]


def test_a_value_is_asked_for_on_a_terminal_and_not_shown(home: Home) -> None:
    with Terminal("create", "secret", "env", "TOKEN") as terminal:
        terminal.read_until("value of TOKEN: ")
        terminal.type(f"{VALUE}\r")
        assert terminal.end() == 0
        assert VALUE not in terminal.seen
    assert value("TOKEN") == VALUE


def test_a_file_is_kept_as_it_is(home: Home, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\0\xff\n")
    ended = ok("create", "secret", "file", "ssh-key", tmp_path / "key")
    assert ended.said == "ssh-key: created; runs to come have its path in $SECRET_PATH_SSH_KEY\n"
    command = "cat $SECRET_PATH_SSH_KEY"
    assert ok("run", "--follow", "--cpus", 0, "--", command).out == b"\0\xff\n"
    assert given(VALUE, "create", "secret", "file", "cert", "-", "--mount-path", "/etc/cert").code == 0
    listed = json.loads(ok("get", "secret", "cert", "-o", "json").out)
    assert listed == [
        {
            "name": "cert",
            "secret_type": "mounted",
            "variable": "SECRET_PATH_CERT",
            "key": None,
            "mount_path": "/etc/cert",
        }
    ]


def test_they_are_listed_without_their_values(home: Home) -> None:
    assert ok("get", "secrets").said == "no secrets\n"
    assert not home.path.exists()
    ok("create", "secret", "env", f"A={VALUE}")
    ok("create", "secret", "env", f"AB={VALUE}")
    lines = ok("get", "secrets").text.splitlines()
    assert [line.split() for line in lines] == [
        ["NAME", "TYPE", "VARIABLE", "MOUNT", "PATH"], ["a", "environment", "A"], ["ab", "environment", "AB"],
    ]  # fmt: skip
    assert ok("get", "secrets", "?b", "-o", "name").text == "ab\n"
    for form in ("table", "json", "name"):
        assert VALUE not in ok("get", "secrets", "-o", form).text


def test_one_is_deleted_and_many_are_asked_about(home: Home) -> None:
    for name in ("a", "b", "c1", "c2"):
        ok("create", "secret", "env", f"{name}={VALUE}")
    assert ok("delete", "secret", "a").said == "a: deleted\n"
    assert "give -y" in refused("delete", "secrets", "b", "c1")
    assert "give -y" in refused("delete", "secrets", "c*")
    assert "give -y" in refused("delete", "secrets", "--all")
    ok("delete", "secrets", "c*", "-y")
    assert names() == ["b"]
    assert ok("delete", "secrets", "c*", "-y").said == "no secrets to delete\n"
    with Terminal("delete", "secrets", "--all") as terminal:
        terminal.read_until(r"delete secret b\? \[y/N\] ")
        terminal.type("y\r")
        assert terminal.end() == 0
    assert names() == []


def test_a_variable_is_as_good_as_a_name(home: Home) -> None:
    ok("create", "secret", "env", f"K_1={VALUE}")
    assert ok("get", "secrets", "K_1", "-o", "name").text == "k-1\n"
    assert ok("delete", "secret", "K_1").said == "k-1: deleted\n"
    assert names() == []
    assert "K_1" in refused("delete", "secret", "K_1", code=1)


def test_output_is_shown_without_values_and_kept_with_them(home: Home) -> None:
    ok("create", "secret", "env", f"TOKEN={VALUE}")
    command = 'printf "a %s b\\n%s" "$TOKEN" "$TOKEN" | tee /dev/stderr'
    followed = ok("run", "--follow", "--name", "run", "--cpus", 0, "--", command)
    assert (followed.text, VALUE in followed.said) == ("a *** b\n***", False)
    assert localrun.get_run("run").stdout() == f"a {VALUE} b\n{VALUE}"
    for options in ([], ["-f"], ["-f", "--timestamps"], ["--timestamps"], ["--rank", "all"], ["-f", "--rank", "all"]):
        shown = ok("logs", "run", *options).text
        assert VALUE not in shown and shown.count("***") == 4, options
    ok("delete", "secret", "token")
    assert ok("logs", "run", "--stdout").text == f"a {VALUE} b\n{VALUE}"


def test_a_value_that_comes_in_pieces_is_not_shown(home: Home) -> None:
    ok("create", "secret", "env", f"TOKEN={VALUE}")
    command = 'for part in hun ter 2 " hun"; do printf %s "$part"; sleep 0.3; done'
    shown = ok("run", "--follow", "--name", "run", "--cpus", 0, "--", command).text
    assert shown == "*** hun"
    again = ok("run", "--name", "other", "--cpus", 0, "--", command)
    assert again.code == 0
    assert ok("logs", "-f", "other").text == "*** hun"


def test_a_run_gets_those_it_names(home: Home) -> None:
    ok("create", "secret", "env", f"A={VALUE}")
    ok("create", "secret", "env", "B=b")
    for option, expected in (("a", ""), ("a,b", "b"), ("", "")):
        assert ok("run", "--follow", "--secrets", option, "--", 'printf %s "$B"').text == expected
    assert "nowhere" in refused("run", "--secrets", "nowhere", "--", "true", code=1)


REFUSED = {
    "no kind": (["create"], "KIND"),
    "no secret kind": (["create", "secret"], "KIND"),
    "no variable": (["create", "secret", "env"], "KEY[=VALUE]"),
    "no key": (["create", "secret", "env", f"={VALUE}"], "KEY or KEY=VALUE"),
    "no value": (["create", "secret", "env", "A"], "A: no value was given"),
    "a key that can't be": (["create", "secret", "env", f"a b={VALUE}"], "name: 'a b'"),
    "a key of localrun's": (["create", "secret", "env", f"LOCALRUN_HOME={VALUE}"], "LOCALRUN_HOME"),
    "a key of the system's": (["create", "secret", "env", f"PATH={VALUE}"], "PATH is a variable that localrun"),
    "a name that can't be": (["create", "secret", "env", f"A={VALUE}", "--name", "a/b"], "name: 'a/b'"),
    "no file": (["create", "secret", "file", "a", "nowhere"], "nowhere: No such file"),
    "a folder": (["create", "secret", "file", "a", "/"], "/: Is a directory"),
    "a bad mount path": (["create", "secret", "file", "a", "-", "--mount-path", "x"], "mount_path"),
    "none to delete": (["delete", "secrets"], "name the secrets"),
    "all and some": (["delete", "secrets", "a", "--all"], "--all: can't be given with names"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_command_lines_are_a_line_without_the_value(home: Home, case: str) -> None:
    args, expected = REFUSED[case]
    message = refused(*args)
    assert expected in message and VALUE not in message
    assert not home.path.exists()


def test_what_is_there_or_not_there_is_told(home: Home) -> None:
    ok("create", "secret", "env", f"A={VALUE}")
    assert VALUE not in refused("create", "secret", "env", f"A={VALUE}", code=1)
    assert "nowhere" in refused("get", "secret", "nowhere", code=1)
    assert "nowhere" in refused("delete", "secrets", "a", "nowhere", "-y", code=1)
    assert names() == ["a"]


def test_ctrl_c_at_the_question_makes_nothing(home: Home) -> None:
    with Terminal("create", "secret", "env", "TOKEN") as terminal:
        terminal.read_until("value of TOKEN: ")
        terminal.type("\x03")
        assert terminal.end() == 130
    assert names() == []
