"""Every test has a home of its own, leaves nothing behind, and raises no warning."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import REPOSITORY, Home, end_children

# Far above what any test takes: a hang becomes a failure with a traceback.
LIMIT_S = 240


class Hang(BaseException):
    """Nothing catches it but pytest."""


_warnings: list[str] = []
_failed = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--thorough", action="store_true", help="go through the long loops in full")
    parser.addoption("--all-components", action="store_true", help="fail where a test skips for want of a component")


def pytest_configure(config: pytest.Config) -> None:
    if not config.pluginmanager.hasplugin("warnings") or "error" not in config.getini("filterwarnings"):
        raise pytest.UsageError("these tests run with filterwarnings = error")


def pytest_warning_recorded(warning_message: Any, when: str, nodeid: str) -> None:
    _warnings.append(f"{nodeid or when}: {warning_message.category.__name__}: {warning_message.message}")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A warning outside of tests, at collection say, is no error by itself: it becomes one here."""
    if _warnings and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        sys.stderr.write("\nwarnings are errors here:\n" + "\n".join(_warnings) + "\n")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report: Any = yield
    if report.skipped and item.config.getoption("--all-components") and item.get_closest_marker("gpu") is None:
        report.outcome, report.longrepr = "failed", f"skipped, where nothing may be missing: {report.longrepr[2]}"
    if report.failed or report.skipped:
        item.stash[_failed] = True
    return report  # type: ignore[return-value]


@pytest.fixture(autouse=True)
def _limit() -> Iterator[None]:
    def give_up(*_: object) -> None:
        raise Hang(f"the test takes longer than {LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(LIMIT_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def thorough(request: pytest.FixtureRequest) -> bool:
    """True if the long loops are to be gone through in full."""
    return bool(request.config.getoption("--thorough"))


@pytest.fixture
def home(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """A home folder of this test's own; at the end nothing of it may be left. A parameter is the folder's name."""
    path = tmp_path / getattr(request, "param", "home")
    for name in [name for name in os.environ if name.startswith(("LOCALRUN_", "RUN_NAME", "RESUMPTION_INDEX"))]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # most people's programs hold back what they write
    monkeypatch.setenv("LOCALRUN_HOME", str(path))
    monkeypatch.setenv("LOCALRUN_IDLE_S", "0.5")
    monkeypatch.setenv("LOCALRUN_LEASE_DIR", str(tmp_path / "leases"))
    paths = [str(REPOSITORY), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(dict.fromkeys(paths)))
    home = Home(path, tmp_path)
    try:
        yield home
        if not request.node.stash.get(_failed, False):
            home.check()
    finally:
        end_children()
        home.end()
