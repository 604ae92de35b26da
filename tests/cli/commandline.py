"""localrun's command line as the tests use it: a process with pipes, or on a terminal of its own."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Sequence
from pathlib import Path

PROGRAM = [sys.executable, "-c", "from localrun.cli.main import main; main()"]
CPUS = len(os.sched_getaffinity(0))


class Ended:
    """A command that has ended."""

    def __init__(self, code: int, out: bytes, err: bytes) -> None:
        self.code = code
        self.out = out
        self.err = err

    @property
    def text(self) -> str:
        """What it printed."""
        return self.out.decode()

    @property
    def said(self) -> str:
        """What it said on stderr."""
        return self.err.decode()

    def __repr__(self) -> str:
        return f"<exit code {self.code}, stdout {self.out!r}, stderr {self.err!r}>"


def start(*args: object, **options: object) -> subprocess.Popen[bytes]:
    """Start a command with its output in pipes."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*PROGRAM, *map(str, args)], **{**pipes, **options})  # type: ignore[call-overload,no-any-return]


def finish(process: subprocess.Popen[bytes], timeout: float = 60) -> Ended:
    """Wait for a command's end."""
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        process.kill()
        process.wait()
    return Ended(process.returncode, out or b"", err or b"")


def run(*args: object, cwd: Path | None = None, **environment: str) -> Ended:
    """Run a command to its end."""
    return finish(start(*args, cwd=cwd, env=os.environ | environment))


def ok(*args: object, **options: object) -> Ended:
    """Run a command that must succeed."""
    ended = run(*args, **options)  # type: ignore[arg-type]
    assert ended.code == 0, ended
    return ended


def refused(*args: object, code: int = 2, **options: object) -> str:
    """Run a command that must be refused with one line on stderr; that line without its beginning."""
    ended = run(*args, **options)  # type: ignore[arg-type]
    assert ended.code == code, ended
    assert ended.out == b"", ended
    lines = ended.said.splitlines()
    assert len(lines) == 1 and lines[0].startswith("localrun: error: "), ended
    return lines[0].removeprefix("localrun: error: ")


def block(place: Path, name: str = "blocker") -> Path:
    """A run that takes all CPUs until the file that is returned is made."""
    go = place / f"go-{name}"
    ok("run", "--name", name, "--cpus", CPUS, "--", f"until [ -e '{go}' ]; do sleep 0.02; done")
    ok("wait", name, "--status", "RUNNING")
    return go


class Terminal:
    """A command on a terminal of its own; ``seen`` is all that came, as it came."""

    def __init__(
        self, *args: object, columns: int = 200, program: Sequence[str] = PROGRAM, **environment: str
    ) -> None:
        self.fd, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
        self.process = subprocess.Popen(
            [*program, *map(str, args)],
            stdin=inner, stdout=inner, stderr=inner, env=inherited | {"TERM": "xterm"} | environment,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(inner)
        self.seen = ""

    def read_until(self, pattern: str, timeout: float = 30) -> str:
        """Read until this pattern has come."""
        deadline = time.monotonic() + timeout
        while not re.search(pattern, self.seen):
            left = deadline - time.monotonic()
            if left <= 0 or not self._read(left):
                raise AssertionError(f"{pattern!r} did not come: {self.seen!r}")
        return self.seen

    def read_while(self, condition: Callable[[], bool], timeout: float = 30) -> None:
        """Read what comes until a condition holds."""
        deadline = time.monotonic() + timeout
        while not condition():
            self._read(0.02)
            assert time.monotonic() < deadline, self.seen

    def type(self, text: str) -> None:
        """Type something."""
        os.write(self.fd, text.encode())

    def end(self, timeout: float = 60) -> int:
        """Read to the end; the exit code."""
        deadline = time.monotonic() + timeout
        while self._read(max(deadline - time.monotonic(), 0)):
            pass
        return self.process.wait(timeout=max(deadline - time.monotonic(), 1))

    def close(self) -> None:
        """Have done with it, whatever became of the command."""
        self.process.kill()
        self.process.wait()
        os.close(self.fd)

    def _read(self, timeout: float) -> bool:
        if not select.select([self.fd], [], [], timeout)[0]:
            return False
        try:
            data = os.read(self.fd, 1 << 16)
        except OSError:  # EIO: nobody has the other end any more
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def kill_and_wait(pid: int) -> None:
    """``kill -9`` a process that is not our child, and wait until it is gone."""
    handle = os.pidfd_open(pid)
    os.kill(pid, 9)
    select.select([handle], [], [], 30)
    os.close(handle)
