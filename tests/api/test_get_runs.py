"""`get_runs` with every filter of mcli's pages, pages that stay in place, and lists as notebooks show them."""

from __future__ import annotations

import datetime as dt
import enum
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from support import Home, execute, submit

import localrun
from localrun import ObjectList, PaginatedObjectList, RunConfigError, RunStatus
from localrun.api.listing import find as listing
from localrun.model import record as records
from localrun.model import times

START = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)


def put(home: Home, name: str, minute: float, status: str = "COMPLETED", **fields: Any) -> None:
    """A run of the past in the runs folder."""
    created = times.iso((START + dt.timedelta(minutes=minute)).timestamp())
    request = fields.pop("request", {})
    made = records.new(uid=f"uid-{name}", name=name, run_type="COMMAND", created_at=created, request=request)
    made["lifecycle"][-1]["status"] = made["status"] = status
    made.update(fields)
    folder = home.runs / name
    folder.mkdir(parents=True)
    (folder / "config.json").write_bytes(records.encode(made))


@pytest.fixture(params=["read", "indexed"])
def past(request: pytest.FixtureRequest, home: Home, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Runs that differ in all that can be asked for; with and without an index."""
    monkeypatch.setattr(listing, "_WORTH_AN_INDEX", 0 if request.param == "indexed" else 1000)
    ended = {"end_time": times.iso((START + dt.timedelta(minutes=30)).timestamp())}
    h100 = {"gpus": 2, "gpu_type": "h100"}
    put(home, "a", 0, **ended, creator="alice", request={"gpus": 0, "cluster": "xyz"}, host="box")
    put(home, "b", 1, "FAILED", **ended, creator="bob", request=h100, host="box")
    put(home, "c", 2, "RUNNING", request={"gpus": 1}, gpus=[{"name": "NVIDIA A100-SXM4-80GB"}], creator="bob")
    put(home, "d", 3, "STOPPED", metadata={"is_hero_run": True}, run_type="FUNCTION")
    put(home, "e", 4, run_type="INTERACTIVE")
    return home


def names(**filters: Any) -> str:
    return "".join(run.name for run in localrun.get_runs(**filters))


class Gpu(enum.Enum):
    H100 = "h100"


class Cluster:
    name = "xyz"

    def __repr__(self) -> str:  # a part of the test's name
        return "Cluster"


LOCAL = START.astimezone().replace(tzinfo=None)  # the same moment as a naive local time
FILTERS: list[tuple[dict[str, Any], str]] = [
    ({}, "edcba"),
    ({"limit": None}, "edcba"),
    ({"limit": 2}, "ed"),
    ({"limit": 0}, ""),
    ({"include_details": True}, "edcba"),
    ({"cluster_names": ["xyz"]}, "a"),
    ({"cluster_names": [Cluster(), "box"]}, "ba"),
    ({"cluster_names": []}, ""),
    ({"before": START + dt.timedelta(minutes=2)}, "ba"),  # strictly
    ({"before": "2024-01-01T05:32:00+05:30"}, "ba"),
    ({"after": START + dt.timedelta(minutes=2)}, "edc"),  # that moment too
    ({"after": (START + dt.timedelta(minutes=2)).isoformat()}, "edc"),
    ({"after": LOCAL + dt.timedelta(minutes=2)}, "edc"),
    ({"after": START + dt.timedelta(minutes=1), "before": START + dt.timedelta(minutes=3)}, "cb"),
    ({"after": "2024-01-02"}, ""),
    ({"gpu_types": ["h100"]}, "b"),
    ({"gpu_types": [Gpu.H100, "a100"]}, "cb"),
    ({"gpu_types": ["none"]}, "eda"),
    ({"gpu_types": ["v100"]}, ""),
    ({"gpu_nums": [1, 2]}, "cb"),
    ({"gpu_nums": [0]}, "eda"),
    ({"statuses": ["FAILED"]}, "b"),
    ({"statuses": [RunStatus.FAILED, "completed"]}, "eba"),
    ({"statuses": ["FAILED"], "cluster_names": ["box"], "gpu_nums": [1, 2]}, "b"),
    ({"statuses": ["COMPLETED"], "limit": 1}, "e"),
    ({"user_emails": ["bob"]}, "cb"),
    ({"user_emails": ["alice@example.com"]}, "a"),
    ({"run_types": ["INTERACTIVE"]}, "e"),
    ({"run_types": ["hero_run"]}, "d"),
    ({"run_types": ["TRAINING"]}, "cba"),
    ({"run_types": ["FUNCTION", "INTERACTIVE"]}, "ed"),
    ({"ended_before": START + dt.timedelta(minutes=31)}, "ba"),
    ({"ended_before": START + dt.timedelta(minutes=30)}, ""),  # strictly
    ({"ended_after": START + dt.timedelta(minutes=30)}, "ba"),  # that moment too
    ({"ended_after": START + dt.timedelta(minutes=31)}, ""),
    ({"runs": ["[ab]", "e"]}, "eba"),
    ({"runs": ["[ab]"], "statuses": ["FAILED"]}, "b"),
    ({"runs": ["?"], "limit": 2}, "ed"),
    ({"runs": ["a", "a", "?"], "before": START + dt.timedelta(minutes=2)}, "ba"),
    ({"runs": []}, ""),
]


@pytest.mark.parametrize(("filters", "expected"), FILTERS, ids=str)
def test_filters(past: Home, filters: dict[str, Any], expected: str) -> None:
    assert names(**filters) == expected
    assert names(**filters, include_deleted=True) == expected


def test_runs_as_they_were_returned(past: Home) -> None:
    assert names(runs=localrun.get_runs(statuses=["FAILED", "COMPLETED"])) == "eba"
    assert names(runs=[localrun.get_run("c"), "a"]) == "ca"


def test_clusters_is_an_older_spelling(past: Home) -> None:
    with pytest.warns(DeprecationWarning, match="use cluster_names") as caught:
        assert names(clusters=["xyz"]) == "a"
    assert "localrun/api" not in caught[0].filename


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"statuses": "FAILED"}, "statuses: must be a list, not the text 'FAILED': put it in brackets"),
    ({"statuses": 3}, "statuses: must be a list, not 3"),
    ({"runs": "a"}, "runs: must be a list, not the text 'a'"),
    ({"cluster_names": "a"}, "cluster_names: must be a list"),
    ({"cluster_names": [3]}, "cluster_names: must be names, not 3"),
    ({"gpu_types": "h100"}, "gpu_types: must be a list"),
    ({"gpu_nums": 2}, "gpu_nums: must be a list, not 2"),
    ({"gpu_nums": ["2"]}, "gpu_nums: must be whole numbers, not '2'"),
    ({"gpu_nums": [True]}, "gpu_nums: must be whole numbers, not True"),
    ({"user_emails": "bob"}, "user_emails: must be a list"),
    ({"run_types": ["TRAINNG"]}, "run_types: 'TRAINNG' is none of INTERACTIVE, HERO_RUN, TRAINING"),
    ({"before": "yesterday"}, "before: must be a datetime or ISO 8601 text such as "),
    ({"after": 3}, "after: must be a datetime"),
    ({"ended_before": "2024-13-01"}, "ended_before: must be a datetime"),
    ({"ended_after": dt.date(2024, 1, 1)}, "ended_after: must be a datetime"),
    ({"limit": -1}, "limit: must be 0 or more, not -1"),
    ({"limit": True}, "limit: must be 0 or more, not True"),
    ({"limit": "all"}, "limit: must be 0 or more, not 'all'"),
    ({"runs": ["../up"]}, "run: '../up' has '/'"),
]


@pytest.mark.parametrize(("filters", "message"), REFUSED, ids=str)
def test_filters_of_the_wrong_kind(past: Home, filters: dict[str, Any], message: str) -> None:
    with pytest.raises(RunConfigError) as caught:
        localrun.get_runs(**filters)
    assert caught.value.message.startswith(message)
    assert caught.value.status == 400
    assert "\n" not in str(caught.value)


def test_a_status_or_name_there_is_none_of(past: Home) -> None:
    with pytest.raises(RunConfigError, match=r"^statuses: 'DONE' is none of UNKNOWN, PENDING"):
        localrun.get_runs(statuses=["DONE"])
    with pytest.raises(localrun.RunNotFoundError, match="run nowhere: there is none of that name"):
        localrun.get_runs(["nowhere"])


class TestPages:
    def test_to_the_end(self, past: Home) -> None:
        """The example of mcli's page."""
        runs = localrun.get_runs(limit=2)
        seen = []
        while True:
            try:
                seen.append("".join(run.name for run in runs))
                runs = runs.next_page()
            except StopIteration:
                break
        assert seen == ["ed", "cb", "a"]

    def test_new_and_deleted_runs_move_nothing(self, past: Home) -> None:
        first = localrun.get_runs(limit=2)
        put(past, "new", 60)
        put(past, "newer", 61)
        localrun.delete_run("d")
        second = first.next_page()
        assert [run.name for run in second] == ["c", "b"]
        assert [run.name for run in first.next_page()] == ["c", "b"]  # as often as it is asked for
        assert [run.name for run in second.next_page()] == ["a"]
        assert names(limit=3) == "newernewe"

    def test_with_filters_and_another_limit(self, past: Home) -> None:
        page = localrun.get_runs(["?"], statuses=["COMPLETED", "FAILED"], limit=1)
        assert [run.name for run in page] == ["e"]
        assert [run.name for run in page.next_page(limit=5)] == ["b", "a"]

    def test_runs_of_one_moment(self, past: Home) -> None:
        for name in ("x", "y", "z"):
            put(past, name, 70)
        page = localrun.get_runs(limit=1)
        seen = [page[0].name]
        for _ in range(3):
            page = page.next_page()
            seen.append(page[0].name)
        assert seen == ["z", "y", "x", "e"]

    def test_an_empty_page_is_the_last(self, past: Home) -> None:
        for filters in ({"statuses": ["QUEUED"]}, {"limit": 0}, {"runs": []}):
            with pytest.raises(StopIteration):
                localrun.get_runs(**filters).next_page()

    def test_pickled(self, past: Home) -> None:
        page = pickle.loads(pickle.dumps(localrun.get_runs(limit=3)))
        assert [run.name for run in page.next_page()] == ["b", "a"]

    def test_with_the_archive(self, past: Home) -> None:
        localrun.delete_run("b")
        page = localrun.get_runs(limit=3, include_deleted=True)
        assert [run.name for run in page.next_page()] == ["b", "a"]


class TestLists:
    def test_it_is_a_list(self, past: Home) -> None:
        runs = localrun.get_runs()
        assert isinstance(runs, list) and isinstance(runs, ObjectList) and isinstance(runs, PaginatedObjectList)
        assert runs == list(runs)
        assert runs.type is localrun.Run

    def test_html_is_escaped(self, past: Home) -> None:
        put(past, "f", 5, reason="<script>alert(1)</script>", request={"gpu_type": "a&b"})
        shown = localrun.get_runs(["e", "f"])._repr_html_()
        assert shown.startswith("<table>") and shown.endswith("</table>")
        assert shown.count("<tr>") == 3
        assert "<th>name</th><th>status</th><th>reason</th>" in shown
        assert "<td>f</td><td>COMPLETED</td><td>&lt;script&gt;alert(1)&lt;/script&gt;</td>" in shown
        assert "a&amp;b" in shown and "<script" not in shown
        assert "None" not in shown

    def test_an_empty_one(self, home: Home) -> None:
        assert "<th>name</th>" in localrun.get_runs()._repr_html_()
        assert localrun.stop_runs([])._repr_html_().count("<tr>") == 1

    def test_to_pandas(self, past: Home) -> None:
        pytest.importorskip("pandas")
        table = localrun.get_runs().to_pandas()
        assert list(table["name"]) == list("edcba")
        assert list(table["status"])[:2] == ["COMPLETED", "STOPPED"]
        assert list(localrun.get_runs([]).to_pandas().columns) == list(table.columns)

    def test_without_pandas(self, past: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(__import__("sys").modules, "pandas", None)
        with pytest.raises(localrun.MissingPackageError, match=r"^to_pandas: pandas is not installed") as caught:
            localrun.get_runs().to_pandas()
        assert caught.value.status == 501
        assert isinstance(caught.value, ImportError)


class TestSeedPages:
    """The examples of Deleting runs (mcli)."""

    def test_delete_failed_runs(self, past: Home) -> None:
        failed_runs = localrun.get_runs(statuses=["FAILED"], cluster_names=["box"], gpu_nums=[1, 2])
        assert [run.name for run in localrun.delete_runs(failed_runs)] == ["b"]
        assert "b" not in names()

    def test_delete_old_runs(self, past: Home) -> None:
        completed = localrun.get_runs(statuses=["COMPLETED"])
        ref_date = dt.datetime.now() - dt.timedelta(days=30)
        old_runs = [r for r in completed if "a" in r.name and r.created_at < ref_date]
        localrun.delete_runs(old_runs)
        assert names() == "edcb"

    def test_delete_by_name(self, home: Home) -> None:
        execute("delete-this-run", "true")
        assert localrun.delete_run("delete-this-run").is_deleted
        assert names() == ""


def test_active_runs_get_a_dispatcher_again(home: Home) -> None:
    submit("run", "sleep 1000")
    dispatcher = home.dispatcher()
    if dispatcher is not None:
        os.kill(dispatcher, 9)
    assert names() == "run"
    localrun.stop_run("run")


def test_nothing_is_made_by_listing(home: Home) -> None:
    assert localrun.get_runs() == []
    assert not Path(home.path).exists()
    put(home, "a", 0)
    assert names() == "a"
    assert os.listdir(home.runs) == ["a"]
    assert json.loads((home.runs / "a" / "config.json").read_bytes())["name"] == "a"
