"""The containers' tests have one engine: no test leaves a container in it, and all of them no volume or network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import docker
import pytest
from docker import Engine
from support import Home


@pytest.fixture(scope="session")
def engine_of_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The engine, with images."""
    why = docker.missing()
    if why is not None:
        pytest.skip(why)
    engine = Engine(tmp_path_factory.mktemp("docker"))
    try:
        engine.start()
        docker.make_images(engine)
        yield engine
        assert engine.leftovers() == []
    finally:
        engine.stop()


@pytest.fixture
def engine(engine_of_all: Engine, home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """The engine as this test's ``DOCKER_HOST``; at the test's end nothing may be left in it."""
    monkeypatch.setenv("DOCKER_HOST", engine_of_all.host)
    yield engine_of_all
    if home.active():
        home.all_ended()
    docker.soon(engine_of_all)


@pytest.fixture(params=["process", "container"])
def kind(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Fields that make a run a process or a container: what is asked of both must be the same."""
    if request.param == "process":
        request.getfixturevalue("home")
        return {}
    request.getfixturevalue("engine")
    return {"image": docker.PYTHON}
