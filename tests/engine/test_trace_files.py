"""``trace_files``: which of the files that a process opens are recorded, and what of them."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import signal
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support import Home, find_processes, kill, run_python, wait_until, witness_at_work

from localrun.engine.tracing.files import audit, opened
from localrun.errors import RunConfigError
from localrun.model import catalogue
from localrun.model.folder import RunFolder

MANY = 2000  # with so many a witness looks at them
ENDED = {"status": "COMPLETED"}  # of a run's record: who asks for its artifacts waits until all are noted



@pytest.fixture
def project(home: Home, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a file that has been there for some time."""
    path = home.place / "project"
    path.mkdir()
    monkeypatch.chdir(path)
    old("old.txt")
    return path


def old(name: str, text: str = "old") -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (1e9, 1e9))
    return path


@contextmanager
def traced(home: Home, files: Any = True) -> Iterator[Callable[[str], dict[str, Any]]]:
    """Record what is opened meanwhile; what is given says afterwards what was: size and digest by place."""
    folder = RunFolder(home.place / f"run-{time.monotonic_ns()}", "uid")
    os.mkdir(folder.path)

    def noted(direction: str) -> dict[str, Any]:
        found = catalogue.of(folder, ENDED, direction)
        assert len({each["url"] for each in found}) == len(found)
        return {os.path.relpath(each["url"]): (each["size"], each["digest"]) for each in found}

    watch = audit.start(folder, files)
    try:
        yield noted
    finally:
        watch.stop()


def run_watched(home: Home, project: Path, code: str, *arguments: str, before: str = "", ok: bool = True) -> Program:
    """Run a program, in a process of its own, that is watched there from its beginning on: ``watch``."""
    imports = f"import os, sys\nsys.path.append({str(Path(__file__).parents[1])!r})\n"
    start = """
        from localrun.engine.tracing.files import audit
        from localrun.model.folder import RunFolder
        os.chdir(sys.argv[1])
        watch = audit.start(RunFolder(sys.argv[2], "uid"), True)
    """
    folder = RunFolder(home.place / "run", "uid")
    os.mkdir(folder.path)
    program = "".join(map(textwrap.dedent, (before, start, code)))
    said = run_python(imports + program, project, folder.path, *arguments, ok=ok).stdout
    return Program(folder, said)


class Program(NamedTuple):
    folder: RunFolder
    said: str

    def made(self) -> list[str]:
        """The names of the files that it made."""
        return [os.path.basename(each["url"]) for each in catalogue.of(self.folder, ENDED, "downstream")]


def known(text: str) -> tuple[int, str]:
    data = text.encode()
    return len(data), f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_what_is_read_and_what_is_made(home: Home, project: Path) -> None:
    with traced(home) as noted:
        assert Path("old.txt").read_text() == "old"
        Path("new.txt").write_text("new")
        with open(project / "appended.txt", "a") as file:
            file.write("more")
        os.close(os.open("new-too.txt", os.O_WRONLY | os.O_CREAT))
        with open(b"old.txt", "rb") as file_:
            file_.read()
    Path("later.txt").write_text("later")
    assert noted("upstream") == {"old.txt": known("old")}
    assert noted("downstream") == {
        "new.txt": known("new"), "appended.txt": known("more"), "new-too.txt": known(""),
    }  # fmt: skip


def test_what_the_program_made_before_it_read_it_was_not_given(home: Home, project: Path) -> None:
    with traced(home) as noted:
        Path("between.txt").write_text("x")
        Path("between.txt").read_text()
    assert noted("upstream") == {}
    assert noted("downstream") == {"between.txt": known("x")}


def test_what_is_read_and_then_changed_is_both(home: Home, project: Path) -> None:
    with traced(home) as noted:
        Path("old.txt").read_text()
        Path("old.txt").write_text("new")
    assert noted("upstream") == {"old.txt": (None, None)}  # it was another one before it could be looked at
    assert noted("downstream") == {"old.txt": known("new")}


def test_what_is_made_in_a_folder_moves_with_it(home: Home, project: Path) -> None:
    with traced(home) as noted:
        os.makedirs("building/deep")
        Path("building/weights").write_text("weights")
        Path("building/deep/more").write_text("more")
        Path("building-not").write_text("x")
        os.rename("building", "built")
        os.rename("built", "done")
        Path("done/last").write_text("last")
    made = {"done/weights": "weights", "done/deep/more": "more", "done/last": "last", "building-not": "x"}
    assert noted("downstream") == {name: known(text) for name, text in made.items()}


def test_what_is_opened_to_be_changed_and_is_not(home: Home, project: Path) -> None:
    changed = os.stat("old.txt").st_ctime_ns
    wait_until(lambda: time.time_ns() > changed + 50_000_000, what="the file is older than the kernel's ticks")
    with traced(home) as noted, open("old.txt", "r+") as file:
        file.read()
    assert noted("upstream") == {"old.txt": known("old")}
    assert noted("downstream") == {}


def test_what_is_moved_into_its_place(home: Home, project: Path) -> None:
    with traced(home) as noted:
        Path("new.tmp").write_text("new")
        os.replace("new.tmp", "new.txt")
        Path(".hidden").mkdir()
        Path(".hidden/other").write_text("other")
        shutil.move(".hidden/other", "other.txt")
        shutil.copy2("old.txt", "copy.txt")
    assert noted("upstream") == {"old.txt": known("old")}
    assert noted("downstream") == {"new.txt": known("new"), "other.txt": known("other"), "copy.txt": known("old")}


def test_what_is_gone_by_then(home: Home, project: Path) -> None:
    old("given.txt")
    with traced(home) as noted:
        Path("given.txt").read_text()
        os.remove("given.txt")
        Path("made.txt").write_text("x")
        os.unlink("made.txt")
        with pytest.raises(FileNotFoundError):
            Path("missing.txt").read_text()
        with pytest.raises(FileNotFoundError):
            open("no-folder/missing.txt", "w")  # noqa: SIM115
    assert noted("upstream") == {"given.txt": (None, None)}
    assert noted("downstream") == {}


def test_what_was_there_and_is_added_to_is_both(home: Home, project: Path) -> None:
    for name in ("appended.txt", "changed.txt", "replaced.txt"):
        Path(name).write_text("old ")
    time.sleep(0.05)  # so that it is seen which were made before
    with traced(home) as noted:
        for name, mode in (("appended.txt", "a"), ("changed.txt", "r+"), ("replaced.txt", "w"), ("made.txt", "a")):
            with open(name, mode) as file:
                file.write("new")
    assert noted("upstream") == {"appended.txt": (None, None), "changed.txt": (None, None)}
    assert noted("downstream") == {
        "appended.txt": known("old new"), "changed.txt": known("new "),
        "replaced.txt": known("new"), "made.txt": known("new"),
    }  # fmt: skip


def test_what_it_made_and_reads_by_another_name_was_not_given(home: Home, project: Path) -> None:
    with traced(home) as noted:
        Path("step-1").write_text("x")
        Path("latest").symlink_to("step-1")
        Path("latest").read_text()
    assert noted("upstream") == {}
    assert noted("downstream") == {"step-1": known("x")}


def test_names_in_an_open_folder_are_not_those_of_the_working_folder(home: Home, project: Path) -> None:
    """Python audits what is opened, removed and moved there without saying so."""
    Path("folder").mkdir()
    folder = os.open("folder", os.O_RDONLY)
    with traced(home) as noted:
        os.close(os.open("inside.txt", os.O_WRONLY | os.O_CREAT, dir_fd=folder))
        Path("moved.txt").write_text("x")
        Path("folder/moved.txt").write_text("y")
        os.rename("moved.txt", "gone.txt", src_dir_fd=folder, dst_dir_fd=folder)
        os.remove("gone.txt", dir_fd=folder)
    os.close(folder)
    assert noted("downstream") == {"moved.txt": known("x")}


def test_paths_are_those_of_the_working_folder_then(home: Home, project: Path) -> None:
    old("inner/file.txt", "inner")
    with traced(home) as noted:
        os.chdir("inner")
        Path("file.txt").read_text()
        with pytest.raises(FileNotFoundError):
            os.chdir("nowhere")
        Path("made.txt").write_text("x")
        os.chdir("..")
        Path("inner/made-too.txt").write_text("x")
    assert noted("upstream") == {"inner/file.txt": known("inner")}
    assert noted("downstream") == {"inner/made.txt": known("x"), "inner/made-too.txt": known("x")}


def test_links_lead_to_one_name(home: Home, project: Path) -> None:
    elsewhere = old(f"{home.place}/elsewhere/data.txt", "data")
    Path("data").symlink_to(elsewhere.parent)
    Path("link.txt").symlink_to("old.txt")
    with traced(home) as noted:
        Path("data/data.txt").read_text()
        Path("link.txt").read_text()
        elsewhere.read_text()
    assert noted("upstream") == {"../elsewhere/data.txt": known("data"), "old.txt": known("old")}


def test_only_the_users_files_count(home: Home, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import json.decoder

    monkeypatch.setenv("HOME", str(home.place / "user"))
    ours = ["file", ".hidden-file", str(home.place / "user" / "notes.txt")]
    theirs = [
        ".cache/file", "deep/.git/config", "venv/lib/python3.11/site-packages/module.py", "__pycache__/module.pyc",
        str(home.path / "queue" / "file"), str(home.place / "outside.txt"), str(home.place / "user" / ".config/file"),
    ]  # fmt: skip
    for name in ours + theirs:
        old(name)
    for name in ("config.json", ".lock", "logs/0/rank_0.out"):
        old(f"a-run/{name}")
    with traced(home) as noted:
        for name in [*ours, *theirs, "a-run/config.json", "a-run/logs/0/rank_0.out", json.decoder.__file__]:
            Path(name).read_bytes()
        Path("/proc/self/stat").read_bytes()
        with open("/dev/null", "w") as file:
            file.write("x")
        os.listdir(".")
    assert noted("upstream") == {os.path.relpath(name): known("old") for name in ours}
    assert noted("downstream") == {}


def test_a_working_folder_inside_of_what_is_left_out_counts(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    place = home.runs / "run" / "work"
    place.mkdir(parents=True)
    monkeypatch.chdir(place)
    old("data.txt")
    with traced(home) as noted:
        Path("data.txt").read_text()
    assert noted("upstream") == {"data.txt": known("old")}


def test_a_list_of_folders_narrows_it(home: Home, project: Path) -> None:
    for name in ("in/file", "in/.hidden/file", "out/file", f"{home.place}/far/file"):
        old(name)
    with traced(home, ["in", home.place / "far"]) as noted:
        for name in ("in/file", "in/.hidden/file", "out/file", f"{home.place}/far/file"):
            Path(name).read_text()
    assert noted("upstream") == {"in/file": known("old"), "../far/file": known("old")}


@pytest.mark.parametrize("files", ["data", False, 1, [1], {"data"}], ids=str)
def test_what_it_can_not_be(home: Home, project: Path, files: Any) -> None:
    with pytest.raises(RunConfigError, match="trace_files: must be True or a list of folders"):
        audit.start(RunFolder(project, "uid"), files)


def test_many_files(home: Home, project: Path) -> None:
    for number in range(MANY):
        old(f"in/{number % 10}/{number}", f"{number}")
    with traced(home) as noted:
        for number in range(MANY):
            text = Path(f"in/{number % 10}/{number}").read_text()
            Path(f"{number}.tmp").write_text(text * 2)
            os.replace(f"{number}.tmp", f"{number}.out")
        Path("7.out").write_text("again")
    assert noted("upstream") == {f"in/{number % 10}/{number}": known(f"{number}") for number in range(MANY)}
    made = {f"{number}.out": known(f"{number}" * 2) for number in range(MANY)}
    assert noted("downstream") == made | {"7.out": known("again")}
    wait_until(lambda: not find_processes(f"LOCALRUN_HOME={home.path}"))


def test_two_at_once_record_both(home: Home, project: Path) -> None:
    with traced(home) as outer:
        Path("old.txt").read_text()
        with traced(home) as inner:
            for number in range(MANY // 4):
                Path(f"{number}.out").write_text("x")
        Path("last.txt").write_text("x")
    assert len(inner("downstream")) == MANY // 4
    assert outer("upstream") == {"old.txt": known("old")}
    assert len(outer("downstream")) == MANY // 4 + 1


def test_threads_that_start_and_stop_miss_nothing(home: Home, project: Path) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def work(name: str) -> None:
        for number in range(20):
            made = {f"{name}-{number}-{each}" for each in range(30)}
            with traced(home) as noted:
                for each in made:
                    Path(each).touch()
            assert made <= noted("downstream").keys()

    try:
        with ThreadPoolExecutor() as pool:
            assert len(list(pool.map(work, "abcd"))) == 4
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.parametrize("when", ["asleep", "at work"])
def test_what_a_killed_witness_leaves_the_program_looks_at(home: Home, project: Path, when: str) -> None:
    with traced(home) as noted:
        for number in range(MANY):
            Path(f"{number}.out").write_text("x")
        if when == "at work":
            witness_at_work(home.path)
        (watch,) = audit._watches

        def has_ended() -> bool:
            for process in find_processes(f"LOCALRUN_HOME={home.path}"):
                kill(process.pid)
            return watch._witness is None or watch._witness.has_ended()

        wait_until(has_ended)
        for number in range(MANY):
            Path(f"{number}.more").write_text("x")
    assert noted("downstream") == {f"{number}.{kind}": known("x") for number in range(MANY) for kind in ("out", "more")}


def test_what_it_had_given_back_is_told_of(home: Home, project: Path) -> None:
    message = "not all files that were opened are recorded"
    with pytest.warns(RuntimeWarning, match=message), traced(home) as noted:
        for _ in range(300):
            for number in range(100):
                open(f"{number}.{'x' * 100}", "w").close()  # so that there is more than is kept
        (watch,) = audit._watches
        process = witness_at_work(home.path)
        wait_until(lambda: os.lseek(watch._opened.fd, 0, os.SEEK_DATA) > 0)
        kill(process.pid)
        wait_until(lambda: watch._witness is None or watch._witness.has_ended())
        Path("last.txt").write_text("x")
    assert noted("downstream")["last.txt"] == known("x")


def test_nobody_waits_for_a_witness_that_is_behind(home: Home, project: Path) -> None:
    with traced(home) as noted:
        for number in range(300):
            Path(f"{number}.out").write_text("x")
        process = witness_at_work(home.path)
        os.kill(process.pid, signal.SIGSTOP)
        for number in range(5000):
            Path(f"{number}.out").write_text("y")
    os.kill(process.pid, signal.SIGCONT)
    assert noted("downstream") == {f"{number}.out": known("y") for number in range(5000)}


def test_an_event_of_that_name_may_be_somebody_elses(home: Home, project: Path) -> None:
    with traced(home) as noted:
        sys.audit("open")
        sys.audit("open", "old.txt")
        Path("old.txt").read_text()
        sys.audit("open", "a", "b", "c", "d")
        for event in ("os.rename", "os.remove", "os.chdir"):
            sys.audit(event)
            sys.audit(event, "no", "such", "file", "at all", "here")
    assert noted("upstream") == {"old.txt": known("old")}


@pytest.mark.parametrize("name", ["nul\0", "lone\ud800", b"nul\0", ""], ids=ascii)
@pytest.mark.parametrize("many", [0, 600])
def test_what_no_file_can_be_called(home: Home, project: Path, name: str | bytes, many: int) -> None:
    with traced(home) as noted:
        for flags in (os.O_RDONLY, os.O_WRONLY | os.O_TRUNC):
            sys.audit("open", name, None, flags)
        sys.audit("os.rename", name, "b", -1, -1)
        sys.audit("os.remove", name, -1)
        Path("old.txt").read_text()
        for number in range(many):
            Path(f"{number}.out").write_text("x")
    assert noted("upstream") == {"old.txt": known("old")}
    assert len(noted("downstream")) == many


def test_names_of_all_kinds(home: Home, project: Path) -> None:
    names = ['"', "\\", "\n", "\x7f", "\x85", "\u2028", "ü", "🙂", "\udcff", "a" * 255, "{0}%s"]
    for name in names:
        old(name)
    with traced(home) as noted:
        for name in names:
            Path(name).read_text()
            Path(f"new{name}"[:255]).write_text("new")
    assert noted("upstream") == {name: known("old") for name in names}
    assert noted("downstream") == {f"new{name}"[:255]: known("new") for name in names}


@pytest.mark.parametrize("processes", [1, 2])  # this program, and the shell that is to start the witness
def test_no_process_is_left_for_a_witness(home: Home, processes: int) -> None:
    if os.geteuid():
        pytest.skip("needs to be root, to become a user who has no processes")
    code = """
        import os, resource, sys, warnings
        from localrun.engine.tracing.files import audit, sightings
        from localrun.model.folder import RunFolder
        warnings.simplefilter("error")
        os.chdir(sys.argv[1])
        os.setgroups([]), os.setgid(54321), os.setuid(54321)
        resource.setrlimit(resource.RLIMIT_NPROC, (int(sys.argv[2]),) * 2)
        watch = audit.start(RunFolder(sys.argv[1], "uid"), ["data"])
        for number in range(600):
            open(f"data/{number}.out", "w").close()
        watch.stop()
    """
    with tempfile.TemporaryDirectory() as place:
        os.mkdir(f"{place}/data")
        for folder in (place, f"{place}/data"):
            os.chown(folder, 54321, 54321)
        run_python(code, place, processes)
        assert len(catalogue.of(RunFolder(place, "uid"), ENDED, "downstream")) == 600


def test_a_program_that_is_killed_while_its_witness_is_behind(home: Home, project: Path) -> None:
    code = """
        import signal
        from support import witness_at_work
        process = witness_at_work(os.environ["LOCALRUN_HOME"])
        os.kill(process.pid, signal.SIGSTOP)
        for number in range(5000):
            open(f"{number}.out", "w").close()
        print(process.pid, flush=True)
        os.kill(os.getpid(), 9)
    """
    program = run_watched(home, project, code, ok=False)
    os.kill(int(program.said), signal.SIGCONT)
    assert len(program.made()) == 5000


def test_a_program_without_standard_input(home: Home, project: Path) -> None:
    code = """
        for number in range(600):
            open(f"{number}.out", "w").close()
        assert os.open(os.devnull, os.O_RDONLY) == 0
        watch.stop()
        os.fstat(0)
    """
    assert len(run_watched(home, project, code, before="os.close(0)").made()) == 600


class _Unnameable(os.PathLike[str]):
    def __fspath__(self) -> str:
        raise ZeroDivisionError


@pytest.mark.parametrize("many", [0, 600])
def test_paths_of_other_types(home: Home, project: Path, many: int) -> None:
    with traced(home) as noted:
        io.FileIO(Path("old.txt")).close()  # type: ignore[arg-type]
        io.FileIO(b"old.txt").close()  # type: ignore[arg-type]
        sys.audit("open", _Unnameable(), "r", 0)
        for number in range(many):
            Path(f"{number}.out").write_text("x")
    assert noted("upstream") == {"old.txt": known("old")}
    assert len(noted("downstream")) == many


def test_a_watch_that_ends_in_the_midst_of_an_event(home: Home, project: Path) -> None:
    class Closing(os.PathLike[str]):
        def __fspath__(self) -> str:
            generator.close()
            return "old.txt"

    def work() -> Iterator[Callable[[str], dict[str, Any]]]:
        with traced(home) as noted:
            yield noted

    generator = work()
    noted = next(generator)
    Path("out.txt").write_text("x")
    sys.audit("open", Closing(), "r", 0)
    Path("later.txt").write_text("x")
    assert noted("downstream") == {"out.txt": known("x")}


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "os._exit(0)"])
@pytest.mark.parametrize("count", [1, 1000])
def test_a_program_that_is_killed_leaves_what_it_opened(home: Home, project: Path, count: int, end: str) -> None:
    code = """
        open("old.txt").close()
        for number in range(int(sys.argv[3])):
            with open(f"{number}.out", "w") as file:
                file.write("new")
        exec(sys.argv[4])
    """
    folder = run_watched(home, project, code, count, end, ok=False).folder
    assert [each["url"] for each in catalogue.of(folder, ENDED, "upstream")] == [str(project / "old.txt")]
    assert [each["digest"] for each in catalogue.of(folder, ENDED, "downstream")] == [known("new")[1]] * count


def test_what_is_read_is_looked_at_while_the_program_goes_on(home: Home, project: Path) -> None:
    with traced(home) as noted:
        Path("old.txt").read_text()
        (watch,) = audit._watches
        wait_until(lambda: catalogue.of(watch.folder, {}, "upstream"))
        run_python("import sys; open(sys.argv[1], 'w').write('another')", project / "old.txt")
    assert noted("upstream") == {"old.txt": known("old")}


def changes() -> dict[str, Callable[[], object]]:
    """Ways to put something else into a file, which is then as old as it says."""
    return {
        "copied": lambda: shutil.copy2("older.txt", "old.txt"),
        "replaced": lambda: os.replace("older.txt", "old.txt"),
        "removed": lambda: (os.remove("old.txt"), shutil.copy2("older.txt", "old.txt")),
        "touched": lambda: (Path("old.txt").write_text("another"), os.utime("old.txt", (1e9, 1e9))),
    }


@pytest.mark.parametrize("way", changes())
@pytest.mark.parametrize("many", [0, MANY])
def test_what_is_changed_by_the_program_has_no_later_digest(home: Home, project: Path, way: str, many: int) -> None:
    old("older.txt", "older")
    time.sleep(0.05)
    with traced(home) as noted:
        Path("old.txt").read_text()
        changes()[way]()
        for number in range(many):
            Path(f"{number}.out").write_text("x")
    assert noted("upstream")["old.txt"] == (None, None)


@pytest.mark.parametrize("way", ["copied", "replaced"])
def test_what_is_changed_after_it_has_no_later_digest(home: Home, project: Path, way: str) -> None:
    old("older.txt", "older")
    with traced(home) as noted:
        for number in range(MANY):
            Path(f"{number}.out").write_text("x")
        Path("old.txt").read_text()
        for process in find_processes(f"LOCALRUN_HOME={home.path}"):
            os.kill(process.pid, signal.SIGSTOP)
    time.sleep(0.05)
    changes()[way]()
    shutil.copy2("old.txt", "7.out")
    for process in find_processes(f"LOCALRUN_HOME={home.path}"):
        os.kill(process.pid, signal.SIGCONT)
    assert noted("upstream")["old.txt"] == (None, None)
    made = noted("downstream")
    assert made.pop("7.out") == (None, None)
    assert made == {f"{number}.out": known("x") for number in range(MANY) if number != 7}


@pytest.mark.parametrize("many", [0, MANY])
def test_what_is_looked_for_in_vain_and_then_made_was_not_given(home: Home, project: Path, many: int) -> None:
    with traced(home) as noted:
        with pytest.raises(FileNotFoundError):
            open("cache.json")  # noqa: SIM115 - it isn't there
        Path("cache.json").write_text("x")
        for number in range(many):
            Path(f"{number}.out").write_text("x")
    assert noted("upstream") == {}
    assert noted("downstream")["cache.json"] == known("x")


def test_who_has_warnings_be_errors(home: Home, project: Path) -> None:
    code = """
        import warnings
        from localrun.engine.tracing.files import opened
        warnings.simplefilter("error")
        open("first.out", "w").close()
        def full(fd, size):
            raise OSError("full")
        opened._reserve = full
        for number in range(1000):
            open(f"{number}.{'x' * 100}", "w").close()
        try:
            watch.stop()
        except RuntimeWarning as warning:
            print(warning)
        print(len(os.listdir("/proc/self/fd")))
        audit.settle()
    """
    program = run_watched(home, project, code)
    assert "could be recorded" in program.said and int(program.said.split()[-1]) < 10
    assert "first.out" in program.made()


def test_a_child_writes_nothing_into_what_it_shares(home: Home, project: Path) -> None:
    before = """
        os.register_at_fork(after_in_child=lambda: open("child.out", "w").close())
    """
    code = """
        for number in range(40):
            open(f"{number}.out", "w").close()
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            for each in range(10):
                open(f"{number}-{each}.out", "w").close()
            os.waitpid(pid, 0)
        watch.stop()
    """
    made = run_watched(home, project, code, before=before).made()
    assert len(made) == 440 and "child.out" not in made


def test_several_threads_need_more_room_at_once(home: Home, project: Path) -> None:
    code = """
        import threading
        from localrun.engine.tracing.files import opened
        reserve, all_at_it = opened._reserve, threading.Barrier(4)
        def at_once(fd, size):
            reserve(fd, size)
            if size < 2 << 20:
                all_at_it.wait(60)
        opened._reserve = at_once
        def work(name):
            for number in range(6000):
                sys.audit("open", f"{name}-{number}" + "x" * 100, "r", 0)
        threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        reader, found = opened.Reader(watch._opened.fd), set()
        while events := reader.read(is_all=True):
            found |= {path[:1] + path.strip("abcdx-") for _, path, _ in events}
        print(len(found))
        watch.stop()
    """
    assert int(run_watched(home, project, code).said) == 24_000


class _Odd(str):
    def encode(self, *_: str) -> bytes:
        raise ZeroDivisionError


def test_a_text_of_a_type_of_its_own(home: Home, project: Path) -> None:
    with traced(home) as noted:
        open(_Odd("old.txt")).close()
    assert noted("upstream") == {"old.txt": known("old")}


def test_what_others_changed_before_it_could_be_looked_at(home: Home, project: Path) -> None:
    for number in range(MANY):
        old(f"{number}.txt")
    with traced(home) as noted:
        for number in range(MANY):
            Path(f"{number}.txt").read_text()
        for process in find_processes(f"LOCALRUN_HOME={home.path}"):
            os.kill(process.pid, signal.SIGSTOP)
    time.sleep(0.05)  # files' times are some milliseconds behind
    old("7.txt", "another")
    os.utime("7.txt")
    Path("8.txt").unlink()
    for process in find_processes(f"LOCALRUN_HOME={home.path}"):
        os.kill(process.pid, signal.SIGCONT)
    given = {f"{number}.txt": known("old") for number in range(MANY) if number != 8}
    assert noted("upstream") == given | {"7.txt": (None, None)}


def test_a_program_that_forks_while_it_is_watched(home: Home, project: Path) -> None:
    code = """
        import threading, time, warnings
        warnings.simplefilter("error")  # one is given where there are threads
        for number in range(40):
            open(f"{number}.out", "w").close()
            time.sleep(0.015)
            pid = os.fork()
            if pid == 0:
                os._exit(threading.active_count() - 1)
            assert os.waitpid(pid, 0)[1] == 0
        watch.stop()
    """
    assert len(run_watched(home, project, code).made()) == 40


def test_a_child_that_is_forked_as_the_witness_starts_holds_up_nobody(home: Home, project: Path) -> None:
    code = """
        import signal, threading
        watch.stop()
        children = []
        def fork():
            while not over.is_set():
                pid = os.fork()
                if pid == 0:
                    signal.pause()
                children.append(pid)
        over = threading.Event()
        thread = threading.Thread(target=fork)
        thread.start()
        try:
            for number in range(10):
                folder = RunFolder(f"{sys.argv[2]}-{number}", "uid")
                os.mkdir(folder.path)
                watch = audit.start(folder, True)
                for each in range(600):
                    open(f"{each}.out", "w").close()
                watch.stop()
        finally:
            over.set()
            thread.join()
        audit.settle()
        for pid in children:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
    """
    folder = run_watched(home, project, code).folder
    for number in range(10):
        assert len(catalogue.of(RunFolder(f"{folder.path}-{number}"), ENDED, "downstream")) == 600


def test_the_witness_keeps_no_descriptor_of_the_programs(home: Home, project: Path) -> None:
    before = """
        for fd in range(3, 10):
            os.dup2(os.open(os.devnull, os.O_RDONLY), fd, inheritable=True)
    """
    code = """
        from support import wait_until, witness_at_work
        for number in range(300):
            open(f"{number}.out", "w").close()
        process = witness_at_work(os.environ["LOCALRUN_HOME"])
        wait_until(lambda: sorted(os.listdir(f"/proc/{process.pid}/fd")) == ["0", "1", "2", "3", "4"])
        assert os.readlink(f"/proc/{process.pid}/fd/3").endswith("artifacts.jsonl")
        watch.stop()
    """
    assert len(run_watched(home, project, code, before=before).made()) == 300


@pytest.mark.parametrize("full", [False, True])
def test_more_than_there_is_room_for_at_first(home: Home, project: Path, full: bool) -> None:
    """Nor is a program killed where there is no more room, as who writes into a mapped file on a full disk is."""
    count = 12_000
    code = """
        import errno, warnings
        from localrun.engine.tracing.files import opened
        warnings.simplefilter("error")
        if sys.argv[3] == "True":
            def full(fd, size):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            opened._reserve = full
        for number in range(int(sys.argv[4])):
            open(f"{number}.{'x' * 80}", "w").close()
        try:
            watch.stop()
        except RuntimeWarning as warning:
            print(warning)
    """
    program = run_watched(home, project, code, full, count)
    if full:
        assert "not all files that were opened could be recorded" in program.said
        assert "No space left on device" in program.said
        assert 500 < len(program.made()) < count
    else:
        assert len(program.made()) == count


def test_the_end_of_what_is_written_may_be_seen_before_it_is_all_there(tmp_path: Path) -> None:
    records = [b"0\0/one\0\0\0;", b"0\0/two\0\0\0;", b"moved\0/a\0;b\0\0;"]
    with open(tmp_path / "log", "w+b", buffering=0) as log:
        log.truncate(1 << 20)
        reader = opened.Reader(log.fileno())
        assert reader.read(is_all=False) == []
        os.pwrite(log.fileno(), records[0] + records[1][:2] + bytes(4) + records[1][6:] + records[2], 0)
        assert reader.read(is_all=False) == [("0", "/one", "")]
        os.pwrite(log.fileno(), records[1], len(records[0]))
        assert reader.read(is_all=False) == [("0", "/two", ""), ("moved", "/a", ";b")]
        assert reader.read(is_all=True) == []


def test_a_forked_child_is_none_of_its_business(home: Home, project: Path) -> None:
    code = """
        for number in range(300):
            open(f"{number}.out", "w").close()
        child = os.fork()
        for number in range(300):
            open(f"{number}.{'child' if child == 0 else 'parent'}", "w").close()
        if child == 0:
            watch.stop()
            os._exit(0)
        os.waitpid(child, 0)
        try:
            os.wait()  # nobody waits for what is not the program's own
        except ChildProcessError:
            pass
        watch.stop()
    """
    made = {f"{number}.{kind}" for number in range(300) for kind in ("out", "parent")}
    assert {*run_watched(home, project, code).made()} == made


def test_libraries_open_files_too(home: Home, project: Path) -> None:
    import numpy

    with traced(home) as noted:
        numpy.save("array.npy", numpy.arange(10))
        numpy.savez("arrays.npz", a=numpy.arange(10))
    assert noted("downstream").keys() == {"array.npy", "arrays.npz"}
    with traced(home) as noted:
        numpy.load("array.npy")
        numpy.load("arrays.npz")["a"]
    assert noted("upstream").keys() == {"array.npy", "arrays.npz"}


def test_large_files(home: Home, project: Path) -> None:
    size = 65 << 20
    with open("given.bin", "wb") as file:
        file.truncate(size)
    os.utime("given.bin", (1e9, 1e9))
    home.path.mkdir()
    with traced(home) as noted:
        open("given.bin", "rb").close()
        with open("made.bin", "wb") as file:
            file.truncate(size)
    digest = f"sha256:{hashlib.sha256(bytes(size)).hexdigest()}"
    assert noted("upstream") == {"given.bin": (size, None)}  # it is not read again for that
    assert noted("downstream") == {"made.bin": (size, digest)}
    with traced(home) as noted:
        open("made.bin", "rb").close()
    assert noted("upstream") == {"made.bin": (size, digest)}


def test_nothing_is_recorded_when_nobody_watches(home: Home, project: Path) -> None:
    with traced(home):
        pass
    assert audit._watches == ()
    Path("file").write_text("x")
