"""Real servers of a test's own, on free ports of the loopback: SFTP (OpenSSH) and S3 (moto)."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest
from support import wait_until

KEYS = {"AWS_ACCESS_KEY_ID": "test-key-id", "AWS_SECRET_ACCESS_KEY": "S3cret-of-the-tests"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Server:
    """A server process, with all that it starts."""

    def __init__(self, argv: Callable[[int], list[str]], log: Path) -> None:
        self._argv = argv
        self._log = log
        self.port = free_port()
        self.start()

    def start(self) -> None:
        """Start it, on the port that it had before."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("LOCALRUN_")}
        with open(self._log, "ab") as log:
            self.process = subprocess.Popen(
                self._argv(self.port), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=inherited
            )
        wait_until(lambda: answers(self.port), 60, f"{self._argv(0)[0]} is up; its log: {self._log}")

    def _all(self) -> list[psutil.Process]:
        ours = psutil.Process(self.process.pid)
        return [*ours.children(recursive=True), ours]

    def kill(self) -> None:
        """End it at once, its connections too."""
        if self.process.poll() is None:
            for each in reversed(self._all()):
                each.kill()
            self.process.wait()

    def signal(self, number: int) -> None:
        """Signal it, and those behind its connections."""
        for each in self._all():
            os.kill(each.pid, number)


class Sftp(Server):
    """An SFTP server; ``config`` is the ``data_config`` for it."""

    def __init__(self, place: Path) -> None:
        sshd = shutil.which("sshd") or "/usr/sbin/sshd"
        if not os.access(sshd, os.X_OK):
            pytest.skip("sshd is not installed: apt install openssh-server")
        if find_spec("paramiko") is None:
            pytest.skip("paramiko is not installed")
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", exist_ok=True)
        for key in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / key)], check=True)
        config = place / "sshd.conf"
        config.write_text(
            f"ListenAddress 127.0.0.1\nHostKey {place}/host\nAuthorizedKeysFile {place}/user.pub\n"
            f"PidFile {place}/pid\nUsePAM no\nStrictModes no\nSubsystem sftp internal-sftp\n"
            "PermitRootLogin yes\nMaxStartups 100\n"
        )
        self.place = place
        super().__init__(lambda port: [sshd, "-D", "-e", "-f", str(config), "-p", str(port)], place / "log")

    @property
    def config(self) -> dict[str, Any]:
        user = psutil.Process().username()
        return {"host": "127.0.0.1", "port": self.port, "username": user, "key_filename": str(self.place / "user")}


class S3(Server):
    """An S3 server with one bucket, named ``bucket``; ``config`` is the ``data_config`` for it."""

    def __init__(self, place: Path) -> None:
        for package in ("moto", "flask", "s3fs"):
            if find_spec(package) is None:
                pytest.skip(f"{package} is not installed: pip install 'moto[server]' s3fs")
        program = str(Path(sys.executable).parent / "moto_server")
        super().__init__(lambda port: [program, "-H", "127.0.0.1", "-p", str(port)], place / "log")

    def make_bucket(self) -> None:
        """Make the bucket: a server that was started again has forgotten it."""
        import s3fs

        s3fs.S3FileSystem(**self.config, skip_instance_cache=True).mkdir("bucket")

    @property
    def config(self) -> dict[str, Any]:
        return {
            "key": KEYS["AWS_ACCESS_KEY_ID"],
            "secret": KEYS["AWS_SECRET_ACCESS_KEY"],
            "endpoint_url": f"http://127.0.0.1:{self.port}",
            "client_kwargs": {"region_name": "eu-central-1"},
        }


def end(server: Server) -> None:
    """Kill a server, also one that is stopped."""
    if server.process.poll() is None:
        server.signal(signal.SIGCONT)
    server.kill()
