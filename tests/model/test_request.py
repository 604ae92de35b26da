"""Request: every field's good and bad values, names, sizes."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from types import MappingProxyType
from typing import Any

import pytest

from localrun.errors import RunConfigError
from localrun.model.config import ComputeConfig, RunConfig, SchedulingConfig
from localrun.model.names import name_from_command, validate_name
from localrun.model.request import Request
from localrun.model.rules import RULES, validate_metadata
from localrun.model.sizes import parse_size


def request(path: str = "", value: Any = None, **fields: Any) -> Request:
    """The request of ``echo`` with one field set by its dotted path."""
    mapping: dict[str, Any] = {"command": "echo"} | fields
    part, _, name = path.rpartition(".")
    if path:
        (mapping.setdefault(part, {}) if part else mapping)[name] = value
    return Request.from_config(RunConfig.from_mapping(mapping))


def refusal(path: str, value: Any) -> str:
    with pytest.raises(RunConfigError) as caught:
        request(path, value)
    assert "\n" not in str(caught.value)
    return caught.value.message


class TestFields:
    def test_defaults(self) -> None:
        made = request()
        assert made == Request(command="echo")
        assert (made.cpus, made.gpus, made.memory, made.gpu_type) == (1.0, 0, 0, None)
        assert (made.priority, made.stop_grace, made.max_duration, made.max_retries) == ("auto", 30.0, None, 0)
        assert made.retry_on_system_failure is False

    @pytest.mark.parametrize(
        ("path", "value", "wanted"),
        [
            ("name", "a", "a"),
            ("parent_name", "p", "p"),
            ("cwd", "/data", "/data"),
            ("command", "a\nb", "a\nb"),
            ("compute.cpus", 0, 0.0),
            ("compute.cpus", 0.5, 0.5),
            ("compute.memory", "8GiB", 8 << 30),
            ("compute.gpus", 3, 3),
            ("compute.gpus", None, 0),
            ("compute.gpu_type", "none", None),
            ("compute.gpu_type", "None", None),
            ("compute.gpu_type", "", None),
            ("compute.nodes", 1, 1),
            ("compute.cluster", "anything at all", "anything at all"),
            ("compute.instance", "oci.bm.gpu", "oci.bm.gpu"),
            ("scheduling.priority", "lowest", "lowest"),
            ("scheduling.priority", "HIGH", "high"),
            ("scheduling.stop_grace", 0, 0.0),
            ("scheduling.max_duration", 0.01, 0.01),
            ("scheduling.max_duration", None, None),
            ("scheduling.max_retries", 7, 7),
            ("scheduling.retry_on_system_failure", True, True),
            ("parameters", {"a": {"b": [1, None, "x", 0.5, True]}}, {"a": {"b": [1, None, "x", 0.5, True]}}),
            ("metadata", {"a": {"b": 1}}, {"a": {"b": 1}}),
        ],
    )
    def test_good(self, path: str, value: Any, wanted: Any) -> None:
        made = getattr(request(path, value), path.rpartition(".")[2])
        assert (made, type(made)) == (wanted, type(wanted))

    @pytest.mark.parametrize(
        ("path", "value", "message"),
        [
            ("name", 3, "name: must be text, not 3"),
            ("name", "", "name: '' is empty: use letters"),
            ("parent_name", [], "parent_name: must be text, not a list"),
            ("cwd", "", "cwd: must not be empty"),
            ("cwd", 1, "cwd: must be text, not 1"),
            ("command", ["ls"], "command: must be text, not a list"),
            ("command", "", "command: must not be empty"),
            ("command", " \n\t", "command: must not be empty"),
            ("command", "a\0b", "command: must not have a NUL character"),
            ("command", "a\ud800b", "command: has a character that cannot be encoded"),
            ("compute.cpus", "four", "compute.cpus: must be a number, 0 or more, not 'four'"),
            ("compute.cpus", True, "compute.cpus: must be a number, 0 or more, not True"),
            ("compute.cpus", -1, "compute.cpus: must be a number, 0 or more, not -1"),
            ("compute.cpus", math.nan, "compute.cpus: must be a number, 0 or more, not nan"),
            ("compute.cpus", math.inf, "compute.cpus: must be at most 1000000000, not inf"),
            ("compute.cpus", [1], "compute.cpus: must be a number, 0 or more, not a list"),
            ("compute.gpus", 1.5, "compute.gpus: must be a whole number, 0 or more, not 1.5"),
            ("compute.gpus", True, "compute.gpus: must be a whole number, 0 or more, not True"),
            ("compute.gpus", 10**400, "compute.gpus: must be at most 1000000000, not 1000"),
            ("compute.memory", "lots", "compute.memory: must be a size, a number of bytes or text such as '8GiB'"),
            ("compute.gpu_type", 4090, "compute.gpu_type: must be text, not 4090"),
            ("compute.nodes", 2, "compute.nodes: must be 1, as localrun runs on one machine, not 2"),
            ("compute.nodes", True, "compute.nodes: must be 1, as localrun runs on one machine, not True"),
            ("compute.nodes", 1.0, "compute.nodes: must be 1, as localrun runs on one machine, not 1.0"),
            ("compute.cluster", 1, "compute.cluster: must be text, not 1"),
            ("scheduling.priority", "urgent", "scheduling.priority: must be 'high', 'auto', 'low' or 'lowest', n"),
            ("scheduling.priority", 1, "scheduling.priority: must be 'high', 'auto', 'low' or 'lowest', not 1"),
            ("scheduling.stop_grace", -0.1, "scheduling.stop_grace: must be a number, 0 or more, not -0.1"),
            ("scheduling.stop_grace", "30s", "scheduling.stop_grace: must be a number, 0 or more, not '30s'"),
            ("scheduling.max_duration", 0, "scheduling.max_duration: must be a number, more than 0, not 0"),
            ("scheduling.max_duration", "1h", "scheduling.max_duration: must be a number, more than 0, not '1h'"),
            ("scheduling.max_retries", 1.5, "scheduling.max_retries: must be a whole number, 0 or more, not 1.5"),
            ("scheduling.max_retries", -1, "scheduling.max_retries: must be a whole number, 0 or more, not -1"),
            ("scheduling.retry_on_system_failure", "yes", "scheduling.retry_on_system_failure: must be true or false"),
            ("scheduling.retry_on_system_failure", 1, "scheduling.retry_on_system_failure: must be true or false"),
            ("parameters", {"a": [{"b": {1}}]}, "parameters.a[0].b: must be text, a number, true, false, null, a list"),
            ("parameters", {"a": {1: 2}}, "parameters.a: the key 1 must be text: put it in quotes"),
            ("parameters", {"a\nb": {1}}, r"parameters.'a\nb': must be text"),
            ("parameters", {"x": math.nan}, "parameters.x: must be a finite number, as JSON has no other, not nan"),
            ("metadata", {"x": b""}, "metadata.x: must be text, a number, true, false, null, a list or a mapping"),
            ("env_variables", {"": "x"}, "env_variables: a name must not be empty or have '=': ''"),
            ("env_variables", {"A=hush": "x"}, "env_variables: a name must not be empty or have '=': 'A'"),
            ("env_variables", {"A\0": "x"}, r"env_variables.'A\x00': must not have a NUL character"),
            ("env_variables", {1: "x"}, "env_variables: the name 1 must be text: put it in quotes"),
            ("env_variables", {"A": None}, "env_variables.A: must be text, a number, true or false, not None"),
            ("env_variables", {"A": ["hush"]}, "env_variables.A: must be text, a number, true or false, not a list"),
            ("env_variables", {"A": math.inf}, "env_variables.A: must be text, a number, true or false, not NaN"),
            ("env_variables", {"A": "hush\0"}, "env_variables.A: must not have a NUL character"),
            ("env_variables", {"A": "hush\ud800"}, "env_variables.A: has a character that cannot be encoded"),
            ("env_variables", {"CUDA_VISIBLE_DEVICES": ""}, "env_variables.CUDA_VISIBLE_DEVICES: compute.gpus is"),
        ],
    )
    def test_bad_is_refused_by_name(self, path: str, value: Any, message: str) -> None:
        refused = refusal(path, value)
        assert refused.startswith(message)
        assert "hush" not in refused

    def test_environment_values_become_text(self) -> None:
        given = {"A": 1, "B": True, "C": False, "D": 0.5, "E": "", "F": "x y", "_G.h": -3, "BIG": 10**400}
        made = request("env_variables", given).env_variables
        wanted = {"A": "1", "B": "true", "C": "false", "D": "0.5", "E": "", "F": "x y", "_G.h": "-3"}
        assert made == wanted | {"BIG": "1" + "0" * 400}

    def test_gpus_decide_the_default_of_cpus(self) -> None:
        assert request("compute.gpus", 2).cpus == 0.0
        assert request(compute={"gpus": 2, "cpus": 4}).cpus == 4.0
        assert request(compute={"gpus": 0, "gpu_type": "h100"}).cpus == 1.0

    def test_what_kind_of_gpus_needs_a_number_of_them(self) -> None:
        assert refusal("compute.gpu_type", "h100").startswith("compute.gpu_type: says which GPUs")
        assert refusal("compute.gpu_memory", "1GiB").startswith("compute.gpu_memory: says which GPUs")
        assert request(compute={"gpus": 1, "gpu_type": "some future thing"}).gpu_type == "some future thing"
        without = request(compute={"gpus": 0, "gpu_type": "h100", "gpu_memory": "1GiB"})
        assert (without.gpu_type, without.gpu_memory) == (None, 0)
        for strange in ("***", "-", " ", "°"):
            assert refusal("compute.gpu_type", strange).startswith("compute.gpu_type: must be a word")

    @pytest.mark.parametrize("more", [{}, {"gpu_binding": "rank"}, {"gpu_binding": "rank", "nproc_per_node": 2}])
    def test_a_process_gets_one_instance(self, more: dict[str, Any]) -> None:
        instances = {"gpus": 4, "gpu_type": "mig", "nproc_per_node": 4, "gpu_binding": "rank"}
        assert request(compute=instances).gpus == 4
        with pytest.raises(RunConfigError, match=r"compute\.gpus: CUDA gives a process one MIG instance, not"):
            request(compute={"gpus": 4, "gpu_type": "mig", **more})

    def test_no_gpu_type_with_gpus(self) -> None:
        with pytest.raises(RunConfigError, match=r"^compute.gpu_type: 'none' asks for no GPU, and compute.gpus for 2$"):
            request(compute={"gpus": 2, "gpu_type": "none"})

    def test_a_function_needs_no_command(self) -> None:
        assert Request.from_config(RunConfig(), needs_command=False) == Request()
        with pytest.raises(RunConfigError, match=r"^command: must not be empty$"):
            Request.from_config(RunConfig())
        with pytest.raises(RunConfigError, match=r"^command: must be text, not 3$"):
            Request.from_config(RunConfig(command=3), needs_command=False)  # type: ignore[arg-type]


class TestRequest:
    def test_the_configuration_stays_as_it_is(self) -> None:
        config = RunConfig(command="ls", parameters={"a": {"b": 1}}, env_variables={"A": 1})
        config.gpu_type = "none"
        before = copy.deepcopy(config)
        made = Request.from_config(config)
        assert config == before
        config.parameters["a"]["b"] = 2
        assert made.parameters == {"a": {"b": 1}}

    def test_keys_put_in_later_are_checked_too(self) -> None:
        config = RunConfig(command="ls")
        config.compute["gpuss"] = 1  # type: ignore[typeddict-unknown-key]
        with pytest.raises(RunConfigError, match=r"^compute: unknown key 'gpuss': did you mean 'gpus'"):
            Request.from_config(config)

    def test_is_frozen_and_shows_no_environment(self) -> None:
        made = request("env_variables", {"TOKEN": "hush"})
        assert "hush" not in repr(made)
        with pytest.raises(dataclasses.FrozenInstanceError):
            made.gpus = 1  # type: ignore[misc]
        with pytest.raises(TypeError):
            Request("name")  # type: ignore[call-arg]

    def test_every_key_has_a_rule(self) -> None:
        top = {one.name for one in dataclasses.fields(RunConfig)} - {"compute", "scheduling"}
        parts = {f"compute.{key}" for key in ComputeConfig.__annotations__}
        parts |= {f"scheduling.{key}" for key in SchedulingConfig.__annotations__}
        assert set(RULES) == top | parts
        assert {path.rpartition(".")[2] for path in RULES} == {one.name for one in dataclasses.fields(Request)}

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            ("scheduling.preemptible", False),
            ("scheduling.after", []),
            ("compute.volumes", []),
            ("compute.allow_shared_gpus", False),
            ("compute.gpu_memory", 0),
            ("compute.gpu_visibility", "uuid"),
            ("compute.pull", "missing"),
            ("integrations", []),
            ("image", ""),
        ],
    )
    def test_what_asks_for_nothing_is_as_good_as_unset(self, path: str, value: Any) -> None:
        assert request(path, value) == request()


class TestMetadata:
    def test_limits(self) -> None:
        most = {f"{index:0200}": index for index in range(200)}
        assert validate_metadata(most) == most
        assert validate_metadata({"a": "x" * 99_998})
        assert validate_metadata({"a": "x" * 60_000, "b": "x" * 60_000})  # each value, not all of them

    def test_is_a_plain_copy(self) -> None:
        given = {"a": [1, (2, MappingProxyType({"b": 3}))]}
        made = validate_metadata(MappingProxyType(given))
        assert made == {"a": [1, [2, {"b": 3}]]}
        assert json.loads(json.dumps(made)) == made

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ({str(index): 1 for index in range(201)}, "metadata: must have at most 200 keys, not 201"),
            ({"k" * 201: 1}, "metadata: a key must have 1 to 200 characters, and 'kkkk"),
            ({"": 1}, "metadata: a key must have 1 to 200 characters, and '' has 0"),
            ({"a": "x" * 99_999}, "metadata.a: must be at most 100 KB of JSON, not 100001 bytes"),
            ({"a": "é" * 60_000}, "metadata.a: must be at most 100 KB of JSON, not 120002 bytes"),
            ({"a": {"b": {1}}}, "metadata.a.b: must be text"),
            ([1], "metadata: must be a mapping, not a list"),
            ("x", "metadata: must be a mapping, not 'x'"),
        ],
    )
    def test_refused(self, value: Any, message: str) -> None:
        with pytest.raises(RunConfigError) as caught:
            validate_metadata(value)
        assert caught.value.message.startswith(message)


class TestNames:
    @pytest.mark.parametrize("name", ["a", "0", "A.b_c-d", "x" * 128, "lr-0.1", "a..", "9-"])
    def test_good(self, name: str) -> None:
        assert validate_name(name) == name

    @pytest.mark.parametrize(
        ("name", "problem"),
        [
            ("", "name: '' is empty"),
            ("a/b", "name: 'a/b' has '/'"),
            ("../x", "name: '../x' has '/'"),
            ("..", "name: '..' starts with '.'"),
            (".a", "name: '.a' starts with '.'"),
            ("-a", "name: '-a' starts with '-'"),
            ("_a", "name: '_a' starts with '_'"),
            ("a b", "name: 'a b' has ' '"),
            ("a\n", r"name: 'a\n' has '\n'"),
            ("a\0", r"name: 'a\x00' has '\x00'"),
            ("é", "name: 'é' has 'é'"),
            ("٣", "name: '٣' has '٣'"),
            ("x" * 129, "name: '" + "x" * 55 + "...' has 129 characters"),
        ],
    )
    def test_bad(self, name: str, problem: str) -> None:
        with pytest.raises(RunConfigError) as caught:
            validate_name(name)
        rule = "use letters, digits, '.', '_' and '-', starting with a letter or digit, at most 128"
        assert caught.value.message == f"{problem}: {rule}"

    @pytest.mark.parametrize("name", [None, 3, b"a", ["a"], True])
    def test_no_text(self, name: Any) -> None:
        with pytest.raises(RunConfigError, match=r"^run_name: must be text, not "):
            validate_name(name, "run_name")

    @pytest.mark.parametrize(
        ("command", "name"),
        [
            ("python train.py --lr 0.1", "train"),
            ("echo hello", "echo"),
            ("bash -c 'echo hello; ls'", "bash"),
            ("python -c 'import x'", "python"),
            ("python3.11 -m pkg.train --x", "pkg.train"),
            ("./run_all", "run_all"),
            ("cd /data && FOO=1 torchrun --nproc_per_node 8 \\\n  pkg/train_all.py", "train_all"),
            ("# a comment\n\npip install x\npython 'my script.py' > out.py", "my-script"),
            ('echo "Hello World!" && sleep 60', "echo"),
            ("(cd x; make -j8) | tee log", "make"),
            ("env A=1 sudo ls", "ls"),
            ("cat a > b.py", "cat"),
            ("'unbalanced", "unbalanced"),
            ("cd /tmp", "cd"),
            ("A=1", "run"),
            ("", "run"),
            (" \n ; ", "run"),
            ("éé", "run"),
            ("x" * 500, "x" * 60),
            (("x" * 59 + "-y "), "x" * 59),
        ],
    )
    def test_from_a_command(self, command: str, name: str) -> None:
        assert name_from_command(command) == name
        assert validate_name(name_from_command(command)) == name


GIB = 1 << 30


class TestSizes:
    @pytest.mark.parametrize(
        ("value", "size"),
        [
            (0, 0),
            (1024, 1024),
            (8e9, 8_000_000_000),
            ("1024", 1024),
            ("7B", 7),
            ("8GiB", 8 * GIB),
            ("8gib", 8 * GIB),
            ("500MB", 500_000_000),
            ("1.5 GiB", GIB * 3 // 2),
            (".5k", 512),
            ("10g", 10 * GIB),
            ("1K", 1024),
            ("1m", 1 << 20),
            ("1T", 1 << 40),
            ("1KB", 1000),
            ("1kib", 1024),
            ("2Gi", 2 * GIB),
            ("0.1GB", 100_000_000),
            (" 1 TB ", 10**12),
            ("999999999999999999", 999_999_999_999_999_999),
        ],
    )
    def test_good(self, value: Any, size: int) -> None:
        made = parse_size(value, "memory")
        assert (made, type(made)) == (size, int)

    @pytest.mark.parametrize(
        "value",
        ["", "GiB", "-1", "1PB", "1 2", "1e9", "8GiBs", "٣GB", "nan", -1, 0.5, math.nan, math.inf, True, None, [1]],
    )
    def test_bad(self, value: Any) -> None:
        with pytest.raises(RunConfigError, match=r"^compute.memory: must be a size, a number of bytes or text"):
            parse_size(value, "compute.memory")
