"""``localrun doctor``: is everything as localrun needs it, and what to do if it isn't.

Each check is a function that finds one thing out by trying it; an OSError in it is a finding too.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from localrun import files, settings
from localrun.api.machine.gpus import views
from localrun.cli.lines import print_line
from localrun.cli.output import one_line, print_json
from localrun.engine.dispatch import submission
from localrun.engine.gpus import leasefolder, probe
from localrun.engine.gpus.inventory import types
from localrun.engine.queue import Queue
from localrun.engine.watch import Watch
from localrun.errors import LocalrunError
from localrun.model import record as records
from localrun.model.folder import RunFolder

if TYPE_CHECKING:
    from localrun.cli.parser import Parser

OK, WARN, FAIL = "ok", "warn", "fail"
_PATIENCE_S = 10.0
_LITTLE_SPACE, _NO_SPACE = 1 << 30, 64 << 20
_INSTANCES = 8
_LEAST_PYTHON = (3, 11)


T = TypeVar("T")


class Finding(NamedTuple):
    """What a check found: ``status`` is ok, warn or fail, ``advice`` what to do if it isn't ok."""

    status: str
    message: str
    advice: str | None = None


def add_doctor(parser: Parser) -> None:
    """The arguments of ``localrun doctor``."""
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="how to print it")
    parser.description = "Check that everything is as localrun needs it; exit code 1 if something fails."
    parser.examples("localrun doctor", "localrun doctor -o json")
    parser.set_defaults(command=doctor)


def doctor(args: Namespace) -> int:
    """Make all checks and print what they found; 1 if one failed."""
    findings = {}
    for name, check in CHECKS:
        findings[name] = _made(check)
        if name == "home" and findings[name].status == FAIL:
            break  # the others are about what lies in it
    if args.output == "json":
        print_json([{"check": name, **finding._asdict()} for name, finding in findings.items()])
    else:
        for name, (status, message, advice) in findings.items():
            more = f" → {one_line(advice)}" if advice else ""
            print_line(f"{status:4}  {name:10}  {one_line(message)}{more}", 18)
    return int(any(finding.status == FAIL for finding in findings.values()))


def _made(check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except LocalrunError as error:
        return Finding(FAIL, error.message)
    except OSError as error:
        return Finding(FAIL, str(error))


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < _LEAST_PYTHON:
        return Finding(FAIL, f"{version} at {sys.executable}", "install Python 3.11 or later")
    return Finding(OK, f"{version} at {sys.executable}")


def _shell() -> Finding:
    found = shutil.which("bash")
    return Finding(OK, found) if found else Finding(FAIL, "there is no bash, in which commands run", "install bash")


def _watches() -> Finding:
    """Ask the kernel for as many inotify instances as a busy user may want at once."""
    watches = [Watch() for _ in range(_INSTANCES)]
    got = [watch.fd for watch in watches if watch.fd is not None]
    for fd in got:
        os.close(fd)
    if len(got) == _INSTANCES:
        return Finding(OK, f"inotify instances: {_INSTANCES} and more are left")
    advice = "sysctl fs.inotify.max_user_instances=1024"
    return Finding(WARN, f"inotify instances: {len(got)} are left, so that waiting is by polling", advice)


def _home() -> Finding:
    home = settings.home()
    Queue(home).prepare()
    with tempfile.NamedTemporaryFile(dir=home, prefix=".doctor-") as file:
        file.write(b"localrun")
        file.flush()
        os.fsync(file.fileno())
    os.makedirs(settings.runs_dir(), mode=0o700, exist_ok=True)
    if not os.access(settings.runs_dir(), os.W_OK | os.X_OK):
        return Finding(FAIL, f"{settings.runs_dir()} is not writable", "chmod u+wx it, or set LOCALRUN_RUNS_DIR")
    if stat.S_IMODE(os.stat(home).st_mode) & 0o077:
        return Finding(WARN, f"{home} can be read by others", f"chmod 700 {home}")
    return Finding(OK, f"{home} is writable, and yours alone")


def _locks() -> Finding:
    """Take a lock here and see that another process is kept from it while it is held, and only then."""
    with tempfile.TemporaryDirectory(dir=settings.home(), prefix=".doctor-") as folder:
        for kind, hold in (("localrun's", _hold), ("filelock's", _hold_by_filelock)):
            path = f"{folder}/{kind}"
            with hold(path):
                excluded = not _can_other_process_take(path, kind)
            freed = _can_other_process_take(path, kind)
            if not (excluded and freed):
                what = "exclude no other process" if not excluded else "stay when they are released"
                advice = "set LOCALRUN_HOME to a folder on a local disk"
                return Finding(FAIL, f"{kind} locks {what} in {settings.home()}", advice)
    return Finding(OK, "locks exclude other processes, and are free when released")


def _hold(path: str) -> contextlib.AbstractContextManager[object]:
    return files.ByteLock.acquire(path)


def _hold_by_filelock(path: str) -> contextlib.AbstractContextManager[object]:
    import filelock

    return filelock.FileLock(path)


_TAKE = {
    "localrun's": "from localrun import files; sys.exit(files.ByteLock.try_acquire(sys.argv[1]) is None)",
    "filelock's": "import filelock; filelock.FileLock(sys.argv[1]).acquire(timeout=0)",
}


def _can_other_process_take(path: str, kind: str) -> bool:
    code = f"import sys; sys.path[:] = {sys.path!r}; {_TAKE[kind]}"
    done = subprocess.run([sys.executable, "-P", "-c", code, path], capture_output=True, check=False)
    return done.returncode == 0


def _dispatcher() -> Finding:
    """Somebody must be at work on a queue that isn't empty; nobody need be on an empty one."""
    queue = Queue(settings.home())
    if queue.dispatcher_pid() is None and queue.is_quiet():
        return Finding(OK, "none is needed: nothing is queued or active")
    submission.ensure_progress(queue)
    _soon(lambda: queue.dispatcher_pid() or queue.is_quiet())
    pid = queue.dispatcher_pid()
    if pid is None and not queue.is_quiet():
        return Finding(FAIL, "it does not start, and runs wait", f"see {queue.log}")
    return Finding(OK, f"alive, pid {pid}" if pid else "none is needed any more")


def _runs() -> Finding:
    """No run may be active with nobody behind it; one that is gets the time in which the dispatcher puts it right."""
    queue = Queue(settings.home())
    _soon(lambda: queue.is_quiet() or not _lost_runs())
    lost = _lost_runs()
    if not lost:
        return Finding(OK, "no run is active with nobody behind it")
    advice = "look at what is left of them, and delete their folders"
    return Finding(WARN, f"active with nobody behind them: {', '.join(lost)}", advice)


def _lost_runs() -> list[str]:
    from localrun.api.runs import get_runs
    from localrun.cli.arguments import ALL

    active = [run for run in get_runs(limit=ALL) if run.status.is_active()]
    return [run.name for run in active if _is_lost(RunFolder(run.path))]


def _is_lost(folder: RunFolder) -> bool:
    if records.is_supervised(folder):
        return False
    try:
        return records.status(records.read(folder)).is_active()  # unless it has ended since
    except LocalrunError:
        return False


def _soon(ask: Callable[[], T]) -> T | None:
    """The answer, once it is true; None if it isn't within a patient while."""
    deadline = time.monotonic() + _PATIENCE_S
    while not (answer := ask()):
        if time.monotonic() > deadline:
            return None
        time.sleep(0.05)
    return answer


def _disk() -> Finding:
    free = {folder: shutil.disk_usage(folder).free for folder in (settings.home(), settings.runs_dir())}
    folder, least = min(free.items(), key=lambda each: each[1])
    from localrun.model.sizes import size

    message = f"{size(least)} are free at {folder}"
    if least < _NO_SPACE:
        return Finding(FAIL, message, "free some: records and results can't be written")
    return Finding(WARN, message, "free some") if least < _LITTLE_SPACE else Finding(OK, message)


def _gpus() -> Finding:
    """Ask the driver, and see that what it has can be leased; a machine without one is well too."""
    inventory = probe.inventory()
    if inventory.problem is not None:
        return Finding(FAIL, inventory.problem, "see what nvidia-smi says; runs without GPUs go on")
    if inventory.driver is None and os.path.exists("/dev/nvidiactl"):
        return Finding(WARN, "there is an NVIDIA device, and no driver library or no leave to use it")
    if not inventory.gpus and not inventory.missing:
        return Finding(OK, "no GPUs" if inventory.driver else "no NVIDIA driver: no GPUs")
    folder = leasefolder.folder()
    wrong = [f"GPU {view.gpu.label}: {view.reason}" for view in views(inventory) if view.state == "unavailable"]
    wrong += [f"no such GPU here: {entry} (LOCALRUN_GPUS)" for entry in inventory.missing]
    wrong += [folder.notice] if folder.notice else []
    if wrong:
        return Finding(WARN, "; ".join(wrong), "see localrun gpus")
    versions = f"driver {inventory.driver}, CUDA {inventory.cuda or 'unknown'}"
    return Finding(OK, f"{types(inventory.gpus)} ({versions}), leases in {folder.path}")


def _containers() -> Finding:
    """Ask the container engine for its version, and whether it can give GPUs to containers; none is well too."""
    from localrun.engine.launchers.containerengine import ContainerEngine

    program, environment = settings.container_engine()
    engine = ContainerEngine(program, environment)
    if not os.access(program, os.X_OK):
        return Finding(OK, f"no {engine.name}: no runs with an image")
    advice = "start it, or set DOCKER_HOST or LOCALRUN_CONTAINER_ENGINE; runs without an image go on"
    try:
        version = engine.version()
        has_gpus = engine.has_gpu_runtime()
    except LocalrunError as error:
        return Finding(WARN, error.message, advice)
    message = f"{engine.name} {version} at {program}, {'with' if has_gpus else 'without'} a GPU runtime"
    if not has_gpus and probe.inventory().gpus:
        return Finding(WARN, message, "install the NVIDIA Container Toolkit to use GPUs in containers")
    return Finding(OK, message)


CHECKS: tuple[tuple[str, Callable[[], Finding]], ...] = (
    ("python", _python),
    ("shell", _shell),
    ("watches", _watches),
    ("home", _home),
    ("locks", _locks),
    ("disk", _disk),
    ("gpus", _gpus),
    ("containers", _containers),
    ("dispatcher", _dispatcher),
    ("runs", _runs),
)
