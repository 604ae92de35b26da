"""Traced blocks in a notebook's kernel: output is in the log and in the notebook, and the kernel works on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import Home

import localrun

jupyter_client = pytest.importorskip("jupyter_client", reason="needs ipykernel")
pytest.importorskip("ipykernel", reason="needs ipykernel")

Execute = Callable[[str], str]


@pytest.fixture
def execute(home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Execute]:
    """Executes a cell in a real kernel; gives what the notebook shows of its streams."""
    monkeypatch.delenv("PYTEST_CURRENT_TEST")  # the kernel would not take what subprocesses write
    manager = jupyter_client.KernelManager()
    manager.start_kernel()
    client: Any = manager.client()
    client.start_channels()

    def run(code: str) -> str:
        shown: list[str] = []

        def take(message: dict[str, Any]) -> None:
            if message["msg_type"] == "stream":
                shown.append(message["content"]["text"])

        reply = client.execute_interactive(code, output_hook=take, timeout=60)
        assert reply["content"]["status"] in ("ok", "error")
        return "".join(shown)

    try:
        client.wait_for_ready(timeout=60)
        yield run
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_block_in_a_cell(home: Home, execute: Execute) -> None:
    shown = execute(
        "import logging, os, subprocess, sys, localrun\n"
        "logging.basicConfig()\n"
        "with localrun.run(name='x') as run:\n"
        "    print('one')\n"
        "    os.system('echo two')\n"
        "    print('three')\n"
        "    logging.warning('four')\n"
        "import time; time.sleep(1)"  # the kernel takes what subprocesses write in its own time
    )
    run = localrun.get_run("x")
    assert run.stdout() == "one\ntwo\nthree\n"
    assert run.stderr() == "WARNING:root:four\n"
    assert all(shown.count(word) == 1 for word in ("one", "two", "three", "four")), shown
    assert execute("print('after')\n") == "after\n"
    assert localrun.get_run("x").stdout() == "one\ntwo\nthree\n"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_interrupted_cell_and_blocks_over_several_cells(home: Home, execute: Execute) -> None:
    execute("import localrun\nrun = localrun.run(name='x')\nrun.__enter__()\nprint('first')\n")
    execute("print('second')\n1 / 0\n")
    assert localrun.get_run("x").status.value == "RUNNING"
    execute("run.__exit__(None, None, None)\n")
    assert localrun.get_run("x").status.value == "COMPLETED"
    assert localrun.get_run("x").stdout() == "first\nsecond\n"
    assert "broken" in execute("with localrun.run(name='y') as run:\n    print('broken')\n    raise ValueError('no')\n")
    assert localrun.get_run("y").error == "ValueError: no"
