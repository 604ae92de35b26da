"""Programs as mcli's pages write them, with this package's name in place of mcli's."""

from __future__ import annotations

from pathlib import Path

from support import Home, run_python

_BASE = """
    name: base
    command: cat $PARAMETERS
    parameters: {optimizers: {sgd: {lr: 1}}, depth: 2}
"""


def program(code: str, folder: Path) -> list[str]:
    """The lines that a program prints which was started in that folder."""
    return str(run_python(code, cwd=folder).stdout).splitlines()


def test_a_run_from_a_file(home: Home, tmp_path: Path) -> None:
    (tmp_path / "hello.yaml").write_text("name: hello\ncommand: echo hello world\ncompute: {cluster: any}\n")
    code = """
        from localrun.api.runs import RunConfig, create_run, follow_run_logs
        created = create_run(RunConfig.from_file('hello.yaml'))
        for line in follow_run_logs(created):
            print(line, end='')
    """
    assert program(code, tmp_path) == ["hello world"]


def test_a_run_from_keywords_old_and_new(home: Home, tmp_path: Path) -> None:
    code = """
        import warnings
        from localrun import RunConfig, create_run, wait_for_run_status
        warnings.simplefilter('ignore', DeprecationWarning)
        cluster = 'the-only-one'
        older = RunConfig(name='older', command='echo hello && sleep 0.1', gpu_type='none', cluster=cluster)
        newer = RunConfig(name='newer', command='true', compute={'gpu_type': 'none', 'cluster': cluster})
        for config in (older, newer):
            print(wait_for_run_status(create_run(config), 'COMPLETED').display_name)
    """
    assert program(code, tmp_path) == ["older", "newer"]


def test_a_sweep_with_copies_and_without(home: Home, tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(_BASE)
    code = """
        import copy
        from localrun import RunConfig, create_run
        config = RunConfig.from_file('base.yaml')
        params, runs = config.parameters, []
        for lr in (0.1, 0.01):
            changed = copy.deepcopy(params)
            changed['optimizers']['sgd']['lr'] = lr
            config.parameters = changed
            runs.append(create_run(config))
        for lr in (0.001, 0.0001):
            params['optimizers']['sgd']['lr'] = lr
            config.parameters = params
            runs.append(create_run(config))
        for run in runs:
            print([line.strip() for line in run.wait().stdout().splitlines() if 'lr' in line][0])
        print(len({run.name for run in runs}), runs[0].name)
    """
    assert program(code, tmp_path) == ["lr: 0.1", "lr: 0.01", "lr: 0.001", "lr: 0.0001", "4 base"]


def test_the_life_of_a_run(home: Home, tmp_path: Path) -> None:
    code = """
        from localrun import create_run, delete_run, follow_run_logs, get_run, get_run_logs, start_run, stop_run
        from localrun import RunConfig, RunStatus, wait_for_run_status
        create_run(RunConfig(name='run', command='echo begin; [ $RESUMPTION_INDEX = 1 ] || exec sleep 1000'))
        wait_for_run_status('run', 'running')
        run = get_run('run').refresh()
        print(run.status.before(RunStatus.COMPLETED), run.status.after(RunStatus.QUEUED))
        print(stop_run('run').status, get_run('run').reason)
        start_run('run')
        for line in follow_run_logs('run'):
            print(line, end='')
        print(wait_for_run_status('run', RunStatus.COMPLETED).resumption_count)
        for line in get_run_logs('run', rank=0, tail=3):
            print(repr(line))
        print(delete_run('run').is_deleted)
    """
    assert program(code, tmp_path) == ["True True", "STOPPED StoppedByUser", "begin", "1", "'in\\n'", "True"]


def test_a_run_that_failed(home: Home, tmp_path: Path) -> None:
    code = """
        from localrun import RunConfig, create_run, get_run_logs
        run = create_run(RunConfig(name='run', command='echo oh no >&2; exit 3')).wait()
        print(run.status, run.reason)
        for line in get_run_logs('run', failed=True):
            print(line, end='')
    """
    assert program(code, tmp_path) == ["FAILED Error", "oh no"]


def test_lists_of_runs(home: Home, tmp_path: Path) -> None:
    code = """
        from datetime import datetime, timedelta
        from localrun import RunConfig, create_run, delete_runs, get_runs, stop_runs
        for number in range(5):
            create_run(RunConfig(name=f'run-{number}', command=f'exit {number % 2}')).wait()
        runs = get_runs(limit=2)
        while True:
            try:
                print(f'found {len(runs)} runs')
                runs = runs.next_page()
            except StopIteration:
                print('no more pages')
                break
        failed = get_runs(statuses=['FAILED'])
        print([run.name for run in failed])
        print(len(stop_runs(failed)), len(delete_runs(failed)))
        print(len(get_runs(before=datetime.now() - timedelta(days=7))))
        print([run.name for run in delete_runs(get_runs(after=datetime.now() - timedelta(days=7)))][0])
    """
    pages = ["found 2 runs", "found 2 runs", "found 1 runs", "no more pages"]
    assert program(code, tmp_path) == [*pages, "['run-3', 'run-1']", "2 2", "0", "run-4"]


def test_what_a_cluster_has(home: Home, tmp_path: Path) -> None:
    code = """
        from localrun import get_cluster
        cluster = get_cluster('name')
        gpus = sum(each.gpus_available for each in cluster.utilization.cluster_instance_utils)
        print(len(cluster.utilization.active_runs_by_user), len(cluster.utilization.queued_runs_by_user), gpus)
    """
    assert program(code, tmp_path) == ["0 0 0"]
