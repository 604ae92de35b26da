"""What a container is started with, as far as no engine is needed to see it; its start is in `containers`."""

from __future__ import annotations

import csv
import os
from typing import Any

import pytest

from localrun.engine.launchers import containerargs, containercontents
from localrun.engine.launchers.containerargs import Mount


def record(**request: Any) -> dict[str, Any]:
    """A record as far as the arguments are made of it."""
    asked = {
        "engine": {"program": "/usr/bin/docker"}, "nproc_per_node": None, "network": "host", "shm_size": 1 << 30,
        "cpus": 1.0, "memory": 0, **request,
    }  # fmt: skip
    return {"uid": "abc", "name": "run", "cwd": "/work", "config": {}, "gpus": [], "request": asked}


def arguments(rank: int = 0, gpus: tuple[str, ...] = (), **request: Any) -> list[str]:
    given = record(**request) | {"gpus": [{"index": index, "uuid": uuid} for index, uuid in enumerate(gpus)]}
    return containerargs.arguments(given, rank, 2, [])


def test_it_is_named_and_labelled() -> None:
    made = arguments(rank=3, nproc_per_node=4)
    assert {"--name=localrun-abc-2-3", "--label=localrun.uid=abc", "--label=localrun.rank=3"} <= set(made)


def test_it_is_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"geteuid": 1000, "getegid": 100, "getgroups": [100, 27, 999]}.items():
        monkeypatch.setattr(os, name, lambda value=value: value)
    made = arguments()
    assert {"--user=1000:100", "--group-add=27", "--group-add=999"} <= set(made)
    assert "--group-add=100" not in made
    podman = {"program": "/usr/bin/podman"}
    assert {"--userns=keep-id", "--user=1000:100"} <= set(arguments(engine=podman))
    second = arguments(rank=1, nproc_per_node=2, engine=podman)
    assert {"--userns=container:localrun-abc-2-0", "--user=1000:100"} <= set(second)


@pytest.mark.parametrize("network", ["host", "none", "mine"])
def test_ranks_share_what_the_first_has(network: str) -> None:
    first, second = (arguments(rank=rank, nproc_per_node=2, network=network) for rank in (0, 1))
    assert {"--ipc=shareable", f"--network={network}", f"--shm-size={1 << 30}"} <= set(first)
    assert "--ipc=container:localrun-abc-2-0" in second
    assert f"--network={'host' if network == 'host' else 'container:localrun-abc-2-0'}" in second
    assert not [each for each in second if each.startswith("--shm-size")]


def test_gpus_go_by_uuid() -> None:
    assert '--gpus="device=GPU-a,GPU-b"' in arguments(gpus=("GPU-a", "GPU-b"))
    assert not [each for each in arguments() if "gpu" in each.lower()]
    podman = arguments(gpus=("GPU-a",), engine={"program": "podman"})
    assert "--device=nvidia.com/gpu=GPU-a" in podman


def test_indices_are_among_its_own() -> None:
    gpus = [{"index": 5, "uuid": "b"}, {"index": 2, "uuid": "a"}, {"index": "3:0", "uuid": "MIG-c"}]
    assert [gpu["index"] for gpu in containerargs.visible_indices(gpus)] == [1, 0, "3:0"]


@pytest.mark.parametrize("path", ["/a", "/a,b", '/a "b"', "/a\nb", "/ü ,=", "/a'b\\"])
def test_any_path_can_be_mounted(path: str) -> None:
    text = Mount(path, path, read_only=True).argument()
    assert next(csv.reader([text], strict=True)) == ["type=bind", f"src={path}", f"dst={path}", "readonly"]


def test_the_users_own_mount_counts() -> None:
    theirs, ours, other = Mount("/data", "/work"), Mount("/work", "/work"), Mount("/x", "/y")
    assert containercontents.without_doubles([theirs, ours, other]) == [theirs, other]
