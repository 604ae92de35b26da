"""A real docker engine of the tests' own, and images for it that no registry is needed for."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
from support import is_alive, kill, wait_until

SHELL, BASH, PYTHON, OTHER_PYTHON, BARE = "shell", "bash", "python", "other-python", "bare"
PYENV = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv", "versions")
OURS = f"{sys.version_info[0]}.{sys.version_info[1]}"


class Engine:
    """A dockerd in a folder of its own, without bridge and firewall rules: it is in no other engine's way."""

    def __init__(self, folder: Path, *, alone: bool = False, path: str | None = None) -> None:
        """``alone`` puts it into a network namespace of its own; ``path`` stands before its PATH."""
        self.folder = folder
        self.host = f"unix://{folder}/sock"
        self._alone = ["unshare", "--net"] if alone else []
        # Once and for all: a test's own variables would make it a part of that test.
        self._environment = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}" if path else os.environ["PATH"]}
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Start it, again if it was stopped or killed, and wait until it answers."""
        options = [f"--data-root={self.folder}/data", f"--exec-root={self.folder}/exec", f"-p={self.folder}/pid"]
        argv = [*self._alone, "dockerd", *options, "-H", self.host, "--bridge=none", "--iptables=false"]
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                argv, stdout=log, stderr=log, env=self._environment, start_new_session=True
            )
        wait_until(lambda: self("version", check=False).returncode == 0, 30, f"dockerd answers; see {self.folder}/log")

    def kill(self) -> None:
        """Kill it, and the containerd that it started; its containers don't notice."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)
        self._kill_containerd()

    def stop(self) -> None:
        """Ask it to end, with its containers; nothing is left of it but its folder."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(30)
        self._process = None
        self._kill_containerd()
        for line in reversed(Path("/proc/mounts").read_text().splitlines()):
            if line.split()[1].startswith(f"{self.folder}/"):
                subprocess.run(["umount", "-l", line.split()[1]], check=False, capture_output=True)

    def _kill_containerd(self) -> None:
        """It goes when its dockerd does, but not at once, and the next dockerd would take it for its own."""
        pid_file = self.folder / "exec" / "containerd" / "containerd.pid"
        if pid_file.exists():
            pid = int(pid_file.read_text())
            kill(pid)
            wait_until(lambda: not is_alive(pid), 10, "containerd is gone")
            pid_file.unlink(missing_ok=True)

    def __call__(self, *words: str, check: bool = True, **more: Any) -> subprocess.CompletedProcess[str]:
        """Have its command line do something."""
        environ = {**os.environ, "DOCKER_HOST": self.host}
        text = {} if "input" in more else {"text": True}
        return subprocess.run(["docker", *words], check=check, capture_output=True, env=environ, **text, **more)

    def containers(self) -> list[str]:
        """What there is of containers, running or not, a line each."""
        return self("ps", "-a", "--format", "{{.Names}} {{.Status}}").stdout.splitlines()

    def leftovers(self) -> list[str]:
        """Containers, volumes, and networks that the engine doesn't have from the start."""
        networks = self("network", "ls", "--format", "{{.Name}}").stdout.split()
        volumes = self("volume", "ls", "--quiet").stdout.split()
        return [*self.containers(), *volumes, *(name for name in networks if name not in ("host", "none", "bridge"))]

    def make(self, tag: str, files: dict[str, Path | bytes], *changes: str) -> None:
        """Make an image of these files, by their places in it."""
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as tar:
            temporary = tarfile.TarInfo("tmp")
            temporary.type, temporary.mode = tarfile.DIRTYPE, 0o1777
            tar.addfile(temporary)
            for place, source in files.items():
                if isinstance(source, Path):
                    tar.add(os.path.realpath(source), place.lstrip("/"))
                    continue
                link = tarfile.TarInfo(place.lstrip("/"))
                link.type, link.linkname = tarfile.SYMTYPE, source.decode()
                tar.addfile(link)
        options = [word for change in changes for word in ("-c", change)]
        self("import", *options, "-", tag, input=data.getvalue())


def missing() -> str | None:
    """Why there can be no engine here; None if there can."""
    if os.geteuid():
        return "starting a docker engine takes root"
    absent = [name for name in ("docker", "dockerd", "iptables", "busybox") if shutil.which(name) is None]
    return f"not installed: {', '.join(absent)} (docker.io, iptables, busybox-static)" if absent else None


def shell_files() -> dict[str, Path | bytes]:
    """A busybox with all its applets."""
    busybox = Path(shutil.which("busybox") or "")
    applets = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True).stdout.split()
    links: dict[str, Path | bytes] = {f"/bin/{name}": b"busybox" for name in applets if name != "busybox"}
    return {"/bin/busybox": busybox, **links}


def with_libraries(program: Path) -> dict[str, Path | bytes]:
    """A program and the libraries that it needs, each at its own place."""
    listed = subprocess.run(["ldd", program], check=False, capture_output=True, text=True).stdout
    words = [word for line in listed.splitlines() for word in line.split() if word.startswith("/")]
    return {str(program): program, **{word: Path(word) for word in words}}


def python_files(prefix: Path, version: str) -> dict[str, Path | bytes]:
    """An interpreter of that version, its library at its own place and ``/bin/python3``."""
    library, interpreter = prefix / "lib" / f"python{version}", prefix / "bin" / f"python{version}"
    files = with_libraries(interpreter)
    for path in sorted(library.rglob("*")):
        place = path.relative_to(library).parts
        if path.is_dir() or place[0] in ("test", "site-packages", "idlelib", "ensurepip", "lib2to3", "tkinter"):
            continue
        if place[0].startswith("config-") or place[-1].endswith((".a", ".opt-1.pyc", ".opt-2.pyc")):
            continue
        files[str(path)] = path
    for extension in sorted((library / "lib-dynload").glob("*.so")):
        files |= with_libraries(extension)
    listed = subprocess.run(["ldconfig", "-p"], check=True, capture_output=True, text=True).stdout
    unwinder = next(word for word in listed.split() if word.endswith("/libgcc_s.so.1"))  # loaded as threads end
    return {**files, unwinder: Path(unwinder), "/bin/python3": str(interpreter).encode()}


def add_old_python(engine: Engine) -> None:
    """Make the image with the oldest Python that there is, none of ours, in which a worker must still know itself."""
    if OTHER_PYTHON not in engine("image", "ls", "--format", "{{.Repository}}").stdout.split():
        engine.make(OTHER_PYTHON, {**shell_files(), **old_python_files()})


def old_python_files() -> dict[str, Path | bytes]:
    """A Python whose version is none of ours: one of pyenv's, or PyPy; skips where there is neither."""
    for version in ("3.6", "3.7", "3.8", "3.9", "3.10", "3.12", "3.13"):
        for prefix in sorted(PYENV.glob(f"{version}.*")):
            if version != OURS and (prefix / "bin" / f"python{version}").exists():
                return python_files(prefix, version)
    pypy = shutil.which("pypy3")
    if pypy is None:
        pytest.skip(f"no Python of another version in {PYENV}, and no pypy3")
    ask = [pypy, "-c", "import os, sys; print(os.path.dirname(os.__file__), sys.version_info[:2] != (%s, %s))"]
    ask[-1] %= sys.version_info[:2]
    library, is_other = subprocess.run(ask, check=True, capture_output=True, text=True).stdout.split()
    assert is_other == "True"
    files = with_libraries(Path(os.path.realpath(pypy)))
    return {**files, library: Path(library), "/bin/python3": os.path.realpath(pypy).encode()}


def make_images(engine: Engine) -> None:
    """Make the images that most tests use: with a shell alone, with bash, and with Python as well."""
    shell = shell_files()
    bash = {**shell, **with_libraries(Path("/bin/bash"))}
    engine.make(BARE, {"/bin/not-a-shell": Path(shutil.which("busybox") or "")})
    engine.make(SHELL, shell)
    engine.make(BASH, bash)
    engine.make(PYTHON, {**bash, **python_files(Path(sys.base_prefix), OURS)})


def engine_that(folder: Path, engine: Engine, does: str) -> str:
    """The engine's command line with something done before: ``does`` is shell, the word asked for is in $1."""
    script = folder / "docker"
    script.write_text(f"#!/bin/bash\n{does}\nexec docker -H {engine.host} \"$@\"\n")
    script.chmod(0o755)
    return str(script)


def soon(engine: Engine) -> None:
    """Wait until there is no container left in an engine; those that stay are not the next test's fault."""
    try:
        wait_until(lambda: not (left := engine.containers()) or _show(left), 15, "no container is left")
    except AssertionError:
        engine("rm", "-f", *(each.split()[0] for each in engine.containers()), check=False)
        raise


def _show(left: list[str]) -> bool:
    raise AssertionError(left)


def now() -> float:
    """The machine's clock, as /proc/uptime has it in a container, too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
