"""``localrun interactive`` and ``connect``: shells on a real terminal with job control, commands in pipes."""

from __future__ import annotations

import os
import signal
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
from commandline import Terminal, block, finish, ok, refused, run, start
from support import Home, is_alive, kill, wait_until


@pytest.fixture(autouse=True)
def _bash(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/bin/bash")
    monkeypatch.setenv("HOME", str(home.place))  # its history goes there, and no .bashrc is read
    monkeypatch.setenv("INPUTRC", "/dev/null")


@pytest.fixture
def desk(home: Home) -> str:
    """An interactive run that nobody has connected to."""
    assert ok("interactive", "--detach", "--name", "desk", "--cpus", 0, "--stop-grace", 1000).text == "desk\n"
    ok("wait", "desk", "--status", "RUNNING")
    return "desk"


@pytest.fixture
def shell(desk: str, home: Home) -> Iterator[Terminal]:
    """A shell in it, at its prompt."""
    with Terminal("connect", desk) as terminal:
        prompt(terminal)
        yield terminal


def prompt(terminal: Terminal) -> None:
    """Wait until a shell heeds what is typed, with a prompt that nothing typed looks like."""
    terminal.type("PS1='[re''ady]'\n")
    terminal.read_until(r"\[ready\]")


def pid_in(path: Path) -> int:
    """The number that a process has written."""
    return int(wait_until(lambda: path.read_text().strip() if path.exists() else ""))


# -- interactive ------------------------------------------------------------------------------------------------------


def test_a_shell_and_its_end(home: Home) -> None:
    with Terminal("interactive", "1", "--name", "desk", "--cpus", "0.5") as terminal:
        terminal.read_until("localrun: run desk: leave its shell to give back what it holds")
        prompt(terminal)
        assert home.record("desk")["cmds"] == ["sleep 3600"]
        assert home.record("desk")["request"]["cpus"] == 0.5
        terminal.type("echo in:$RUN_NAME:\n")
        terminal.read_until("in:desk:")
        terminal.type("exit 7\n")
        assert terminal.end() == 7
    record = home.record("desk")
    assert (record["status"], record["reason"], record["run_type"]) == ("STOPPED", "StoppedByUser", "INTERACTIVE")
    assert record["message"].endswith(": its shell was left")


def test_a_command_in_a_pipe(home: Home) -> None:
    ended = run("interactive", "--name", "desk", "--env", "MINE=it", "--", "echo $MINE; echo err >&2; exit 3")
    assert (ended.code, ended.out, ended.err) == (3, b"it\n", b"err\n")
    assert home.status("desk") == "STOPPED"
    assert ok("interactive", "--", "echo", "$MINE", "'").out == b"$MINE '\n"


def test_when_its_time_is_over(home: Home, tmp_path: Path) -> None:
    ended = run("interactive", 4 / 3600, "--name", "desk", "--", f"echo $$ >'{tmp_path}/pid'; exec sleep 1000")
    assert ended.code == 128 + signal.SIGTERM
    assert ended.said == "localrun: run desk is COMPLETED: its time is over\n"
    assert not is_alive(pid_in(tmp_path / "pid"))


def test_its_place_in_the_queue_is_shown(home: Home, tmp_path: Path) -> None:
    go = block(tmp_path)
    with Terminal("interactive", "1", "--name", "desk", "--", "echo in") as terminal:
        terminal.read_until("queued: 1st of 1, waits for 1 CPU held by blocker")
        go.touch()
        terminal.read_until("in\r\n")
        assert terminal.end() == 0


def test_who_gives_up_waiting_leaves_nothing_in_the_queue(home: Home, tmp_path: Path) -> None:
    go = block(tmp_path)
    with Terminal("interactive", "1", "--name", "desk") as terminal:
        terminal.read_until("queued: ")
        terminal.type("\x03")
        assert terminal.end() == 130
    assert home.status("desk") == "STOPPED"
    go.touch()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_whoever_is_ended_gives_back_what_it_holds(home: Home, number: signal.Signals, tmp_path: Path) -> None:
    process = start("interactive", "--name", "desk", "--", f"echo $$ >'{tmp_path}/pid'; exec sleep 1000")
    pid = pid_in(tmp_path / "pid")
    process.send_signal(number)
    assert finish(process).code == 128 + number
    assert home.status("desk") == "STOPPED"
    assert not is_alive(pid)


def test_a_terminal_that_is_closed(home: Home) -> None:
    with Terminal("interactive", "--name", "desk") as terminal:
        prompt(terminal)
        os.close(terminal.fd)
        terminal.fd = os.open(os.devnull, os.O_RDWR)  # for its end to close
        terminal.process.wait(60)
    wait_until(lambda: home.status("desk") == "STOPPED")


def test_a_run_that_can_not_start(home: Home, tmp_path: Path) -> None:
    ended = run("interactive", "--name", "desk", "--cwd", tmp_path / "gone")
    assert ended.code == 1
    assert ended.said.startswith("localrun: run desk FAILED, FailedToStart: its working folder ")


def test_another_stops_it_while_it_waits(home: Home, tmp_path: Path) -> None:
    go = block(tmp_path)
    process = start("interactive", "--name", "desk")
    wait_until(lambda: (home.runs / "desk").exists() and home.status("desk") == "QUEUED")
    ok("stop", "run", "desk")
    ended = finish(process)
    assert ended.code == 143
    assert len([line for line in ended.said.splitlines() if "STOPPED" in line]) == 1
    go.touch()


def test_another_stops_it(home: Home) -> None:
    with Terminal("interactive", "--name", "desk", "--stop-grace", "1000") as terminal:
        prompt(terminal)
        ok("stop", "run", "desk")
        terminal.read_until("localrun: run desk is STOPPED: stopped by ")
        assert terminal.end() == 128 + signal.SIGHUP


@pytest.mark.parametrize("hours", ["0", "x", "-1", "1e9", "nan"])
def test_a_time_that_is_none_is_refused(home: Home, hours: str) -> None:
    assert "hours" in refused("interactive", hours).lower()
    assert not home.runs.exists()


# -- connect ----------------------------------------------------------------------------------------------------------


def test_the_shell_has_job_control(shell: Terminal, home: Home) -> None:
    shell.type("sleep 1000\n")
    (job,) = wait_until(lambda: [each for each in home.leftovers() if each.command == "sleep 1000"])
    shell.type("\x1a")
    shell.read_until(r"\[1\]\+  Stopped +sleep 1000")
    shell.type("fg\n")
    shell.read_until("fg\r\n(.*\r?)?sleep 1000")
    # The shell gives its job the terminal, and has it continue, after it has named it.
    wait_until(lambda: Path(f"/proc/{job.pid}/stat").read_text().rpartition(")")[2].split()[0] == "S")
    shell.type("\x03")
    shell.type("echo code:$?:\n")
    shell.read_until("code:130:")
    shell.type("exit 5\n")
    assert shell.end() == 5
    assert home.status("desk") == "RUNNING"
    ok("stop", "run", "desk")


def test_interrupts_are_for_the_command(desk: str, home: Home) -> None:
    command = "trap 'echo interrupted; exit 9' INT; echo up; while :; do sleep 0.02; done"
    with Terminal("connect", desk, "--", command) as terminal:
        terminal.read_until("up\r\n")
        terminal.type("\x03")
        terminal.read_until("interrupted\r\n")
        assert terminal.end() == 9
    ok("stop", "run", desk)


def test_a_shell_at_its_prompt_ends_at_once_and_keeps_its_history(shell: Terminal, home: Home) -> None:
    shell.type("echo remem''bered\n")
    shell.read_until("remembered")
    assert ok("stop", "run", "desk").code == 0  # the grace is 1000 seconds
    shell.read_until("localrun: run desk is STOPPED: ")
    assert shell.end() == 128 + signal.SIGHUP
    assert "echo remem''bered\n" in (home.place / ".bash_history").read_text()


def test_what_a_shell_has_started_ends_first(shell: Terminal, home: Home, tmp_path: Path) -> None:
    job = f"trap 'sleep 0.3; touch {tmp_path}/saved; exit' TERM; echo u''p; while :; do sleep 0.02; done"
    shell.type(f'bash -c "{job}"\n')
    shell.read_until(r"\rup\r\n")
    ok("stop", "run", "desk")
    assert shell.end() == 128 + signal.SIGHUP
    assert (tmp_path / "saved").exists()


def test_a_shell_that_is_killed_leaves_the_terminal_as_it_was(desk: str, home: Home, tmp_path: Path) -> None:
    with Terminal("connect", desk) as terminal:
        before = os.open(terminal_name(terminal), os.O_RDWR | os.O_NOCTTY)
        prompt(terminal)
        raw = termios.tcgetattr(before)
        assert not raw[3] & termios.ICANON  # readline
        terminal.type(f"echo $$ >'{tmp_path}/pid'\n")
        kill(pid_in(tmp_path / "pid"))
        assert terminal.process.wait(60) == 128 + signal.SIGKILL
        assert termios.tcgetattr(before)[3] & termios.ICANON
        assert termios.tcgetattr(before)[3] & termios.ECHO
        os.close(before)
    ok("stop", "run", desk)


def terminal_name(terminal: Terminal) -> str:
    """The file of the end of a terminal that the command has."""
    return os.readlink(f"/proc/{terminal.process.pid}/fd/0")


def test_a_command_in_the_pipes_of_its_caller(desk: str, home: Home) -> None:
    ended = run("connect", desk, "--", "echo $RUN_NAME; echo err >&2; exit 3")
    assert (ended.code, ended.out, ended.err) == (3, b"desk\n", b"err\n")
    assert ok("connect", home.runs / desk, "--", "echo", "$HOME", ";").out == b"$HOME ;\n"
    ok("stop", "run", desk)


def test_a_rank(home: Home) -> None:
    ok("run", "--name", "run", "--nproc-per-node", 2, "--cpus", 0, "--", "sleep 1000")
    ok("wait", "run", "--status", "RUNNING")
    assert ok("connect", "run", "--rank", 1, "--", "echo $RANK").out == b"1\n"
    assert refused("connect", "run", "--rank", 2, "--", "true") == "rank: run run has ranks 0 to 1, not 2"
    ok("stop", "run", "run")


def test_what_can_not_be_connected_to(home: Home) -> None:
    ok("run", "--name", "run", "--follow", "--", "true")
    assert refused("connect", "run", code=1) == "run run has ended: it is COMPLETED (Completed: exit code 0)"
    assert "did you mean 'run'" in refused("connect", "rum", code=1)
    assert "the following arguments are required: RUN" in refused("connect")
