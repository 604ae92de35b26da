"""``localrun logs``: exact bytes, the right part of them, and while they come."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import commandline
from commandline import CPUS, block, ok, refused, start
from support import Home, wait_until

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00"


def lines(count: int) -> str:
    """That many numbered lines."""
    return "".join(f"{number}\n" for number in range(1, count + 1))


def test_bytes_are_exact(home: Home) -> None:
    ok("run", "--follow", "--name", "it", "--", r"printf '\377\0a\r\nb\nend'")
    assert ok("logs", "it").out == b"\377\0a\r\nb\nend"


def test_both_streams_in_order_or_one_alone(home: Home) -> None:
    command = "for i in 1 2 3; do echo out $i; sleep 0.3; echo err $i >&2; sleep 0.3; done"
    ok("run", "--follow", "--name", "it", "--", command)
    assert ok("logs", "it").text == "".join(f"out {i}\nerr {i}\n" for i in (1, 2, 3))
    assert ok("logs", "it", "--stdout").text == "out 1\nout 2\nout 3\n"
    assert ok("logs", "it", "--stderr").text == "err 1\nerr 2\nerr 3\n"
    assert ok("logs", "it", "--stderr", "--tail", 1).text == "err 3\n"
    assert ok("logs", "-f", "it", "--stderr", "--tail", 1).text == "err 3\n"


def test_tail_is_in_lines(home: Home) -> None:
    ok("run", "--follow", "--name", "it", "--", "seq 1000")
    assert ok("logs", "it", "--tail", 2).text == "999\n1000\n"
    assert ok("logs", "it", "--tail", 0).text == ""
    assert ok("logs", "it", "--tail", 5000).text == lines(1000)
    assert ok("logs", "it", "-f", "--tail", 2).text == "999\n1000\n"


def test_timestamps_and_ranks_stand_before_each_line(home: Home) -> None:
    ok("run", "--follow", "--name", "it", "--", "echo a; printf b")
    assert re.fullmatch(f"{STAMP} a\n{STAMP} b", ok("logs", "it", "--timestamps").text)
    assert ok("logs", "it", "--rank", "all").text == "[rank 0] a\n[rank 0] b\n"
    assert ok("logs", "-f", "it", "--rank", "all").text == "[rank 0] a\n[rank 0] b\n"
    assert re.fullmatch(rf"\[rank 0\] {STAMP} a\n.*\n", ok("logs", "it", "--rank", "all", "--timestamps").text)
    assert ok("logs", "it", "--rank", 0).text == ok("logs", "it", "--failed").text == "a\nb"


def test_a_failed_runs_output_is_shown_by_itself(home: Home) -> None:
    commandline.run("run", "--follow", "--name", "it", "--", "echo before; exit 1")
    assert ok("logs", "it").text == "before\n"


def test_attempts_are_chosen(home: Home) -> None:
    command = "echo $RESUMPTION_INDEX; test $RESUMPTION_INDEX = 1"
    ok("run", "--follow", "--name", "it", "--max-retries", 1, "--", command)
    assert ok("logs", "it").text == "1\n"
    assert ok("logs", "it", "--prev").text == ok("logs", "it", "--resumption", 0).text == "0\n"
    assert "0 to 1, not 2" in refused("logs", "it", "--resumption", 2)
    assert "rank: 4" in refused("logs", "it", "--rank", 4)
    ended = ok("logs", "-f", "it", "--resumption", 0)
    assert (ended.text, ended.said) == ("0\n", "")


def test_following_shows_what_comes_lines_without_an_end_too(home: Home, tmp_path: Path) -> None:
    steps = [tmp_path / name for name in ("one", "two")]
    waits = [f"until [ -e {step} ]; do sleep 0.02; done" for step in steps]
    ok("run", "--name", "it", "--", f"echo first; printf half; {waits[0]}; echo ' done'; {waits[1]}; echo last")
    process = start("logs", "-f", "it")
    assert process.stdout is not None
    assert process.stdout.read(10) == b"first\nhalf"
    steps[0].touch()
    assert process.stdout.read(6) == b" done\n"
    steps[1].touch()
    ended = commandline.finish(process)
    assert (ended.code, ended.out, ended.err) == (0, b"last\n", b"")


def test_following_goes_on_with_the_next_attempt(home: Home, tmp_path: Path) -> None:
    go = tmp_path / "go"
    command = f"echo $RESUMPTION_INDEX; until [ -e {go} ]; do sleep 0.02; done; test $RESUMPTION_INDEX = 1"
    ok("run", "--name", "it", "--max-retries", 1, "--", command)
    process = start("logs", "-f", "it")
    assert process.stdout is not None
    first = process.stdout.readline()  # it follows the first attempt
    go.touch()
    ended = commandline.finish(process)
    assert (ended.code, first + ended.out) == (0, b"0\n1\n")
    assert "tried again (resumption 1)" in ended.said


def test_following_a_queued_run_says_why_it_waits(home: Home, tmp_path: Path) -> None:
    go = block(tmp_path)
    ok("run", "--name", "it", "--cpus", CPUS, "--", "echo here")
    assert ok("logs", "it").said == "run it is QUEUED and has written nothing\n"
    process = start("logs", "-f", "it")
    assert process.stderr is not None
    assert re.fullmatch(rb"queued: 1st of 1, waits for \d+ CPUs? held by blocker\n", process.stderr.readline())
    go.touch()
    ended = commandline.finish(process)
    assert (ended.code, ended.text) == (0, "here\n")


def test_ctrl_c_leaves_the_run_alone(home: Home, tmp_path: Path) -> None:
    go = tmp_path / "go"
    ok("run", "--name", "it", "--", f"echo here; until [ -e {go} ]; do sleep 0.02; done")
    process = start("logs", "-f", "it")
    assert process.stdout is not None and process.stdout.readline() == b"here\n"
    process.send_signal(signal.SIGINT)
    ended = commandline.finish(process)
    assert ended.code == 130
    assert ended.said.startswith("localrun: run it goes on: ")
    go.touch()
    ok("wait", "it")


def test_a_reader_that_leaves_ends_it_quietly(home: Home) -> None:
    ok("run", "--follow", "--name", "it", "--", "seq 200000")
    process = start("logs", "it")
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == b"1\n"
    process.stdout.close()
    assert process.wait(timeout=60) == 141
    assert process.stderr.read() == b""
    process.stderr.close()


def test_a_run_that_never_started_says_why(home: Home, tmp_path: Path) -> None:
    commandline.run("run", "--follow", "--name", "it", "--cwd", str(tmp_path / "gone"), "--", "true")
    ended = ok("logs", "it")
    assert ended.text == ""
    assert "FailedToStart" in ended.said or ended.said == ""


def test_bad_input_is_refused(home: Home, tmp_path: Path) -> None:
    assert "there is none of that name" in refused("logs", "nowhere", code=1)
    assert "is not a run folder" in refused("logs", f"{tmp_path}/")
    assert "RUN" in refused("logs")
    assert "--tail" in refused("logs", "it", "--tail", "-5")
    assert "--rank" in refused("logs", "it", "--rank", "first")
    assert "not allowed with" in refused("logs", "it", "--stdout", "--stderr")
    assert not home.path.exists()
    ok("run", "--follow", "--name", "it", "--", "true")
    assert "--prev" in refused("logs", "it", "--prev")
    wait_until(lambda: home.status("it") == "COMPLETED")


def test_a_run_started_again_that_waits_has_no_output_yet(home: Home, tmp_path: Path) -> None:
    ok("run", "--follow", "--name", "it", "--", "echo try $RESUMPTION_INDEX")
    go = block(tmp_path)
    ok("run", "-r", "it")
    assert ok("logs", "it").text == ""
    assert ok("logs", "it", "--prev").text == "try 0\n"
    go.touch()
    ok("wait", "it", "blocker")
    assert ok("logs", "it").text == "try 1\n"


def test_all_ranks_are_followed_together(home: Home, tmp_path: Path) -> None:
    go = tmp_path / "go"
    command = f"echo one $RANK; until [ -e {go} ]; do sleep 0.02; done; echo two $RANK >&2"
    ok("run", "--name", "it", "--cpus", 0, "--nproc-per-node", 3, "--", command)
    process = start("logs", "-f", "--rank", "all", "it")
    assert process.stdout is not None
    first = {process.stdout.readline() for _ in range(3)}
    assert first == {b"[rank %d] one %d\n" % (rank, rank) for rank in range(3)}
    go.touch()
    rest = commandline.finish(process)
    assert rest.code == 0
    assert set(rest.out.splitlines()) == {b"[rank %d] two %d" % (rank, rank) for rank in range(3)}
    tail = ok("logs", "-f", "--rank", "all", "--tail", 1, "it").out.splitlines()
    assert set(tail) == {b"[rank %d] two %d" % (rank, rank) for rank in range(3)}
