"""Programs as mcli's pages write them, where they name an image."""

from __future__ import annotations

from pathlib import Path

import docker
import pytest
from docker import Engine
from support import Home, run_python

import localrun


@pytest.fixture
def bash(engine: Engine) -> None:
    """The image that the pages' programs ask for."""
    if not engine("images", "--quiet", "bash").stdout.strip():
        engine("tag", docker.BASH, "bash")


@pytest.mark.usefixtures("bash")
def test_a_run_from_keywords(home: Home, tmp_path: Path) -> None:
    code = """
        from localrun import RunConfig, create_run, follow_run_logs, wait_for_run_status
        cluster = 'the-only-one'
        run_config = RunConfig(
            name='hello-world',
            image='bash',
            command='echo "Hello World!" && sleep 1',
            compute={'gpu_type': 'none', 'cluster': cluster},
        )
        created_run = create_run(run_config)
        for line in follow_run_logs(created_run):
            print(line, end='')
        print(wait_for_run_status(created_run, 'COMPLETED').image)
    """
    assert run_python(code, cwd=tmp_path).stdout.splitlines() == ["Hello World!", "bash"]


@pytest.mark.usefixtures("bash")
def test_the_older_page_and_a_clone(home: Home, tmp_path: Path) -> None:
    code = """
        import warnings
        from localrun import RunConfig, create_run, get_run
        warnings.simplefilter('ignore', DeprecationWarning)
        run = create_run(RunConfig(
            run_name='hello-world', image='bash', command='echo "Hello World!"', gpu_type='none',
            cluster='the-only-one',
        ))
        print(run.wait().stdout(), end='')
        again = get_run('hello-world').clone(name='again', image='bash:latest')
        print(again.wait().stdout(), again.image, end='')
    """
    assert run_python(code, cwd=tmp_path).stdout == "Hello World!\nHello World!\n bash:latest"
    assert localrun.get_run("again").status is localrun.RunStatus.COMPLETED
