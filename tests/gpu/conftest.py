"""A machine with eight GPUs, as the driver of `fakenvml` tells of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fakenvml import FakeNvml
from support import Home


@pytest.fixture
def nvml(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    """A driver without GPUs yet."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc, which builds the fake NVML library, is not installed")
    driver = FakeNvml(tmp_path)
    for name, value in driver.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("LOCALRUN_GPUS", raising=False)
    return driver


@pytest.fixture
def eight(nvml: FakeNvml) -> list[str]:
    """The uuids of eight equal GPUs, in PCI order."""
    return nvml.add_gpus(8)
