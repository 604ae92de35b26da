"""Runs with podman, by `LOCALRUN_CONTAINER_ENGINE`: where its words and ways are its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from docker import BASH, PYTHON
from support import Home, execute, kill, stdout_bytes, submit, wait_until

import localrun
from localrun import RunStatus

# No more than what the machine allows, which podman does not ask; and a runtime that any layout of cgroups will do for.
_SETTINGS = """[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "runc"
"""


class Podman(docker.Engine):
    """Podman with images and containers in a folder of its own; there is nothing to start."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        storage = f'[storage]\ndriver = "vfs"\nrunroot = "{folder}/run"\ngraphroot = "{folder}/data"\n'
        contents = {"CONTAINERS_STORAGE_CONF": storage, "CONTAINERS_CONF": _SETTINGS}
        self.variables = {name: str(folder / name) for name in contents}
        for name, text in contents.items():
            (folder / name).write_text(text)

    def __call__(self, *words: str, check: bool = True, **more: Any) -> subprocess.CompletedProcess[str]:
        """Have its command line do something."""
        text = {} if "input" in more else {"text": True}
        environ = {**os.environ, **self.variables}
        return subprocess.run(["podman", *words], check=check, capture_output=True, env=environ, **text, **more)


@pytest.fixture(scope="session")
def podman_of_all(tmp_path_factory: pytest.TempPathFactory) -> Podman:
    """Podman, with images."""
    absent = [name for name in ("podman", "runc", "busybox") if shutil.which(name) is None]
    why = f"not installed: {', '.join(absent)} (podman, catatonit)" if absent else docker.missing()
    if why is not None:
        pytest.skip(why)
    engine = Podman(tmp_path_factory.mktemp("podman"))
    docker.make_images(engine)
    return engine


@pytest.fixture(autouse=True)
def podman(podman_of_all: Podman, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Podman]:
    for name, value in {**podman_of_all.variables, "LOCALRUN_CONTAINER_ENGINE": "podman"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    yield podman_of_all
    if home.active():
        home.all_ended()
    docker.soon(podman_of_all)


def test_how_a_command_ends(podman: Podman, home: Home) -> None:
    given = {"SPACES": "  a  ", "LINES": "a\nb", "QUOTES": "'\" #$A\\", "STAR": "*", "EMPTY": ""}
    run = execute("run", "env -0; sleep 0.5; exit 3", image=BASH, env_variables=given)
    assert (run.status, run.exit_code) == (RunStatus.FAILED, 3)
    seen = dict(entry.split("=", 1) for entry in stdout_bytes(run).decode().split("\0") if entry)
    assert {name: seen.get(name) for name in given} == given
    image = podman("image", "inspect", "--format={{.Id}}", BASH).stdout.strip()
    assert home.record("run")["image_id"] == f"sha256:{image}"


def test_ranks_of_functions_share_memory(podman: Podman) -> None:
    find = localrun.function(image=PYTHON, nproc_per_node=2)(lambda: os.readlink("/proc/self/ns/ipc"))
    first, second = find(run_name="run")
    assert first == second != os.readlink("/proc/self/ns/ipc")


@pytest.mark.parametrize("pull", ["never", "missing"])
def test_a_missing_image(podman: Podman, pull: str) -> None:
    run = execute("run", "true", image="localhost:1/none:1", pull=pull)
    assert (run.status, run.reason) == (RunStatus.FAILED, "FailedImagePull")
    assert ("pull is never" if pull == "never" else "refused") in run.message


def test_stopped_and_lost(podman: Podman, home: Home) -> None:
    command = "trap 'echo asked; exit 7' TERM; echo up; while :; do sleep 0.05; done"
    for name in ("stopped", "lost"):
        run = submit(name, command, image=BASH)
        wait_until(lambda run=run: run.refresh().status is RunStatus.RUNNING and run.stdout(), 60)
        run.stop(timeout=60) if name == "stopped" else kill(home.supervisor(name))
        run.wait(60)
        assert run.stdout() == "up\nasked\n"
    assert (run.status, run.reason) == (RunStatus.FAILED, "SystemFailure")


def test_it_is_found_under_dockers_name(podman: Podman, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from localrun import settings

    script = tmp_path / "docker"
    script.write_text('#!/bin/sh\nexec /usr/bin/podman "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("LOCALRUN_CONTAINER_ENGINE", str(script))
    assert settings.container_engine()[0] == shutil.which("podman")
