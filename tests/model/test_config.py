"""RunConfig: keys and their older spellings, attributes, copies, files; the seed pages' examples."""

from __future__ import annotations

import copy
import dataclasses
import enum
import json
import pickle
import textwrap
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from localrun.errors import RunConfigError
from localrun.model.config import ComputeConfig, RunConfig, SchedulingConfig, UnknownFieldError, described, plain

EVERYTHING: dict[str, Any] = {
    "name": "hello",
    "parent_name": "parent",
    "image": "bash",
    "command": "echo hello",
    "compute": {"gpus": 2, "gpu_type": "h100", "memory": "8GiB"},
    "scheduling": {"priority": "low", "max_duration": 1.5},
    "parameters": {"optimizers": {"sgd": {"lr": 0.1, "betas": [0.9, None, True]}}},
    "integrations": [{"integration_type": "git_repo", "git_repo": "a/b"}],
    "env_variables": {"TOKEN": "hush"},
    "metadata": {"team": "x"},
    "secrets": [],
    "cwd": "/data",
}


def write(folder: Path, text: str, name: str = "base.yaml") -> Path:
    path = folder / name
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


class TestMapping:
    def test_fields_and_their_order(self) -> None:
        assert [one.name for one in dataclasses.fields(RunConfig)] == list(EVERYTHING)

    def test_round_trip_is_exact_and_json_able(self) -> None:
        config = RunConfig.from_mapping(EVERYTHING)
        assert config.to_mapping() == EVERYTHING
        assert list(config.to_mapping()) == list(EVERYTHING)
        assert RunConfig.from_mapping(json.loads(json.dumps(config.to_mapping()))) == config
        assert RunConfig(**EVERYTHING) == config

    @pytest.mark.parametrize(
        "given",
        [{}, {"name": None, "compute": None}, {"compute": {}, "command": "", "parameters": {}}, {"secrets": None}],
    )
    def test_only_what_was_set_is_in_it(self, given: dict[str, Any]) -> None:
        assert RunConfig.from_mapping(given).to_mapping() == {}
        assert RunConfig.from_mapping(given) == RunConfig()

    def test_what_differs_from_the_default_was_set(self) -> None:
        # No secrets at all is not the same as all of the user's, and an empty name is refused, not forgotten.
        assert RunConfig(secrets=[], name="").to_mapping() == {"name": "", "secrets": []}
        assert RunConfig(compute={"gpus": None}).to_mapping() == {"compute": {"gpus": None}}

    def test_copies_are_deep(self) -> None:
        given = copy.deepcopy(EVERYTHING)
        config = RunConfig.from_mapping(given)
        given["parameters"]["optimizers"]["sgd"]["lr"] = 9
        given["compute"]["gpus"] = 9
        submitted, second = config.to_mapping(), config.copy()
        submitted["parameters"]["optimizers"]["sgd"]["lr"] = 8
        second.parameters["optimizers"]["sgd"]["lr"] = 7
        second.gpus = 7
        assert config.to_mapping() == EVERYTHING

    def test_becomes_plain(self) -> None:
        class Mode(enum.StrEnum):
            FAST = "fast"

        class Number:
            def __index__(self) -> int:
                return 3

        class Count(enum.IntEnum):
            TWO = 2

        given = {"path": Path("/a"), Mode.FAST: Mode.FAST, "n": Number(), "two": Count.TWO}
        given["t"] = (1, MappingProxyType({}))
        made = RunConfig(parameters=given).to_mapping()["parameters"]
        assert made == {"path": "/a", "fast": "fast", "n": 3, "two": 2, "t": [1, {}]}
        assert [type(item) for item in made.values()] == [str, str, int, int, list]
        assert {type(key) for key in made} == {str}
        assert plain(True) is True

    def test_holding_itself_is_refused(self) -> None:
        loop: dict[str, Any] = {}
        loop["again"] = loop
        with pytest.raises(RunConfigError, match="must not hold itself"):
            RunConfig(parameters=loop)


BAD_KEYS = [
    ({"imagee": 1}, "unknown key 'imagee': did you mean 'image'?"),
    ({"gpus": 8}, "unknown key 'gpus': did you mean 'compute.gpus'?"),
    ({"priorty": "low"}, "unknown key 'priorty': did you mean 'scheduling.priority'?"),
    ({"xyzzy": 1}, "unknown key 'xyzzy': allowed are name, parent_name, image, command,"),
    ({"self": 1}, "unknown key 'self': "),
    ({1: 2}, "unknown key 1: allowed are name,"),
    ({None: 2}, "unknown key None: "),
    ({"two\nlines": 2}, r"unknown key 'two\nlines': "),
    ({"x" * 500: 2}, "unknown key 'xxxxx"),
    ({"compute": {"gpuss": 1}}, "compute: unknown key 'gpuss': did you mean 'gpus'?"),
    ({"compute": {"priority": "low"}}, "compute: unknown key 'priority': did you mean 'scheduling.priority'?"),
    ({"compute": {"entrypoint": "x"}}, "compute: unknown key 'entrypoint': allowed are cluster, instance,"),
    ({"scheduling": {"maxRetries": 1}}, "scheduling: unknown key 'maxRetries': did you mean 'max_retries'?"),
    ({"scheduling": {"xyzzy": 1}}, "scheduling: unknown key 'xyzzy': allowed are priority, preemptible,"),
    ({"compute": [1]}, "compute: must be a mapping, not a list"),
    ({"scheduling": "low"}, "scheduling: must be a mapping, not 'low'"),
    ({"parameters": 3}, "parameters: must be a mapping, not 3"),
    ({"metadata": ["a"]}, "metadata: must be a mapping, not a list"),
    ({"env_variables": "A=1"}, "env_variables: must be a mapping, not "),
    ({"integrations": {}}, "integrations: must be a list, not a mapping"),
    ({"secrets": "one"}, "secrets: must be a list, not 'one'"),
    ({"env_variables": [{"key": "A"}]}, "env_variables[0]: must be a mapping of 'key' and 'value'"),
    ({"env_variables": [{"key": "A", "value": 1, "more": 1}]}, "env_variables[0]: must be a mapping of"),
    ({"env_variables": ["A=1"]}, "env_variables[0]: must be a mapping of"),
    ({"env_variables": [{"key": "A", "value": 1}, {"key": "A", "value": 2}]}, "env_variables[1]: 'A' is given twice"),
    ({"gpu_num": 2, "compute": {"gpus": 2}}, "gpu_num: is the older spelling of compute.gpus, which is given too"),
    ({"run_name": "a", "name": "b"}, "run_name: is the older spelling of name, which is given too"),
    ([], "a run's configuration must be a mapping, not a list"),
    ("name: x", "a run's configuration must be a mapping, not 'name: x'"),
    (None, "a run's configuration must be a mapping, not None"),
]


@pytest.mark.parametrize(("mapping", "message"), BAD_KEYS)
def test_bad_keys_and_shapes_are_named(mapping: Any, message: str) -> None:
    with pytest.raises(RunConfigError) as caught:
        RunConfig.from_mapping(mapping, source="base.yaml")
    assert caught.value.message.startswith(f"base.yaml: {message}")
    assert caught.value.status == 400
    assert "\n" not in str(caught.value)
    with pytest.raises(RunConfigError) as caught:
        RunConfig.from_mapping(mapping)
    assert caught.value.message.startswith(message)


def test_unknown_keywords_are_refused_as_keys_are() -> None:
    with pytest.raises(RunConfigError, match=r"^unknown key 'gpus': did you mean 'compute.gpus'\?$"):
        RunConfig(gpus=8)
    with pytest.raises(RunConfigError, match=r"^unknown key 'imagee': did you mean 'image'"):
        RunConfig(imagee=None)


OLDER = [
    ({"gpu_num": 8}, {"compute": {"gpus": 8}}, "gpu_num is an older spelling: use compute.gpus"),
    ({"gpu_num": 0, "compute": {"cpus": 1}}, {"compute": {"cpus": 1, "gpus": 0}}, "use compute.gpus"),
    ({"gpu_type": "none"}, {"compute": {"gpu_type": "none"}}, "use compute.gpu_type"),
    ({"cpus": 2}, {"compute": {"cpus": 2}}, "use compute.cpus"),
    ({"cluster": "here"}, {"compute": {"cluster": "here"}}, "use compute.cluster"),
    ({"entrypoint": "ls"}, {"command": "ls"}, "use command"),
    ({"run_name": "a"}, {"name": "a"}, "use name"),
    ({"env_variables": [{"key": "A", "value": 1}]}, {"env_variables": {"A": 1}}, "use a mapping of names to values"),
]


@pytest.mark.parametrize(("older", "now", "warning"), OLDER)
def test_older_spellings_work_with_a_warning(older: dict[str, Any], now: dict[str, Any], warning: str) -> None:
    with pytest.warns(DeprecationWarning, match=warning) as caught:
        assert RunConfig(**older).to_mapping() == now
    assert [one.filename for one in caught] == [__file__]  # the caller's line is to blame
    with pytest.warns(DeprecationWarning, match=warning) as caught:
        assert RunConfig.from_mapping(older).to_mapping() == now
    assert [one.filename for one in caught] == [__file__]


def test_older_spellings_unset_are_silent() -> None:
    assert RunConfig(gpu_type=None, gpu_num=None, env_variables=[]) == RunConfig()


class TestAttributes:
    def test_compute_and_scheduling_fields(self) -> None:
        config = RunConfig()
        assert config.gpus is None
        config.gpus, config.gpu_type, config.priority, config.after = 8, "h100", "low", ["prep"]
        assert (config.gpus, config.priority) == (8, "low")
        assert config.compute == {"gpus": 8, "gpu_type": "h100"}
        assert config.scheduling == {"priority": "low", "after": ["prep"]}
        config.gpus = config.cpus = None
        assert config.compute == {"gpu_type": "h100"}

    @pytest.mark.parametrize("part", [ComputeConfig, SchedulingConfig])
    def test_every_field_of_both_is_one(self, part: Any) -> None:
        config = RunConfig()
        for key in part.__annotations__:
            assert getattr(config, key) is None
            setattr(config, key, "set")
            assert getattr(config, key) == "set"

    def test_older_attributes(self) -> None:
        config = RunConfig()
        with pytest.warns(DeprecationWarning, match="use compute.gpus"):
            config.gpu_num = 2
        with pytest.warns(DeprecationWarning, match="use command"):
            config.entrypoint = "ls"
        with pytest.warns(DeprecationWarning, match="list of env_variables"):
            config.env_variables = [{"key": "A", "value": "1"}]  # type: ignore[assignment]
        assert (config.gpus, config.gpu_num, config.command, config.entrypoint) == (2, 2, "ls", "ls")
        assert config.env_variables == {"A": "1"}

    @pytest.mark.parametrize(
        ("name", "hint"),
        [("gpuss", "did you mean 'gpus'"), ("parameter", "did you mean 'parameters'"), ("xyzzy", "allowed are name,")],
    )
    def test_unknown_ones(self, name: str, hint: str) -> None:
        config = RunConfig()
        for attempt in (lambda: setattr(config, name, 1), lambda: getattr(config, name)):
            with pytest.raises(UnknownFieldError, match=f"^RunConfig has no attribute '{name}': {hint}") as caught:
                attempt()
            assert isinstance(caught.value, RunConfigError)
            assert isinstance(caught.value, AttributeError)
            assert caught.value.status == 400
        assert not hasattr(config, name)
        assert config == RunConfig()

    def test_the_error_pickles(self) -> None:
        with pytest.raises(UnknownFieldError) as caught:
            RunConfig().xyzzy = 1
        again = pickle.loads(pickle.dumps(caught.value))
        assert (type(again), again.message, again.status) == (UnknownFieldError, caught.value.message, 400)

    def test_assigned_shapes_are_checked(self) -> None:
        config = RunConfig(compute={"gpus": 1})
        with pytest.raises(RunConfigError, match=r"^compute: must be a mapping, not a list$"):
            config.compute = [1]  # type: ignore[assignment]
        assert config.compute == {"gpus": 1}
        config.compute = None  # type: ignore[assignment]
        config.parameters = MappingProxyType({"a": 1})  # type: ignore[assignment]
        assert (config.compute, config.parameters) == ({}, {"a": 1})

    @pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, RunConfig.copy, lambda c: pickle.loads(pickle.dumps(c))])
    def test_copies_and_pickles(self, how: Any) -> None:
        config = RunConfig(**EVERYTHING)
        again = how(config)
        assert again == config
        assert again is not config
        assert again.gpus == 2
        assert dataclasses.replace(config, name="other").to_mapping() == EVERYTHING | {"name": "other"}


def test_repr_shows_no_environment_values() -> None:
    config = RunConfig(name="a", env_variables={"TOKEN": "hush"}, compute={"gpus": 1})
    assert repr(config) == "RunConfig(name='a', compute={'gpus': 1}, env_variables={'TOKEN': '***'})"
    assert config.env_variables == {"TOKEN": "hush"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "None"),
        ("a\nb", r"'a\nb'"),
        ("x" * 99, "'" + "x" * 55 + "...'"),
        ([1], "a list"),
        ({}, "a mapping"),
        (b"", "a bytes"),
        (Path(), "a PosixPath"),
        (object(), "an object"),
    ],
)
def test_described(value: object, text: str) -> None:
    assert described(value) == text


def test_a_number_of_too_many_digits_is_described() -> None:
    assert described(10**9000) == "a huge number"


class TestFile:
    def test_yaml_and_json_say_the_same(self, tmp_path: Path) -> None:
        import yaml

        config = RunConfig(**EVERYTHING)
        by_yaml = write(tmp_path, yaml.safe_dump(config.to_mapping()))
        by_json = write(tmp_path, json.dumps(config.to_mapping()), "base.json")
        in_yaml = write(tmp_path, json.dumps(config.to_mapping()), "odd name.yml")
        for file in (by_yaml, str(by_json), in_yaml):
            assert RunConfig.from_file(file) == config

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("1e-4", 1e-4),
            ("1E5", 1e5),
            ("-2e3", -2e3),
            ("1.5e5", 1.5e5),
            (".5e1", 5.0),
            ("1_0e2", 1000.0),
            ("6.02e+23", 6.02e23),
            ("1e", "1e"),
            ("e5", "e5"),
            ("1e-4x", "1e-4x"),
            ("'1e-4'", "1e-4"),
            ("2024-01-02", "2024-01-02"),
            ("12", 12),
            ("0x10", 16),
            ("yes", True),
            ("~", None),
            ("{<<: {a: 1}, a: 2}", {"a": 2}),
        ],
    )
    def test_yaml_scalars(self, tmp_path: Path, text: str, value: Any) -> None:
        made = RunConfig.from_file(write(tmp_path, f"parameters: {{x: {text}}}")).parameters["x"]
        assert (made, type(made)) == (value, type(value))

    def test_anchors_and_merges(self, tmp_path: Path) -> None:
        text = """
            parameters:
              outer: {middle: &one {x: 1, y: 1}}
              two: &two {<<: *one, x: 2}
              three: {<<: *two, y: 3}
        """
        made = RunConfig.from_file(write(tmp_path, text)).parameters
        assert (made["two"], made["three"]) == ({"x": 2, "y": 1}, {"x": 2, "y": 3})

    def test_pyyaml_itself_is_left_alone(self, tmp_path: Path) -> None:
        import yaml

        before = {first: list(resolvers) for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()}
        RunConfig.from_file(write(tmp_path, "{}"))
        assert before == yaml.SafeLoader.yaml_implicit_resolvers
        assert yaml.safe_load("1e-4") == "1e-4"

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("a.yaml", "name: a\ncommand: [", "line 2: "),
            ("a.yaml", "name: a\n\tcommand: b", "line 2: found character '\\t'"),
            ("a.yaml", "name: a\nname: b", "line 2: the key 'name' is given twice"),
            ("a.yaml", "compute:\n  gpus: 1\n  'gpus': 2", "line 3: the key 'gpus' is given twice"),
            ("a.yaml", "name: !!python/name:os.system ''", "line 1: could not determine a constructor"),
            ("a.yaml", "name: !!int x", "not valid YAML: "),
            ("a.yaml", "name: !!bool x", "not valid YAML: "),
            ("a.yaml", "name: a\0", "not valid YAML: "),
            ("a.yaml", "name: a\n---\nname: b", "line 2: "),
            ("a.yaml", "name: *nowhere", "line 1: found undefined alias"),
            ("a.yaml", "", "a run's configuration must be a mapping, not None"),
            ("a.yaml", "- name: a", "a run's configuration must be a mapping, not a list"),
            ("a.yaml", "[" * 5000, "nests too deeply"),
            ("a.yaml", "parameters: &a {b: *a}", "a run's configuration must not hold itself"),
            ("a.yaml", "comand: x", "unknown key 'comand': did you mean 'command'?"),
            ("a.yaml", "on: x", "unknown key True"),
            ("a.json", '{"name": "a",\n}', "line 2: "),
            ("a.json", '{"name": "a", "name": "b"}', "the key 'name' is given twice"),
            ("a.JSON", "name: a", "line 1: "),
            ("a.json", "[]", "a run's configuration must be a mapping, not a list"),
            ("a.json", '{"cwd": ' + "1" * 5000 + "}", "not valid JSON: "),
            ("a.json", "[" * 100_000, "nests too deeply"),
        ],
    )
    def test_errors_name_the_file_on_one_line(self, tmp_path: Path, name: str, text: str, message: str) -> None:
        path = tmp_path / name
        path.write_text(text)
        with pytest.raises(RunConfigError) as caught:
            RunConfig.from_file(path)
        assert caught.value.message.startswith(f"{path}: {message}")
        assert "\n" not in caught.value.message

    def test_other_bytes(self, tmp_path: Path) -> None:
        path = tmp_path / "odd\nname.yaml"
        path.write_bytes(b"name: \xff")
        with pytest.raises(RunConfigError, match=r"odd\\nname.yaml': must be UTF-8 text, and byte 6 is not$"):
            RunConfig.from_file(path)
        path.write_bytes(b"\xef\xbb\xbfname: caf\xc3\xa9")
        assert RunConfig.from_file(path).name == "café"

    @pytest.mark.parametrize("path", [5, None, b"a.yaml", ["a.yaml"]])
    def test_what_is_no_path(self, path: Any) -> None:
        with pytest.raises(RunConfigError, match=r"^path: must be a file's path, not "):
            RunConfig.from_file(path)

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(RunConfigError, match=f"^{tmp_path}: is a folder, not a file$"):
            RunConfig.from_file(tmp_path)

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            RunConfig.from_file(tmp_path / "none.yaml")

    def test_older_spellings_in_a_file_are_the_callers(self, tmp_path: Path) -> None:
        path = write(tmp_path, "gpu_num: 2")
        with pytest.warns(DeprecationWarning, match="gpu_num") as caught:
            assert RunConfig.from_file(path).gpus == 2
        assert caught[0].filename == __file__


class TestSeedPages:
    """The examples of Manage a run with the SDK (mcli)."""

    def test_from_python(self) -> None:
        cluster = "<your-cluster>"
        config = RunConfig(
            name="hello-world",
            image="bash",
            command='echo "Hello World!" && sleep 60',
            compute={"gpu_type": "none", "cluster": cluster},
        )
        assert (config.gpu_type, config.cluster) == ("none", cluster)

    def test_from_python_as_it_was(self) -> None:
        with pytest.warns(DeprecationWarning):
            config = RunConfig(name="hello-world", image="bash", command="ls", gpu_type="none", cluster="here")
        assert config.compute == {"gpu_type": "none", "cluster": "here"}

    def test_a_base_file_and_a_field_changed(self, tmp_path: Path) -> None:
        special_config = RunConfig.from_file(write(tmp_path, "{name: base, compute: {gpus: 1, gpu_type: h100}}"))
        special_config.gpus = 8
        assert special_config.to_mapping() == {"name": "base", "compute": {"gpus": 8, "gpu_type": "h100"}}

    @pytest.mark.parametrize("copied", [True, False])
    def test_a_sweep_with_and_without_deepcopy(self, tmp_path: Path, copied: bool) -> None:
        config = RunConfig.from_file(write(tmp_path, "name: sweep"))
        params = {"optimizers": {"sgd": {"lr": 1}}}
        submitted = []
        for lr in (0.1, 0.01, 0.001):
            new_params = copy.deepcopy(params) if copied else params
            new_params["optimizers"]["sgd"]["lr"] = lr  # type: ignore[assignment]
            config.parameters = new_params
            submitted.append(config.to_mapping())  # what create_run keeps
        assert [one["parameters"]["optimizers"]["sgd"]["lr"] for one in submitted] == [0.1, 0.01, 0.001]


ODD_TEXTS = [
    "1e-4", "1E5", ".5e1", "1_0e2", "12", "0x10", "1:30", "yes", "no", "~", "null", "", " ", " lead", "trail ",
    "2024-01-02",
    "a: b", "- a", "#c", "*a", "&a", "!t", "|", ">", "%d", "@x", "`x`", "'", '"', "two\nlines", "three\n\n\nlines\n",
    "tab\t", "cr\r\n", "\x85", "\u2028", "\ud800", "é", "😀", "\x00", "\x1b[0m", "x" * 500, "word " * 60, "=", "<<",
]  # fmt: skip


class TestWriting:
    @pytest.mark.parametrize("name", ["base.yaml", "base.json", "BASE.JSON", "odd name"])
    def test_a_file_is_read_back_exactly(self, tmp_path: Path, name: str) -> None:
        odd = {"text": ODD_TEXTS, "keys": dict.fromkeys(ODD_TEXTS, 1)}
        odd["numbers"] = [0, -1, 10**30, 0.1, 1e-7, 1e22, -0.0, 5e-324, 1.7976931348623157e308, True, False, None]
        odd["empty"] = [[], {}, [[]], {"a": {}}]
        for config in (RunConfig(**EVERYTHING), RunConfig(), RunConfig(parameters=odd, command="a\n  b\n")):
            config.to_file(tmp_path / name)
            again = RunConfig.from_file(tmp_path / name)
            assert again == config
            assert repr(again.to_mapping()) == repr(config.to_mapping())  # kinds and order, too

    def test_only_its_owner_can_read_it(self, tmp_path: Path) -> None:
        RunConfig(env_variables={"TOKEN": "hush"}).to_file(tmp_path / "a.yaml")
        assert (tmp_path / "a.yaml").stat().st_mode & 0o777 == 0o600
        assert [path.name for path in tmp_path.iterdir()] == ["a.yaml"]

    @pytest.mark.parametrize("value", [{1, 2}, object(), float("nan"), {1: 2}, b"x"])
    @pytest.mark.parametrize("how", [RunConfig.to_yaml, RunConfig.to_json])
    def test_what_cannot_be_read_back_is_not_written(self, value: Any, how: Any) -> None:
        config = RunConfig(parameters={"x": value})
        try:
            text = how(config)
        except RunConfigError as error:
            assert error.status == 400
            assert "\n" not in str(error)
        else:  # YAML has numbers for keys, sets, and bytes
            assert how is RunConfig.to_yaml and value in ({1: 2}, {1, 2}, b"x"), text

    def test_yaml_is_for_people(self) -> None:
        config = RunConfig(name="a", command="cd /x\npython train.py\n", parameters={"lr": 1e-4, "name": "é"})
        assert config.to_yaml() == textwrap.dedent(
            """\
            name: a
            command: |
              cd /x
              python train.py
            parameters:
              lr: 0.0001
              name: é
            """
        )


class TestSignature:
    def test_mclis_order(self) -> None:
        import inspect

        order = "name parent_name image gpu_type gpu_num cpus cluster scheduling compute parameters integrations"
        order += " env_variables metadata command dependent_deployment _suppress_deprecation_warnings"
        assert list(inspect.signature(RunConfig).parameters)[:16] == order.split()
        assert RunConfig("a", None, "bash").to_mapping() == {"name": "a", "image": "bash"}

    def test_warnings_are_suppressed_when_asked(self) -> None:
        made = RunConfig(gpu_num=2, env_variables=[{"key": "A", "value": 1}], _suppress_deprecation_warnings=True)
        assert made.to_mapping() == {"compute": {"gpus": 2}, "env_variables": {"A": 1}}

    @pytest.mark.parametrize("name", ["dependent_deployment", "partitions", "optimization_level"])
    def test_what_asks_for_nothing_is_taken(self, name: str) -> None:
        for nothing in (None, {}, []):
            assert RunConfig(**{name: nothing}) == RunConfig() == RunConfig.from_mapping({name: nothing})
        with pytest.raises(RunConfigError, match=f"unknown key '{name}'"):
            RunConfig(**{name: {"a": 1}})

    def test_platform_is_an_older_cluster(self) -> None:
        with pytest.warns(DeprecationWarning, match="use compute.cluster"):
            assert RunConfig(platform="here").compute == {"cluster": "here"}
