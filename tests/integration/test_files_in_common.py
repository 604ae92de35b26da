"""Files that one run has as the run before had them: one file on disk, and yet each run's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support import Home, run_python, submit

import localrun
from localrun.engine.dispatch import alike


def _provenance(run: localrun.Run) -> Path:
    return Path(run.path, "provenance.json")


class TestProvenance:
    def test_is_written_once(self, home: Home) -> None:
        first, second = _provenance(submit("first", "true")), _provenance(submit("second", "true"))
        assert first.samefile(second)
        assert first.stat().st_mode & 0o777 == 0o600

    def test_lives_as_long_as_its_own_run(self, home: Home) -> None:
        first, second = submit("first", "true"), submit("second", "true")
        before = second.provenance
        first.wait(30)
        localrun.delete_run("first")
        assert second.provenance == before
        assert submit("third", "true").provenance["argv"] == before["argv"]

    def test_what_was_changed_is_not_passed_on(self, home: Home) -> None:
        first = submit("first", "true")
        gathered = _provenance(first).read_bytes()
        with _provenance(first).open("ab") as file:
            file.write(b"\n")
        second = submit("second", "true")
        assert _provenance(second).read_bytes() == gathered
        assert _provenance(submit("third", "true")).samefile(_provenance(second))

    def test_nor_is_what_was_put_in_its_place(self, home: Home, tmp_path: Path) -> None:
        first = submit("first", "true")
        gathered = _provenance(first).read_bytes()
        (tmp_path / "other").write_bytes(gathered.replace(b"schema", b"scheme"))
        os.replace(tmp_path / "other", _provenance(first))
        assert _provenance(submit("second", "true")).read_bytes() == gathered

    def test_a_link_in_its_place_is_not_followed(self, home: Home, tmp_path: Path) -> None:
        first = submit("first", "true")
        gathered = _provenance(first).read_bytes()
        os.rename(_provenance(first), tmp_path / "there")
        _provenance(first).symlink_to(tmp_path / "there")
        second = _provenance(submit("second", "true"))
        assert not second.is_symlink()
        assert second.read_bytes() == gathered

    def test_another_file_system(self, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        first = submit("first", "true")

        def refuse(*_: object, **__: object) -> None:
            raise OSError(18, "Invalid cross-device link")

        monkeypatch.setattr(os, "link", refuse)
        second = submit("second", "true")
        assert not _provenance(first).samefile(_provenance(second))
        assert _provenance(first).read_bytes() == _provenance(second).read_bytes()
        assert second.wait(30).exit_code == 0

    def test_of_another_place_is_another(self, home: Home, tmp_path: Path) -> None:
        first, second = submit("first", "true"), submit("second", "true", cwd=str(tmp_path))
        assert second.provenance["cwd"] == str(tmp_path)
        assert first.provenance["cwd"] != str(tmp_path)


def test_a_function_called_with_many_arguments_is_stored_once(home: Home) -> None:
    said = run_python("""
        import os
        import localrun

        @localrun.function
        def double(x):
            return 2 * x

        runs = [double.run(x) for x in range(3)]
        print([run.result(timeout=60) for run in runs])
        print(len({os.stat(f"{run.path}/function.pkl").st_ino for run in runs}))
        print(len({os.stat(f"{run.path}/inputs.pkl").st_ino for run in runs}))
    """)
    assert said.stdout.split("\n")[:3] == ["[0, 2, 4]", "1", "3"]


def test_large_contents_are_not_kept_in_mind(tmp_path: Path) -> None:
    path, data = tmp_path / "a" / "inputs.pkl", bytes((1 << 20) + 1)
    path.parent.mkdir()
    path.write_bytes(data)
    with path.open("rb") as file:
        alike.remember(str(path), data, file.fileno())
    assert not alike.link(str(tmp_path / "inputs.pkl"), data)
