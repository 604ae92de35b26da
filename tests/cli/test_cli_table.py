"""Tables: what is cut and what is left out where there is little room."""

from __future__ import annotations

import pytest

from localrun.cli import lines, table, terminal

TITLES = ("NAME", "STATUS", "AGE", "COMMAND")


def shown(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    columns: int,
    *rows: tuple[object, ...],
    expendable: tuple[str, ...] = (),
    whole: bool = False,
) -> list[str]:
    """The lines of a table on a terminal of so many columns, without colours."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr(terminal, "width", lambda: columns)
    monkeypatch.setenv("NO_COLOR", "1")
    table.print_table(TITLES, rows, expendable, whole=whole)
    return capsys.readouterr().out.splitlines()


def test_what_fits_is_whole(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(capsys, monkeypatch, 40, ("a", "QUEUED", None, "true")) == [
        "NAME  STATUS  AGE  COMMAND",
        "a     QUEUED       true",
    ]


def test_the_last_column_is_cut_first_and_names_in_their_middle(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = ("a-long-name-lr-0.01", "QUEUED", "3m", "python train.py")
    assert shown(capsys, monkeypatch, 44, row)[1] == "a-long-name-lr-0.01  QUEUED  3m   python tr…"
    assert shown(capsys, monkeypatch, 36, row)[1] == "a-long…r-0.01  QUEUED  3m   python …"


def test_columns_go_in_the_tables_order_and_then_from_the_right(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = ("a-long-name", "COMPLETED", "3m", "python train.py")

    def titles(columns: int, *expendable: str) -> list[str]:
        return shown(capsys, monkeypatch, columns, row, expendable=expendable)[0].split()

    assert titles(33) == ["NAME", "STATUS", "AGE", "COMMAND"]
    assert titles(32) == ["NAME", "STATUS", "AGE"]
    assert titles(32, "AGE") == ["NAME", "STATUS", "COMMAND"]
    assert titles(27, "AGE", "COMMAND") == ["NAME", "STATUS"]
    assert titles(17) == ["NAME"]


@pytest.mark.parametrize("columns", range(1, 60))
def test_no_line_is_too_wide(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    rows = [
        ("a" * 30, "COMPLETED", "3m", "c" * 50),
        ("名前" * 9, "FAILED", "12d", "e\u0301" * 40),
        ("x", "", None, "\n\t"),
    ]
    printed = shown(capsys, monkeypatch, columns, *rows)
    assert len(printed) == 4
    assert all(lines.width(line) <= columns for line in printed)


def test_a_column_that_is_to_be_whole_stands_beneath(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = ("a-name", "QUEUED", "3m", "1st of 3, starts after b has ended")
    assert shown(capsys, monkeypatch, 60, row, whole=True)[1] == f"a-name  QUEUED  3m   {row[-1]}"
    assert shown(capsys, monkeypatch, 30, row, row, whole=True) == [
        "NAME    STATUS  AGE",
        *("a-name  QUEUED  3m", "    1st of 3, starts after b", "    has ended") * 2,
    ]


@pytest.mark.parametrize("columns", range(2, 60))
@pytest.mark.parametrize("text", ["  one two  three four five six seven", "x" * 50, "名前 " * 9, "e\u0301" * 40, ""])
def test_wrapped_lines_fit_and_say_it_all(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int, text: str
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr(terminal, "width", lambda: columns)
    lines.print_line(text, 6)
    printed = capsys.readouterr().out
    least = 3 if "名" in text else 2  # half of it may be indent
    assert columns < least * 2 or all(lines.width(line) <= columns for line in printed.splitlines())
    assert "".join(printed.split()) == "".join(text.split())


def test_in_a_pipe_it_is_whole_and_plain(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "10")
    table.print_table(TITLES, [("a" * 99, "FAILED", "1s", "b" * 99)])
    assert capsys.readouterr().out.splitlines()[1] == f"{'a' * 99}  FAILED  1s   {'b' * 99}"
