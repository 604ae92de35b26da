"""``localrun update run``: the schedule of runs that wait, the metadata of any."""

from __future__ import annotations

from pathlib import Path

import pytest
from commandline import CPUS, block, ok, refused
from support import Home


def test_a_waiting_run_is_scheduled_anew(home: Home, tmp_path: Path) -> None:
    go = block(tmp_path)
    for name in ("first", "second"):
        ok("run", "--name", name, "--cpus", CPUS, "--", "true")
    ended = ok(
        "update", "run", "second", "--priority", "high", "--preemptible", "--max-retries", 2, "--max-duration", 1
    )
    assert (ended.text, ended.said) == ("", "second: updated\n")
    request = home.record("second")["request"]
    assert [request[field] for field in ("priority", "preemptible", "max_retries", "max_duration")] == [
        "high",
        True,
        2,
        1,
    ]
    assert "1st of 2" in ok("describe", "second").text
    ok("update", "run", "second", "--not-preemptible", "--retry-on-system-failure")
    request = home.record("second")["request"]
    assert [request[field] for field in ("preemptible", "retry_on_system_failure", "priority")] == [False, True, "high"]
    go.touch()
    ok("wait", "first", "second")


def test_metadata_are_merged_whatever_the_status(home: Home) -> None:
    ok("run", "--follow", "--name", "it", "--metadata", "a=1", "--", "true")
    ok("update", "run", "it", "--metadata", "b=[x, 2]", "--metadata", "a=2")
    assert home.record("it")["metadata"] == {"a": 2, "b": ["x", 2]}


def test_many_are_asked_about(home: Home) -> None:
    for name in ("a-1", "a-2"):
        ok("run", "--follow", "--name", name, "--", "true")
    for which in (["a-1", "a-2"], ["a-*"], ["--status", "COMPLETED"]):
        assert "give -y" in refused("update", "runs", *which, "--metadata", "k=1")
    ok("update", "runs", "a-*", "--metadata", "k=1", "-y")
    assert [home.record(name)["metadata"] for name in ("a-1", "a-2")] == [{"k": 1}, {"k": 1}]
    assert ok("update", "runs", "b-*", "--metadata", "k=1").said == "no runs to update\n"


REFUSED = {
    "nothing to change": (["it"], "nothing to change"),
    "nobody": (["--priority", "low"], "name the runs"),
    "a number that is none": (["it", "--max-retries", "many"], "--max-retries"),
    "metadata that are no pair": (["it", "--metadata", "x"], "NAME=VALUE"),
    "a field that can't change": (["it", "--gpu-memory", "1"], "--gpu-memory"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_command_lines(home: Home, case: str) -> None:
    args, expected = REFUSED[case]
    assert expected in refused("update", "run", *args)
    assert not home.path.exists()


def test_a_run_that_has_ended_or_is_not_there_stays_as_it_is(home: Home) -> None:
    ok("run", "--follow", "--name", "it", "--", "true")
    assert "can't be updated any more" in refused("update", "run", "it", "--priority", "low", code=1)
    assert "scheduling.priority" in refused("update", "run", "it", "--priority", "urgent")
    assert "did you mean 'it'?" in refused("update", "run", "itt", "--priority", "low", code=1)
    assert home.record("it")["request"]["priority"] == "auto"
