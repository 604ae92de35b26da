"""The parts of a Run that people look at: its resumptions, its lifecycle, its events, its nodes (names from mcli)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from localrun.model.moment import Moment
from localrun.model.status import RunStatus


@dataclass(frozen=True, kw_only=True)
class Resumption:
    """One attempt at a run, counted from 0. ``status`` is None while it is under way."""

    index: int
    status: RunStatus | None
    reason: str | None
    message: str | None
    exit_code: int | None
    signal: str | None
    started_at: Moment | None
    ended_at: Moment | None

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Resumption:
        """A resumption from its entry in the record."""
        return cls(
            index=entry["index"],
            status=None if entry["status"] is None else RunStatus.from_string(entry["status"]),
            reason=entry["reason"],
            message=entry["message"],
            exit_code=entry["exit_code"],
            signal=entry["signal"],
            started_at=Moment.parse(entry["started_at"]),
            ended_at=Moment.parse(entry["ended_at"]),
        )


@dataclass(frozen=True, kw_only=True)
class RunLifecycle:
    """A phase of a run: the status it had from ``started_at`` to ``ended_at`` (None: has still)."""

    resumption_index: int
    status: RunStatus
    started_at: Moment | None
    ended_at: Moment | None
    reason: str | None

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> RunLifecycle:
        """A phase from its entry in the record."""
        return cls(
            resumption_index=entry["resumption_index"],
            status=RunStatus.from_string(entry["status"]),
            started_at=Moment.parse(entry["started_at"]),
            ended_at=Moment.parse(entry["ended_at"]),
            reason=entry["reason"],
        )

    @property
    def seconds(self) -> float:
        """How long the phase lasted, or has lasted until now."""
        if self.started_at is None:
            return 0.0
        end = self.ended_at or Moment.now(self.started_at.tzinfo)
        return float((end - self.started_at).total_seconds())


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened to a run and is no change of its status."""

    time: Moment | None
    type: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Node:
    """The machine a run is on; there is one, of rank 0."""

    rank: int
    name: str
    status: RunStatus
    reason: str | None
