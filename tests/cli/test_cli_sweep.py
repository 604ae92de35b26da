"""``localrun run --sweep``: one configuration, many runs; their names, and what is refused before any is made."""

from __future__ import annotations

import json
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

import commandline
import pytest
from commandline import ok, refused
from support import Home

from localrun.cli.sweep import axis, variants
from localrun.errors import RunConfigError
from localrun.model.config import RunConfig


def swept(*axes: str, name: str | None = "base", **fields: Any) -> dict[str, dict[str, Any]]:
    """The configurations of a sweep, by name."""
    made = variants(RunConfig(command="true", **fields), [axis(text) for text in axes], name)
    return {str(config.name): config.to_mapping() for config in made}


def test_several_make_the_product_in_order() -> None:
    made = swept("lr=0.1,1e-4", "parameters.opt.name=adam,sgd")
    assert list(made) == [
        "base-lr-0.1-name-adam",
        "base-lr-0.1-name-sgd",
        "base-lr-0.0001-name-adam",
        "base-lr-0.0001-name-sgd",
    ]
    assert made["base-lr-0.0001-name-sgd"]["parameters"] == {"lr": 1e-4, "opt": {"name": "sgd"}}


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("lr=1", ("parameters", "lr")),
        ("opt.lr=1", ("parameters", "opt", "lr")),
        ("parameters.cpus=1", ("parameters", "cpus")),
        ("cpus=1", ("compute", "cpus")),
        ("compute.cpus=1", ("compute", "cpus")),
        ("priority=low", ("scheduling", "priority")),
        ("env_variables.A.B=1", ("env_variables", "A", "B")),
        ("command=true", ("command",)),
    ],
)
def test_a_key_is_a_fields_or_else_a_parameters(text: str, path: tuple[str, ...]) -> None:
    assert axis(text).path == path


def test_values_are_read_as_a_yaml_list_has_them() -> None:
    assert axis("x=1,2.5,1e-3,true,null,a b,'c,d',[1, 2],{k: v}").values == [
        1, 2.5, 1e-3, True, None, "a b", "c,d", [1, 2], {"k": "v"},
    ]  # fmt: skip


def test_names_have_the_characters_of_names_and_are_unique() -> None:
    made = swept("x=-1,1,true,null,'a/b c','a b/c',[1, 2],''", f"long={'y' * 50}1,{'y' * 50}2")
    assert len(made) == 16
    for name in made:
        RunConfig(name=name)
        assert len(name) <= 120 and set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-_"), name
    beginnings = list(dict.fromkeys(name.partition("-long")[0] for name in made))
    assert beginnings == [
        "base-x--1", "base-x-1", "base-x-true", "base-x-null", "base-x-a-b-c", "base-x-1-2", "base-x-empty",
    ]  # fmt: skip
    assert list(made)[:2] == [f"base-x--1-long-{'y' * 20}", f"base-x--1-long-{'y' * 20}-2"]


def test_keys_that_end_alike_are_told_apart() -> None:
    assert list(swept("a.lr=1,2", "b.lr=3")) == ["base-a.lr-1-b.lr-3", "base-a.lr-2-b.lr-3"]


def test_a_long_name_leaves_room() -> None:
    names = list(swept(*(f"{'k' * 30}{number}=1,2" for number in range(5)), name="b" * 128))
    assert len(set(names)) == 32
    assert all(len(name) <= 120 for name in names)


def test_the_base_is_not_changed() -> None:
    base = RunConfig(command="true", parameters={"a": {"b": 1}})
    variants(base, [axis("a.b=2,3")], "x")
    assert base.to_mapping() == {"command": "true", "parameters": {"a": {"b": 1}}}


@pytest.mark.parametrize("text", ["lr", "=1", "lr=", "lr=,", "lr=[1", "lr=1,1", "a..b=1", "x=1]+[2"])
def test_an_axis_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError):
        axis(text)


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        (["lr=1", "parameters.lr=2"], "--sweep lr: is given twice"),
        (["name=a,b"], "--sweep name: a sweep names its runs"),
        (["compute.gpu=1,2"], "did you mean 'gpus'?"),
        (["there.x=1"], "there is a value at 'there'"),
        ([f"k{number}=1,2" for number in range(14)], "these are 16384 runs, and 10000 are the most"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused(axes: list[str], expected: str) -> None:
    with pytest.raises(RunConfigError, match=expected.replace("?", r"\?")):
        swept(*axes, parameters={"there": 1})


# -- through the command line -----------------------------------------------------------------------------------------


def parameters(home: Home, name: str) -> Any:
    """A run's parameters as its record has them."""
    return home.record(name)["config"].get("parameters")


def test_a_file_is_swept_and_each_run_printed(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "base.yaml"
    file.write_text("name: fit\ncommand: grep -c lr $PARAMETERS\nparameters: {lr: 1, depth: 2}\ncompute: {cpus: 0}\n")
    ended = ok("run", "-f", file, "--sweep", "lr=0.1,0.01", "--sweep", "compute.cpus=0,0.5", "--metadata", "who=me")
    names = ["fit-lr-0.1-cpus-0", "fit-lr-0.1-cpus-0.5", "fit-lr-0.01-cpus-0", "fit-lr-0.01-cpus-0.5"]
    assert (ended.text.split(), ended.said) == (names, "")
    ok("wait", *names)
    assert parameters(home, "fit-lr-0.01-cpus-0.5") == {"lr": 0.01, "depth": 2}
    assert home.record("fit-lr-0.01-cpus-0.5")["request"]["cpus"] == 0.5
    assert home.record("fit-lr-0.1-cpus-0")["metadata"] == {"who": "me"}
    assert ok("get", "runs", "fit-*", "-o", "name").text.split() == names[::-1]


def test_a_command_is_swept(home: Home) -> None:
    names = ok("run", "--cpus", 0, "--sweep", "env_variables.SEED=1,2", "--", "echo $SEED").text.split()
    assert names == ["echo-SEED-1", "echo-SEED-2"]
    ok("wait", *names)
    assert [ok("logs", name).text for name in names] == ["1\n", "2\n"]
    again = ok("run", "--cpus", 0, "--sweep", "env_variables.SEED=1,2", "--", "echo $SEED").text.split()
    assert [name[: len("echo-SEED-1-")] for name in again] == ["echo-SEED-1-", "echo-SEED-2-"]
    ok("wait", *again)


def test_a_clone_is_swept(home: Home, tmp_path: Path) -> None:
    ok(
        "run",
        "--name",
        "it",
        "--follow",
        "--param",
        "a=0",
        "--param",
        "b=5",
        "--",
        "cat $PARAMETERS; pwd",
        cwd=tmp_path,
    )
    names = ok("run", "--clone", "it", "--sweep", "a=1,2", cwd=Path("/")).text.split()
    assert names == ["it-a-1", "it-a-2"]
    ok("wait", *names)
    assert ok("logs", "it-a-2").text == f"a: 2\nb: 5\n{tmp_path}\n"


REFUSED = {
    "no values": (["--sweep", "lr", "--", "true"], "--sweep"),
    "an unknown field": (["--sweep", "compute.cpu=1,2", "--", "true"], "did you mean 'cpus'?"),
    "one of them is bad": (["--sweep", "cpus=0,-1", "--", "true"], "compute.cpus"),
    "one of them is impossible": (["--sweep", "cpus=0,100000", "--", "true"], "compute.cpus"),
    "a name that can't be": (["--name", "a/b", "--sweep", "lr=1", "--", "true"], "name: 'a/b-lr-1' has '/'"),
    "followed": (["--follow", "--sweep", "lr=1", "--", "true"], "--follow: is for one run"),
    "in one place": (["--path", "x", "--sweep", "lr=1", "--", "true"], "--path: is for one run"),
    "a run again": (["-r", "it", "--sweep", "lr=1"], "-r: queues a run again as it is"),
    "no command": (["--sweep", "lr=1"], "nothing to run"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_makes_nothing(home: Home, case: str) -> None:
    args, expected = REFUSED[case]
    assert expected in refused("run", *args)
    assert not home.path.exists()


def test_a_dependency_that_is_not_there_makes_nothing(home: Home) -> None:
    assert "nowhere" in refused("run", "--after", "nowhere", "--sweep", "lr=1,2", "--", "true", code=1)
    assert "nowhere" in refused("run", "--clone", "nowhere", "--sweep", "lr=1,2", code=1)
    assert not home.path.exists()


def test_a_functions_run_is_swept_only_in_what_is_not_its_command(home: Home) -> None:
    from support import run_python

    code = """
        import localrun
        @localrun.function(cpus=0)
        def add(a): return a + 1
        print(add.run(1, run_name="f").result())
    """
    assert run_python(code, script=home.place / "f.py").stdout == "2\n"
    assert "takes no command" in refused("run", "--clone", "f", "--", "true")
    assert "takes no command" in refused("run", "--clone", "f", "--sweep", "command=a,b")
    names = ok("run", "--clone", "f", "--sweep", "priority=low,high").text.split()
    ok("wait", *names)
    listed = json.loads(commandline.ok("get", "runs", *names, "-o", "json").out)
    assert [(run["name"], run["fn_name"], run["priority"]) for run in listed] == [
        ("f-priority-high", "add", "high"), ("f-priority-low", "add", "low"),
    ]  # fmt: skip
