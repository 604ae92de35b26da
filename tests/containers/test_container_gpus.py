"""GPU requests end to end without a GPU: a second engine, whose hook says what the container was to get."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker import SHELL, Engine
from fakenvml import FakeNvml
from support import Home, execute

from localrun import RunStatus

# Called as a container with GPUs is created: it notes the container's configuration, and refuses bad devices.
HOOK = """#!/bin/sh
bundle=$(sed 's/.*"bundle":"\\([^"]*\\)".*/\\1/')
cp "$bundle/config.json" "{folder}/seen.json"
if grep -q GPU-bad "$bundle/config.json"; then echo 'no such device: GPU-bad' >&2; exit 1; fi
"""


@pytest.fixture(scope="session")
def gpu_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine that takes requests for GPUs, in a network of its own."""
    why = docker.missing()
    if why is not None:
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("gpu-docker")
    hook = folder / "bin" / "nvidia-container-runtime-hook"
    hook.parent.mkdir()
    hook.write_text(HOOK.replace("{folder}", str(folder)))
    hook.chmod(0o755)
    engine = Engine(folder, alone=True, path=str(hook.parent))
    try:
        engine.start()
        engine.make(SHELL, docker.shell_files())
        yield engine
    finally:
        engine.stop()


@pytest.fixture
def gpus(gpu_engine: Engine, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeNvml]:
    """The driver of a machine without GPUs yet, and that engine."""
    driver = FakeNvml(tmp_path)
    for name, value in {**driver.environment(), "DOCKER_HOST": gpu_engine.host}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    yield driver
    docker.soon(gpu_engine)


def asked(engine: Engine) -> dict[str, str]:
    """The environment of the last container, as the hook saw it."""
    entries = json.loads((engine.folder / "seen.json").read_text())["process"]["env"]
    return dict(entry.split("=", 1) for entry in entries)


def test_a_container_gets_exactly_its_gpus(gpus: FakeNvml, gpu_engine: Engine) -> None:
    uuids = gpus.add_gpus(4)
    given = {"NVIDIA_VISIBLE_DEVICES": "all"}
    run = execute("run", 'echo "$CUDA_VISIBLE_DEVICES"', image=SHELL, gpus=2, env_variables=given)
    assert run.status is RunStatus.COMPLETED, run.message
    mine = [gpu["uuid"] for gpu in json.loads(Path(run.path, "config.json").read_text())["gpus"]]
    assert len(mine) == 2
    assert set(mine) < set(uuids)
    assert asked(gpu_engine)["NVIDIA_VISIBLE_DEVICES"] == ",".join(mine)
    assert run.stdout() == ",".join(mine) + "\n"


def test_indices_are_the_containers_own(gpus: FakeNvml, gpu_engine: Engine) -> None:
    uuids = gpus.add_gpus(4)
    config = {"image": SHELL, "gpu_visibility": "index", "gpu_binding": "rank", "nproc_per_node": "gpu"}
    holder_command = "until [ -e done ]; do sleep 0.01; done"
    from support import submit, wait_until

    holder = submit("holder", f"echo up; {holder_command}", gpus=2)
    wait_until(lambda: holder.refresh().status is RunStatus.RUNNING)
    run = execute("run", 'echo "$CUDA_VISIBLE_DEVICES"', gpus=2, **config)
    Path("done").touch()
    holder.wait(30)
    assert [run.stdout(rank=rank) for rank in (0, 1)] == ["0\n", "1\n"]
    assert len(asked(gpu_engine)["NVIDIA_VISIBLE_DEVICES"].split(",")) == 2
    assert set(asked(gpu_engine)["NVIDIA_VISIBLE_DEVICES"].split(",")) < set(uuids)


def test_a_device_that_is_refused(gpus: FakeNvml) -> None:
    gpus.add_gpu("GPU-bad0000-0000-4000-8000-000000000000")
    run = execute("run", "true", image=SHELL, gpus=1)
    assert (run.status, run.reason) == (RunStatus.FAILED, "FailedToStart")
    assert "GPU-bad" in run.message


def test_without_gpus_it_sees_none(gpus: FakeNvml) -> None:
    gpus.add_gpu()
    run = execute("run", 'echo "[$CUDA_VISIBLE_DEVICES]" $NVIDIA_VISIBLE_DEVICES', image=SHELL)
    assert run.stdout() == "[] void\n"
