"""Two streams become one log: what grew first comes first, and no byte is lost, whatever the notes say."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from localrun.api.output.logs import MergedReader, StreamReader, text
from localrun.engine.supervision.logclock import INTERVAL_S, LogClock
from localrun.engine.watch import Watch
from localrun.model.folder import RunFolder


class Logs:
    """A rank's logs, written by hand."""

    def __init__(self, path: Path) -> None:
        self.folder = RunFolder(path)
        os.makedirs(self.folder.resumption_logs(0))
        self.out, self.err = Path(self.folder.stdout(0, 0)), Path(self.folder.stderr(0, 0))
        self.times = Path(self.folder.log_times(0, 0))
        self.out.touch()
        self.err.touch()

    def write(self, stream: str, data: bytes) -> None:
        with open({"o": self.out, "e": self.err}[stream], "ab") as file:
            file.write(data)

    def note(self, at: float, stream: str) -> None:
        size = {"o": self.out, "e": self.err}[stream].stat().st_size
        with open(self.times, "a") as file:
            file.write(f"{at:.3f} {stream} {size}\n")

    def merged(self) -> bytes:
        return text(self.folder, 0, 0)

    def clock(self) -> LogClock:
        clock = LogClock(Watch())
        clock.add(str(self.out), str(self.err), str(self.times))
        return clock


@pytest.fixture
def logs(tmp_path: Path) -> Logs:
    return Logs(tmp_path / "run")


class TestMergedReader:
    def test_lines_come_in_the_order_in_which_their_growth_was_noted(self, logs: Logs) -> None:
        for at, stream, data in [(1, "o", b"a\n"), (2, "e", b"b\n"), (3, "o", b"c\nd\n"), (4, "e", b"e\n")]:
            logs.write(stream, data)
            logs.note(at, stream)
        assert logs.merged() == b"a\nb\nc\nd\ne\n"
        lines = list(MergedReader(logs.folder, 0, 0).rest())
        assert [(line.data, line.time) for line in lines] == [
            (b"a\n", 1.0), (b"b\n", 2.0), (b"c\n", 3.0), (b"d\n", 3.0), (b"e\n", 4.0),
        ]  # fmt: skip

    def test_a_line_is_never_torn_by_the_other_stream(self, logs: Logs) -> None:
        for at, stream, data in [(1, "o", b"half "), (2, "e", b"other\n"), (3, "o", b"done\n")]:
            logs.write(stream, data)
            logs.note(at, stream)
        assert logs.merged() == b"other\nhalf done\n"

    def test_what_nobody_noted_comes_last_and_whole(self, logs: Logs) -> None:
        logs.write("o", b"noted\n")
        logs.note(1, "o")
        logs.write("o", b"late\nno end")
        logs.write("e", b"\xff\x00\r\n")
        assert logs.merged() == b"noted\nlate\nno end\xff\x00\r\n"

    @pytest.mark.parametrize("data", [b"", b"\n", b"a", b"a\r\nb\rc\n", bytes(range(256)) * 3, b"x" * 3_000_000])
    def test_bytes_are_exact(self, logs: Logs, data: bytes) -> None:
        logs.write("o", data)
        logs.note(1, "o")
        assert logs.merged() == data
        assert b"".join(StreamReader(str(logs.out)).read_all()) == data

    def test_it_goes_on_from_where_it_was(self, logs: Logs) -> None:
        reader = MergedReader(logs.folder, 0, 0)
        assert list(reader.lines()) == []
        assert not reader.has_news()
        logs.write("o", b"one\ntw")
        logs.note(1, "o")
        assert reader.has_news()
        assert [line.data for line in reader.lines()] == [b"one\n"]
        assert not reader.has_news()
        assert [line.data for line in reader.unfinished()] == [b"tw"]
        logs.write("o", b"o\nthree")
        logs.note(2, "o")
        assert [line.data for line in reader.lines()] == [b"o\n"]
        assert [line.data for line in reader.rest()] == [b"three"]
        assert [line.data for line in reader.rest()] == []

    def test_a_note_that_is_being_written_is_waited_for(self, logs: Logs) -> None:
        logs.write("o", b"one\n")
        logs.times.write_text("1.000 o")
        reader = MergedReader(logs.folder, 0, 0)
        assert list(reader.lines()) == []
        logs.times.write_text("1.000 o 4\n")
        assert [line.data for line in reader.lines()] == [b"one\n"]

    @pytest.mark.parametrize(
        "damage", ["1.000 o1.500 o 4\n", "1.000\n", "\n", "much too many words\n", "1.0 o nine\n", "1.0 o 400\n"]
    )
    def test_notes_that_a_full_disk_cut_short_cost_times_and_no_bytes(self, logs: Logs, damage: str) -> None:
        logs.write("o", b"one\n")
        logs.times.write_text(damage)
        logs.write("e", b"two\n")
        logs.note(2, "e")
        assert sorted(logs.merged().splitlines()) == [b"one", b"two"]

    def test_logs_that_are_not_there_are_empty(self, tmp_path: Path) -> None:
        assert text(RunFolder(tmp_path), 0, 0) == b""


class TestLogClock:
    def test_growth_is_noted_in_its_order(self, logs: Logs) -> None:
        clock = logs.clock()
        for i in range(20):
            logs.write("oe"[i % 2], b"%d\n" % i)
            clock.sample()
        clock.stop()
        assert logs.merged().split() == [b"%d" % i for i in range(20)]

    def test_within_one_look_the_stream_that_grew_first_comes_first(self, logs: Logs) -> None:
        for i in range(10):
            clock = logs.clock()
            first, second = ("e", "o") if i % 2 else ("o", "e")
            logs.write(first, b"%d first\n" % i)
            logs.write(second, b"%d second\n" % i)
            clock.stop()
        wanted = [b"%d %s" % (i, which) for i in range(10) for which in (b"first", b"second")]
        assert logs.merged().splitlines() == wanted

    def test_times_are_those_of_the_growth(self, logs: Logs) -> None:
        clock = logs.clock()
        before = time.time()
        logs.write("o", b"now\n")
        clock.sample()
        after = time.time()
        clock.stop()
        (line,) = MergedReader(logs.folder, 0, 0).rest()
        assert line.time is not None
        assert before - 0.001 <= line.time <= after + 0.001

    def test_what_was_there_before_is_included(self, logs: Logs) -> None:
        logs.write("o", b"early\n")
        clock = logs.clock()
        assert len(logs.times.read_text().splitlines()) == 1
        clock.stop()

    def test_a_quiet_log_is_not_noted(self, logs: Logs) -> None:
        clock = logs.clock()
        for _ in range(5):
            clock.sample()
        clock.stop()
        assert not logs.times.exists()

    def test_a_growing_log_is_looked_at_in_intervals(self, logs: Logs) -> None:
        clock = logs.clock()
        assert clock.due(time.monotonic()) <= 0
        clock.sample()
        assert 0 < clock.due(time.monotonic()) <= INTERVAL_S
        clock.stop()

    def test_a_log_that_is_removed_or_unnotable_disturbs_nobody(self, logs: Logs) -> None:
        clock = logs.clock()
        logs.times.mkdir()  # where the notes are to be written
        logs.write("o", b"x\n")
        clock.sample()
        logs.err.unlink()
        clock.sample()
        clock.stop()
        logs.times.rmdir()
        assert logs.merged() == b"x\n"

    def test_without_inotify_it_still_notes(self, logs: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
        watch = Watch()
        assert watch.fd is not None
        os.close(watch.fd)
        watch.fd = None
        clock = LogClock(watch)
        clock.add(str(logs.out), str(logs.err), str(logs.times))
        logs.write("o", b"a\n")
        clock.sample()
        logs.write("e", b"b\n")
        clock.sample()
        clock.stop()
        assert logs.merged() == b"a\nb\n"
