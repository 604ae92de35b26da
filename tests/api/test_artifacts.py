"""Files that are opened in a run, and what is noted of them: `localrun.open`, its journal, and known digests."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import Home, start_python, submit

import localrun
from localrun.api.tracing import current, opening
from localrun.model import artifacts, catalogue, digests
from localrun.model.folder import RunFolder

LARGE = digests.SMALL + (1 << 20)


class Block:
    """A run's folder by hand, of which the code of a test is part."""

    def __init__(self, path: Path) -> None:
        path.mkdir()
        self.folder = RunFolder(path, "uid-of-the-block")

    def noted(self, direction: str) -> list[dict[str, Any]]:
        return catalogue.of(self.folder, {}, direction)

    @property
    def read(self) -> list[dict[str, Any]]:
        return self.noted("upstream")

    @property
    def made(self) -> list[dict[str, Any]]:
        return self.noted("downstream")


@pytest.fixture
def block(home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Block]:
    monkeypatch.chdir(home.place)
    home.path.mkdir()
    block = Block(home.place / "block")
    current.enter(block.folder)
    yield block
    current.leave(block.folder)


def sha(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def facts(noted: list[dict[str, Any]]) -> list[tuple[str, int | None, str | None]]:
    return [(os.path.basename(each["url"]), each["size"], each["digest"]) for each in noted]


# -- what is noted ----------------------------------------------------------------------------------------------------


def test_what_is_read_is_upstream(block: Block, home: Home) -> None:
    Path("table.csv").write_text("a,b\n1,2\n")
    with localrun.open("table.csv") as file:
        assert file.read() == "a,b\n1,2\n"
    (artifact,) = block.read
    assert artifact.pop("time").endswith("+00:00")
    assert artifact == {
        "kind": "file", "url": str(home.place / "table.csv"), "size": 8, "digest": sha(b"a,b\n1,2\n"),
    }  # fmt: skip
    assert block.made == []


def test_what_is_written_is_downstream_when_it_is_closed(block: Block) -> None:
    file = localrun.open("out.txt", "w")
    file.write("made")
    assert block.made == []
    file.close()
    assert facts(block.made) == [("out.txt", 4, sha(b"made"))]
    assert block.read == []


@pytest.mark.parametrize(
    ("mode", "there", "read", "made"),
    [
        ("r", "old", "old", None),
        ("rb", "old", "old", None),
        ("w", "old", None, "new"),
        ("wb", None, None, "new"),
        ("x", None, None, "new"),
        ("a", "old", "old", "oldnew"),
        ("a", None, None, "new"),
        ("r+", "older", "older", "newer"),
        ("w+", "old", None, "new"),
        ("rb+", "old", "old", "new"),
    ],
)
def test_each_mode(block: Block, mode: str, there: str | None, read: str | None, made: str | None) -> None:
    if there is not None:
        Path("file").write_text(there)
    with localrun.open("file", mode) as file:
        if made is None:
            file.read()
        else:
            file.write(b"new" if "b" in mode else "new")
    assert facts(block.read) == ([] if read is None else [("file", len(read), sha(read.encode()))])
    assert facts(block.made) == ([] if made is None else [("file", len(made), sha(made.encode()))])


def test_a_file_that_is_opened_to_be_changed_and_is_not(block: Block) -> None:
    Path("file").write_text("old")
    with localrun.open("file", "r+") as file:
        file.read()
    assert block.made == []


def test_an_empty_file_is_made_too(block: Block) -> None:
    localrun.open("empty", "w").close()
    assert facts(block.made) == [("empty", 0, sha(b""))]


def test_a_file_whose_writer_raised_is_there(block: Block) -> None:
    with pytest.raises(ZeroDivisionError), localrun.open("half", "w") as file:
        file.write("half")
        1 / 0  # noqa: B018
    assert facts(block.made) == [("half", 4, sha(b"half"))]


def test_a_file_that_is_left_open_is_noted_as_the_block_ends(block: Block) -> None:
    file = localrun.open("open", "w")
    file.write("so far")
    opening.left(block.folder)
    assert facts(block.made) == [("open", 6, None)]
    current.leave(block.folder)
    file.close()
    assert facts(block.made) == [("open", 6, None)]


def test_nothing_is_noted_outside_of_runs(home: Home) -> None:
    path = home.place / "file"
    with localrun.open(path, "w") as file:
        file.write("x")
    with localrun.open(path, "rb") as file, open(path, "rb") as plain:
        assert type(file) is type(plain)
    assert not home.path.exists()


def test_what_can_not_be_opened_raises_as_open_does(block: Block) -> None:
    with pytest.raises(FileNotFoundError):
        localrun.open("missing")
    with pytest.raises(ValueError, match="invalid mode"):
        localrun.open("file", "z")
    with pytest.raises(ValueError, match="binary mode doesn't take an encoding"):
        localrun.open("file", "wb", encoding="utf-8")
    assert block.read == block.made == []


def test_what_is_no_file_is_not_noted(block: Block) -> None:
    with localrun.open("/dev/null", "w") as file:
        file.write("x")
    read, write = os.pipe()
    os.close(write)
    with localrun.open(read) as file:
        assert file.read() == ""
    assert block.read == block.made == []


def test_links_lead_to_one_name(block: Block, home: Home) -> None:
    (home.place / "real").mkdir()
    (home.place / "link").symlink_to("real")
    Path("real/file").write_text("x")
    for name in ("real/file", "link/file", "./link/../real/file", f"file://{home.place}/link/file"):
        with localrun.open(name) as file:
            file.read()
    assert facts(block.read) == [("file", 1, sha(b"x"))]
    assert block.read[0]["url"] == str(home.place / "real" / "file")


def test_a_file_that_changes_while_it_is_read_has_no_digest(block: Block) -> None:
    Path("file").write_bytes(bytes(2 << 20))
    with localrun.open("file", "rb") as file:
        file.read()
        Path("file").write_text("other")
    assert facts(block.read) == [("file", 2 << 20, None)]


def test_every_version_is_noted_once(block: Block) -> None:
    for text in ("one", "two", "one", "two"):
        Path("file").write_text(text)
        with localrun.open("file") as file:
            file.read()
    assert facts(block.read) == [("file", 3, sha(b"one")), ("file", 3, sha(b"two"))]


def test_both_of_two_nested_runs_note_it(block: Block, home: Home) -> None:
    inner = Block(home.place / "inner")
    inner.folder.uid = "inner"
    current.enter(inner.folder)
    with localrun.open("out", "w") as file:
        file.write("x")
    current.leave(inner.folder)
    with localrun.open("later", "w") as file:
        file.write("x")
    assert [name for name, *_ in facts(inner.made)] == ["out"]
    assert [name for name, *_ in facts(block.made)] == ["out", "later"]


# -- as a file --------------------------------------------------------------------------------------------------------


def test_text_is_read_as_open_reads_it(block: Block) -> None:
    data = "first\r\nzweite Zeile: ä\n\nlast".encode("latin-1") + b"\nmore" * 300_000
    Path("text").write_bytes(data)
    options: dict[str, Any]
    for options in ({}, {"newline": ""}, {"newline": "\n"}, {"buffering": 1}, {"buffering": 16}):
        with (
            localrun.open("text", encoding="latin-1", **options) as ours,
            open("text", encoding="latin-1", **options) as plain,
        ):
            assert ours.readline() == plain.readline()
            assert list(ours) == list(plain)
            assert (ours.mode, ours.name, ours.encoding) == (plain.mode, plain.name, plain.encoding)
            assert ours.seek(3) == plain.seek(3)
            assert (ours.read(4), ours.tell()) == (plain.read(4), plain.tell())
    assert facts(block.read) == [("text", len(data), sha(data))]


def test_bytes_are_read_as_open_reads_them(block: Block) -> None:
    data = os.urandom(2_000_000) + b"\nlast line"
    Path("bytes").write_bytes(data)
    for buffering in (-1, 0, 1000):
        with localrun.open("bytes", "rb", buffering) as file:
            assert file.read(10) == data[:10]
            assert file.seek(-9, os.SEEK_END) == len(data) - 9
            assert file.read() == data[-9:]
            file.seek(0)
            buffer = bytearray(len(data))
            while count := file.readinto(memoryview(buffer)[file.tell() :]):
                assert count
            assert bytes(buffer) == data
            file.seek(0)
            assert b"".join(file) == data
            assert (file.readable(), file.writable(), file.closed, file.name) == (True, False, False, "bytes")
        assert file.closed
    assert facts(block.read) == [("bytes", len(data), sha(data))]


def test_libraries_take_it(block: Block) -> None:
    import numpy

    array = numpy.arange(200_000)
    with localrun.open("array.npy", "wb") as file:
        numpy.save(file, array)
    with localrun.open("array.npy", "rb") as file:
        assert (numpy.load(file) == array).all()
    with localrun.open("arrays.npz", "wb") as file:
        numpy.savez(file, array=array)
    with localrun.open("arrays.npz", "rb") as file:
        assert (numpy.load(file)["array"] == array).all()
    with localrun.open("value.pkl", "wb") as file:
        pickle.dump({"array": array}, file)
    with localrun.open("value.pkl", "rb") as file:
        assert (pickle.load(file)["array"] == array).all()
    with localrun.open("value.json", "w") as file:
        json.dump([1, 2], file)
    with localrun.open("value.json") as file:
        assert json.load(file) == [1, 2]
    with localrun.open("table.csv", "w", newline="") as file:
        csv.writer(file).writerows([[1, 2], [3, 4]])
    with localrun.open("table.csv", newline="") as file:
        assert list(csv.reader(file)) == [["1", "2"], ["3", "4"]]
    whole = [(name, Path(name).stat().st_size, sha(Path(name).read_bytes())) for name, *_ in facts(block.made)]
    assert len(whole) == 5
    assert facts(block.made) == whole
    assert facts(block.read) == whole


def test_what_others_write_through_the_descriptor_counts(block: Block) -> None:
    import subprocess

    with localrun.open("out", "w") as file:
        file.write("ours\n")
        file.flush()
        subprocess.run(["echo", "theirs"], stdout=file, check=True)
    assert facts(block.made) == [("out", 12, sha(b"ours\ntheirs\n"))]


def test_what_is_written_over_and_cut_off_counts(block: Block) -> None:
    with localrun.open("out", "wb") as file:
        file.write(b"0123456789")
        file.seek(0)
        file.write(b"ab")
        file.truncate(4)
    assert facts(block.made) == [("out", 4, sha(b"ab23"))]


def test_threads_note_what_they_open(block: Block) -> None:
    def write(number: int) -> None:
        for each in range(20):
            with localrun.open(f"{number}-{each}", "w") as file:
                file.write("x" * number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(facts(block.made)) == sorted(
        (f"{number}-{each}", number, sha(b"x" * number)) for number in range(8) for each in range(20)
    )


# -- URLs -------------------------------------------------------------------------------------------------------------


def test_files_elsewhere(block: Block) -> None:
    with localrun.open("memory://folder/there.txt", "w") as file:
        file.write("über")
    with localrun.open("memory://folder/there.txt") as file:
        assert list(file) == ["über"]
    data = "über".encode()
    for found in (block.made, block.read):
        assert [(each["url"], each["size"], each["digest"]) for each in found] == [
            ("memory://folder/there.txt", 5, sha(data))
        ]


def test_fsspecs_options_and_a_compressed_file(block: Block, home: Home) -> None:
    with localrun.open("text.gz", "wt", compression="gzip") as file:
        file.write("x" * 1000)
    with localrun.open("text.gz", compression="gzip") as file:
        assert file.read() == "x" * 1000
    data = Path("text.gz").read_bytes()
    assert facts(block.made) == facts(block.read) == [("text.gz", len(data), sha(data))]
    assert block.made[0]["url"] == str(home.place / "text.gz")


def test_no_secret_of_a_url_is_kept(block: Block) -> None:
    url = "memory://ann:hunter2@host/file?part=1&X-Amz-Signature=hunter2&token=hunter2"
    with localrun.open(url, "w") as file:
        file.write("x")
    assert block.made[0]["url"] == "memory://ann@host/file?part=1&X-Amz-Signature=***&token=***"
    assert "hunter2" not in Path(block.folder.artifacts).read_text()


# -- large files ------------------------------------------------------------------------------------------------------


def test_a_large_file_is_digested_as_it_is_read(block: Block) -> None:
    import numpy

    numpy.save("large.npy", numpy.zeros(LARGE // 8))
    with localrun.open("large.npy", "rb") as file:
        numpy.load(file)
    assert facts(block.read)[0][2] == sha(Path("large.npy").read_bytes())


def test_a_large_file_is_not_read_for_its_digest_alone(block: Block) -> None:
    Path("large").write_bytes(bytes(LARGE))
    os.utime("large", (1e9, 1e9))

    def read_its_end() -> str | None:
        with localrun.open("large", "rb") as file:
            file.seek(-1, os.SEEK_END)
            file.read()
        return facts(block.read)[-1][2]

    assert read_its_end() is None
    with localrun.open("large", "rb") as file:
        while file.read(1 << 20):
            pass
    Path(block.folder.artifacts).unlink()
    assert read_its_end() == sha(bytes(LARGE))  # it is known by now


def test_a_large_file_that_was_made_is_known(block: Block) -> None:
    with localrun.open("large", "wb") as file:
        file.seek(LARGE)
        file.write(b"x")
    digest = sha(bytes(LARGE) + b"x")
    assert facts(block.made) == [("large", LARGE + 1, digest)]
    assert digests.known(os.stat("large")) == digest


# -- known digests ----------------------------------------------------------------------------------------------------


@pytest.fixture
def settled(home: Home) -> Path:
    """A file of a size that is worth keeping its digest, which nobody has changed for long."""
    home.path.mkdir(exist_ok=True)
    path = home.place / "settled"
    path.write_bytes(bytes(2 << 20))
    os.utime(path, (1e9, 1e9))
    return path


def test_a_digest_is_kept_until_the_file_changes(settled: Path) -> None:
    assert digests.known(settled.stat()) is None
    _, digest = digests.of_file(str(settled))
    assert digest == sha(bytes(2 << 20))
    assert digests.known(settled.stat()) == digest
    settled.write_bytes(bytes(2 << 20))
    assert digests.known(settled.stat()) is None


def test_a_file_that_has_just_changed_is_not_kept(settled: Path) -> None:
    os.utime(settled)
    digests.of_file(str(settled))
    assert digests.known(settled.stat()) is None


@pytest.mark.parametrize("how", ["garbage", "empty", "a folder", "a link", "one bit"])
def test_a_damaged_table_is_as_none(settled: Path, home: Home, how: str) -> None:
    table = home.path / "digests"
    digest = digests.of_file(str(settled))[1]
    data = bytearray(table.read_bytes())
    table.unlink()
    if how == "a folder":
        table.mkdir()
    elif how == "a link":
        (home.place / "other").write_bytes(data)
        table.symlink_to(home.place / "other")
    elif how == "one bit":
        data[next(place for place, byte in enumerate(data) if byte) + 30] ^= 1
        table.write_bytes(data)
    else:
        table.write_bytes(os.urandom(1 << 20) if how == "garbage" else b"")
    assert digests.known(settled.stat()) is None
    assert digests.of_file(str(settled))[1] == digest
    if how in ("garbage", "empty", "one bit"):
        assert digests.known(settled.stat()) == digest


# -- the journal ------------------------------------------------------------------------------------------------------


def test_a_journal_that_was_cut_short_or_damaged_gives_what_is_whole(block: Block) -> None:
    artifacts.append(block.folder, [("upstream", artifacts.file("/a", 1, None, "now"))])
    with open(block.folder.artifacts, "ab") as journal:
        journal.write(b'[["upstream", {"kind": "fi')
    artifacts.append(block.folder, [("upstream", artifacts.file("/b", 1, None, "now"))])
    with open(block.folder.artifacts, "ab") as journal:
        journal.write(b'12\n[[]]\n[["sideways", {}]]\n{"a": 1}\n[["upstream", {"kind": []}]]\n\xff\n' + b"[" * 10_000)
    artifacts.append(block.folder, [("upstream", artifacts.file("/c", 1, None, "now"))])
    assert [each["url"] for each in block.read] == ["/a", "/b", "/c"]


def test_processes_append_at_once(block: Block) -> None:
    code = """
        import sys
        from localrun.model import artifacts
        from localrun.model.folder import RunFolder
        for number in range(200):
            made = artifacts.file(f"/{sys.argv[2]}-{number}", 1, None, "now")
            artifacts.append(RunFolder(sys.argv[1]), [("downstream", made)])
    """
    children = [start_python(code, block.folder.path, number) for number in range(4)]
    for child in children:
        child.communicate()
    assert len(block.made) == 800


def test_a_run_whose_folder_is_gone_notes_nothing(block: Block) -> None:
    os.rmdir(block.folder.path)
    with localrun.open("out", "w") as file:
        file.write("x")
    os.mkdir(block.folder.path)
    assert block.made == []


def test_what_can_not_be_noted_is_told_and_no_error(block: Block) -> None:
    os.mkdir(block.folder.artifacts)
    with pytest.warns(RuntimeWarning, match="out could not be noted"), localrun.open("out", "w") as file:
        file.write("x")
    assert Path("out").read_text() == "x"
    os.rmdir(block.folder.artifacts)


# -- log_artifact -----------------------------------------------------------------------------------------------------


def test_files_that_are_logged_from_outside(home: Home) -> None:
    folder = home.place / "checkpoint"
    (folder / "deep").mkdir(parents=True)
    (folder / "weights").write_text("w")
    (folder / "deep" / "more").write_text("more")
    (folder / "link").symlink_to("weights")
    run = submit("run", "sleep 1000")
    run.log_artifact(folder)
    run.log_artifact(folder / "weights")
    assert sorted(facts(run.downstream_artifacts)) == [("more", 4, sha(b"more")), ("weights", 1, sha(b"w"))]
    with pytest.raises(FileNotFoundError):
        run.log_artifact(home.place / "missing")
    for nothing, why in (("", "is empty"), ("memory://x", "is a URL"), (5, "must be a path"), ("a\0b", "null byte")):
        with pytest.raises(localrun.RunConfigError, match=why):
            run.log_artifact(nothing)  # type: ignore[arg-type]
    run.stop().wait()
    assert sorted(facts(home.record("run")["downstream_artifacts"])) == sorted(facts(run.downstream_artifacts))
    assert len(run.downstream_artifacts) == 2
    assert not os.path.exists(RunFolder(run.path).artifacts)
    before = Path(run.path, "config.json").read_bytes()
    with pytest.raises(localrun.IllegalTransitionError, match="has ended"):
        run.log_artifact(folder / "weights")
    assert Path(run.path, "config.json").read_bytes() == before
    assert not os.path.exists(RunFolder(run.path).artifacts)
