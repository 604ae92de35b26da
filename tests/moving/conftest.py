"""The places between which runs move: a folder, fsspec's memory, and real SFTP and S3 servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import S3, Sftp, end
from support import Home
from where import Where

KINDS = ["here", "memory", "sftp", "s3"]


@pytest.fixture(scope="session")
def sftp_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sftp]:
    server = Sftp(tmp_path_factory.mktemp("sftp"))
    try:
        yield server
    finally:
        end(server)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    server = S3(tmp_path_factory.mktemp("s3"))
    try:
        server.make_bucket()
        yield server
    finally:
        end(server)


def where(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Where:
    """A folder of this test's own in a place of that kind."""
    base = str(tmp_path / "elsewhere")
    if kind == "sftp":
        return Where(kind, base, request.getfixturevalue("sftp_server").config)
    if kind == "s3":
        return Where(kind, f"bucket{tmp_path}", request.getfixturevalue("s3_server").config)
    return Where(kind, base, {})


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path, home: Home) -> Where:
    """Each of the places."""
    return where(request.param, request, tmp_path)


@pytest.fixture(params=KINDS[1:])
def remote(request: pytest.FixtureRequest, tmp_path: Path, home: Home) -> Where:
    """Each of the places that are not folders of this machine."""
    return where(request.param, request, tmp_path)


@pytest.fixture(params=["here", "sftp", "s3"])
def durable(request: pytest.FixtureRequest, tmp_path: Path, home: Home) -> Where:
    """Each of the places that outlive a process."""
    return where(request.param, request, tmp_path)


@pytest.fixture
def sftp(request: pytest.FixtureRequest, tmp_path: Path, home: Home) -> Where:
    return where("sftp", request, tmp_path)


@pytest.fixture
def s3(request: pytest.FixtureRequest, tmp_path: Path, home: Home) -> Where:
    return where("s3", request, tmp_path)


@pytest.fixture
def memory(request: pytest.FixtureRequest, tmp_path: Path, home: Home) -> Where:
    return where("memory", request, tmp_path)
