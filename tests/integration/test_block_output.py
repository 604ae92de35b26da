"""The output of traced blocks: complete, in order, still shown, and the streams the process's own again afterwards."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import pty
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support import Home, find_processes, kill, run_python, start_python, wait_until

import localrun

KINDS = """
    import ctypes, os, subprocess, sys, localrun
    libc = ctypes.CDLL(None)
    def all_kinds(word):
        print(word, "print")
        subprocess.run(["echo", word, "subprocess"])
        libc.printf(f"{word} printf\\n".encode())
        os.system(f"echo {word} system")
        os.write(1, f"{word} write\\n".encode())
        sys.stdout.buffer.write(f"{word} buffer\\n".encode()); sys.stdout.flush()
"""
LINES = ["print", "subprocess", "printf", "system", "write", "buffer"]


def lines(word: str) -> str:
    return "".join(f"{word} {kind}\n" for kind in LINES)


@pytest.mark.parametrize("to", ["pipe", "terminal", "file"])
def test_every_kind_of_output_in_order(home: Home, to: str, tmp_path: Path) -> None:
    script = (
        KINDS
        + """
    all_kinds("before")
    with localrun.run(name="outer"):
        all_kinds("outer")
        with localrun.run(name="inner"):
            all_kinds("inner")
        all_kinds("again")
    all_kinds("after")
    """
    )
    everything = "".join(map(lines, ("before", "outer", "inner", "again", "after")))
    if to == "file":
        with open(tmp_path / "shown", "wb") as file:
            run_python(script, stdout=file)
        shown = (tmp_path / "shown").read_text()
    elif to == "pipe":
        # Outside of a block a pipe is written to in blocks, as always: only what is inside is in order.
        shown = run_python(script.replace('all_kinds("before")', "").replace('all_kinds("after")', "")).stdout
        everything = "".join(map(lines, ("outer", "inner", "again")))
    else:
        shown = on_a_terminal(script)
    if to == "file":
        shown = shown[shown.index("outer print") : shown.index("again buffer")]
        everything = everything[everything.index("outer print") : everything.index("again buffer")]
    assert shown == everything
    assert localrun.get_run("outer").stdout() == "".join(map(lines, ("outer", "inner", "again")))
    assert localrun.get_run("inner").stdout() == lines("inner")


def on_a_terminal(script: str) -> str:
    parent, child = pty.openpty()
    try:
        process = start_python(script, stdin=child, stdout=child, stderr=child)
    finally:
        os.close(child)
    shown = b""
    with contextlib.suppress(OSError):
        while data := os.read(parent, 1 << 16):
            shown += data
    os.close(parent)
    assert process.wait(60) == 0
    return shown.decode().replace("\r\n", "\n")


def test_stdout_and_stderr_are_merged_in_order(home: Home) -> None:
    script = """
        import sys, localrun
        with localrun.run(name="x"):
            for number in range(50):
                print("out", number)
                print("err", number, file=sys.stderr)
    """
    run_python(script)
    expected = "".join(f"out {number}\nerr {number}\n" for number in range(50))
    assert localrun.get_run("x").logs() == expected
    inside = """
        import sys, localrun
        with localrun.run(name="y"):
            print("first"); print("second", file=sys.stderr)
            with localrun.run(name="z"):
                for number in range(20):
                    print("out", number)
                    print("err", number, file=sys.stderr)
    """
    run_python(inside)
    assert localrun.get_run("z").logs() == "".join(f"out {number}\nerr {number}\n" for number in range(20))


@pytest.mark.parametrize("pause", [0, 0.002])  # over before the process is up that shows it, and long after
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("tee", [False, True])  # then a thread of the program shows it
def test_what_is_shown_in_one_place_is_in_order(home: Home, pause: float, nested: bool, tee: bool) -> None:
    code = """
        import contextlib, localrun, sys, time
        class Tee:
            def __init__(self, stream):
                self._stream = stream
            def write(self, text):
                return self._stream.write(text)
            def __getattr__(self, name):
                return getattr(self._stream, name)
        if sys.argv[3] == "True":
            sys.stdout = Tee(sys.stdout)
        inner = localrun.run(name="inner") if sys.argv[2] == "True" else contextlib.nullcontext()
        with localrun.run(name="run"), inner:
            for number in range(200):
                print("out", number, flush=True)
                print("err", number, file=sys.stderr)
                time.sleep(float(sys.argv[1]))
            print("out without a line's end", end="")
    """
    shown = run_python(code, pause, nested, tee, stderr=subprocess.STDOUT).stdout
    written = "".join(f"{stream} {number}\n" for number in range(200) for stream in ("out", "err"))
    assert shown == f"{written}out without a line's end"


@pytest.mark.parametrize("pause", [0, 0.002])
def test_other_programs_output_is_between_the_lines_that_it_came_between(home: Home, pause: float) -> None:
    code = """
        import localrun, os, sys, time
        with localrun.run(name="run"):
            for number in range(100):
                print("out", number)
                os.write(2, f"not Python's {number}\\n".encode())
                print("out again", number)
                os.write(1, f"nor this {number}\\n".encode())
                print("err", number, file=sys.stderr)
                time.sleep(float(sys.argv[1]))
    """
    shown = run_python(code, pause, stderr=subprocess.STDOUT).stdout
    kinds = "out", "not Python's", "out again", "nor this", "err"
    written = "".join(f"{kind} {number}\n" for number in range(100) for kind in kinds)
    assert shown == written
    assert localrun.get_run("run").logs() == written


def test_what_others_write_to_one_stream_follows_what_was_written_to_the_other(home: Home) -> None:
    code = """
        import localrun, os, sys
        with localrun.run(name="x"):
            print("1 out"); print("2 err", file=sys.stderr); os.write(1, b"3 out\\n"); print("4 out")
            print("5 err", file=sys.stderr); os.write(1, b"6 out\\n"); print("7 err", file=sys.stderr)
    """
    shown = run_python(code, stderr=subprocess.STDOUT).stdout
    assert shown.split("\n") == ["1 out", "2 err", "3 out", "4 out", "5 err", "6 out", "7 err", ""]


def test_a_stream_that_somebody_patched_in_the_block_can_be_written_to_after_it(home: Home) -> None:
    code = """
        import io, sys, localrun
        sys.stdout = io.StringIO()
        with localrun.run(name="x"):
            inner = sys.stdout.write
            sys.stdout.write = lambda text: inner(text)
        print("after")
        sys.stderr.write(sys.stdout.getvalue())
    """
    assert run_python(code, stderr=subprocess.PIPE).stderr == "after\n"


def test_output_is_shown_while_the_block_is_open(home: Home) -> None:
    script = """
        import os, sys, localrun
        with localrun.run(name="x"):
            print("first", flush=True)
            sys.stdin.readline()
            os.system("echo second")
            sys.stdin.readline()
    """
    child = start_python(script, stdin=subprocess.PIPE)
    assert child.stdout is not None and child.stdin is not None
    assert child.stdout.readline() == "first\n"
    child.stdin.write("\n")
    child.stdin.flush()
    assert child.stdout.readline() == "second\n"
    child.communicate("\n", timeout=30)
    assert child.returncode == 0


def test_a_prompt_is_shown(home: Home) -> None:
    child = start_python(
        "import localrun\nwith localrun.run(name='x'): print('got', input('name? '))", stdin=subprocess.PIPE
    )
    assert child.stdout is not None and child.stdin is not None
    assert child.stdout.read(6) == "name? "
    assert child.communicate("me\n", timeout=30)[0] == "got me\n"


def test_the_streams_are_the_same_as_before(home: Home) -> None:
    script = """
        import os, sys, localrun
        def streams():
            return [
                (os.fstat(fd).st_dev, os.fstat(fd).st_ino, os.get_inheritable(fd)) for fd in (1, 2)
            ] + [(s, s.line_buffering, s.write_through, vars(s).get("write")) for s in (sys.stdout, sys.stderr)]
        before = streams()
        with localrun.run(name="x"):
            assert streams()[:2] != before[:2]
        assert streams() == before
        try:
            with localrun.run(name="x"), localrun.run(name="y"):
                raise SystemExit(3)
        except SystemExit:
            pass
        assert streams() == before
    """
    run_python(script)


def test_blocks_that_overlap_each_have_what_was_written_meanwhile(home: Home) -> None:
    runs = {name: localrun.run(name=name) for name in "abcd"}
    for step in ("+a", "+b", "+c", "-a", "+d", "-b", "-d", "-c"):
        run = runs[step[1]]
        run.__enter__() if step[0] == "+" else run.__exit__(None, None, None)
        print("python", step)
        os.system(f"echo system {step}; echo error {step} >&2")
    expected = {
        "a": ["+a", "+b", "+c"],
        "b": ["+b", "+c", "-a", "+d"],
        "c": ["+c", "-a", "+d", "-b", "-d"],
        "d": ["+d", "-b"],
    }
    for name, steps in expected.items():
        assert runs[name].stdout() == "".join(f"python {step}\nsystem {step}\n" for step in steps), name
        assert runs[name].stderr() == "".join(f"error {step}\n" for step in steps), name
        both = runs[name].stdout() + runs[name].stderr()
        assert sorted(runs[name].logs()) == sorted(both.splitlines(keepends=True))


def test_no_line_of_a_thread_is_lost_while_blocks_come_and_go(home: Home) -> None:
    """A writer's lines lie in the outermost block or, when that ends first, in those that go on."""
    script = """
        import os, threading, localrun
        stop = threading.Event()
        count = 0
        def write():
            global count
            while not stop.is_set():
                os.write(1, b"%d\\n" % count)
                count += 1
        thread = threading.Thread(target=write)
        last = localrun.run(name="n0")
        last.__enter__()
        thread.start()
        for number in range(1, 30):
            run = localrun.run(name=f"n{number}")
            run.__enter__()
            last.__exit__(None, None, None)
            last = run
        stop.set()
        thread.join()
        last.__exit__(None, None, None)
        print("total", count)
    """
    shown = run_python(script).stdout.splitlines()
    assert sorted(map(int, shown[:-1])) == list(range(int(shown[-1].split()[1])))
    seen = set()
    for number in range(30):
        seen |= set(localrun.get_run(f"n{number}").stdout().splitlines())
    assert seen == set(shown[:-1])


def test_loggers_that_hold_the_stream_since_before(home: Home, capfd: pytest.CaptureFixture[str]) -> None:
    handler = logging.StreamHandler(sys.stderr)
    logger = logging.getLogger("localrun.test")
    logger.addHandler(handler)
    try:
        with localrun.run(name="x") as run:
            logger.warning("careful")
    finally:
        logger.removeHandler(handler)
    assert run.stderr() == capfd.readouterr().err == "careful\n"


def test_under_capsys_and_redirection(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    with localrun.run(name="x") as run:
        print("hello", "world")
        assert capsys.readouterr().out == "hello world\n"  # shown at once
    elsewhere = io.StringIO()
    with contextlib.redirect_stdout(elsewhere), localrun.run(name="y") as other:
        print("into a text")
        os.system("echo into the descriptor")
        print("text again")
    assert elsewhere.getvalue() == "into a text\ntext again\n"
    assert run.stdout() == "hello world\n"
    assert other.stdout() == "into a text\ninto the descriptor\ntext again\n"
    assert "write" not in vars(sys.stdout) and "write" not in vars(elsewhere)


def test_under_capfd(home: Home, capfd: pytest.CaptureFixture[str]) -> None:
    with localrun.run(name="x") as run:
        print("one")
        subprocess.run(["echo", "two"], check=True)
        print("three")
    assert capfd.readouterr().out == run.stdout() == "one\ntwo\nthree\n"


@pytest.mark.parametrize("capture", ["fd", "sys", "no", "tee-sys"])
def test_inside_a_test_of_the_users(home: Home, capture: str, tmp_path: Path) -> None:
    (tmp_path / "test_theirs.py").write_text(
        "import subprocess, localrun\n"
        "def test_it():\n"
        "    with localrun.run(name='x'):\n"
        "        print('one'); subprocess.run(['echo', 'two']); print('three'); subprocess.run(['echo', 'four'])\n"
        "    assert 0\n"
    )
    argv = [sys.executable, "-m", "pytest", "-q", f"--capture={capture}", "-p", "no:cacheprovider", "test_theirs.py"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert localrun.get_run("x").stdout() == "one\ntwo\nthree\nfour\n"
    assert all(done.stdout.count(word) >= 1 for word in ("one\n", "two\n", "three\n", "four\n")), done.stdout
    assert "1 failed" in done.stdout


def test_a_gigantic_line_and_much_output(home: Home) -> None:
    script = """
        import os, localrun
        with localrun.run(name="x"):
            print("x" * 5_000_000)
            for number in range(20_000):
                print(number)
            os.system("head -c 5000000 /dev/zero")
    """
    child = start_python(script, text=False)
    shown, _ = child.communicate(timeout=120)
    folder = Path(localrun.get_run("x").path)
    assert shown == (folder / "logs/0/rank_0.out").read_bytes()
    assert len(shown) == 5_000_001 + sum(len(f"{number}\n") for number in range(20_000)) + 5_000_000


def test_nobody_reads_what_is_shown(home: Home) -> None:
    script = """
        import sys, time, localrun
        with localrun.run(name="x"):
            for number in range(1000):
                print("line", number)
        print("done", file=sys.stderr)
    """
    child = start_python(script)
    assert child.stdout is not None and child.stderr is not None
    child.stdout.close()
    assert child.stderr.read() == "done\n"
    assert child.wait(60) == 0
    assert localrun.get_run("x").stdout().endswith("line 999\n")


@pytest.mark.parametrize("closed", ["1", "2", "1, 2"])
def test_closed_streams(home: Home, closed: str) -> None:
    script = f"""
        import os, sys, localrun
        for fd in ({closed},):
            os.close(fd)
        with localrun.run(name="x"):
            os.system("echo out; echo err >&2")
        for fd in ({closed},):
            try:
                os.fstat(fd)
            except OSError:
                continue
            os._exit(5)
        os._exit(0)
    """
    child = start_python(script)
    child.communicate(timeout=60)
    assert child.returncode == 0
    run = localrun.get_run("x")
    assert (run.stdout(), run.stderr()) == ("out\n", "err\n")
    assert Path(run.path, ".lock").read_bytes() == b""  # nothing of ours took a stream's place


def test_whoever_shows_is_killed(home: Home) -> None:
    script = """
        import sys, localrun
        with localrun.run(name="x"):
            print("first", flush=True)
            sys.stdin.readline()
            print("second", flush=True)
        print("after")
    """
    child = start_python(script, stdin=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == "first\n"
    (shower,) = [seen for seen in find_processes(f"LOCALRUN_HOME={home.path}") if seen.pid != child.pid]
    kill(shower.pid)
    assert child.communicate("\n", timeout=30)[0] == "second\nafter\n"
    assert localrun.get_run("x").stdout() == "first\nsecond\n"


def test_no_process_stays_behind(home: Home) -> None:
    script = """
        import os, localrun
        with localrun.run(name="x"):
            print("hello", flush=True)
            {}
    """
    for end in ("pass", "os._exit(1)", "os.kill(os.getpid(), 9)"):
        child = start_python(script.format(end))
        assert child.communicate(timeout=60)[0] == "hello\n"
        wait_until(lambda: not find_processes(f"LOCALRUN_HOME={home.path}"), what="nothing left")
        assert localrun.get_run("x").status.is_terminal()


def test_inside_a_function_run(home: Home) -> None:
    @localrun.function(cpus=1)
    def work() -> str:
        with localrun.run(name="inner"):
            print("inside")
        print("outside")
        return "value"

    assert work(run_name="outer") == "value"
    assert localrun.get_run("outer").stdout() == "inside\noutside\n"
    assert localrun.get_run("inner").stdout() == "inside\n"


def test_a_function_run_inside_a_block(home: Home) -> None:
    @localrun.function
    def work() -> int:
        print("in the run")
        return 3

    with localrun.run(name="block") as run:
        assert work(run_name="inner") == 3
        print("after it")
    assert run.stdout() == "in the run\nafter it\n"


def test_another_process_follows_a_block(home: Home) -> None:
    script = """
        import sys, localrun
        with localrun.run(name="x"):
            print("first", flush=True)
            sys.stdin.readline()
            print("second", flush=True)
    """
    child = start_python(script, stdin=subprocess.PIPE)
    wait_until(lambda: (home.path / "runs/x/config.json").exists())
    followed = []
    for line in localrun.follow_run_logs("x"):
        followed.append(line)
        if line == "first\n":
            assert child.stdin is not None
            child.stdin.write("\n")
            child.stdin.flush()
    child.communicate(timeout=30)
    assert followed == ["first\n", "second\n"]


def test_timestamps(home: Home) -> None:
    before = time.time()
    with localrun.run(name="x"):
        print("one", flush=True)
    line = localrun.get_run_logs("x", timestamps=True)
    from datetime import datetime

    stamp, text = line.split(" ", 1)
    assert text == "one\n" and before - 1 <= datetime.fromisoformat(stamp).timestamp() <= time.time() + 1


def test_printing_threads_do_not_tear_lines(home: Home) -> None:
    script = """
        import threading, localrun
        def work(number):
            for _ in range(200):
                print(f"thread-{number}")
        with localrun.run(name="x"):
            threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
            for t in threads: t.start()
            for t in threads: t.join()
    """
    run_python(script)
    out = localrun.get_run("x").stdout()
    assert len(out) == 4 * 200 * len("thread-0\n")
    assert threading.active_count() >= 1
