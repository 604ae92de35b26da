"""A ticket: a run's place in the queue, and all that scheduling needs to know of it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping

from localrun.engine.scheduling.placement import GpuNeed
from localrun.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# The fields of a request that a ticket has, too.
SCHEDULING = ("preemptible", "max_duration", "stop_grace")
_PRIORITY_RANK = {"high": 0, "auto": 1, "low": 2, "lowest": 3}


class Need(NamedTuple):
    """What a run needs to start: ``cpus`` (may be a fraction) and ``memory`` in bytes (0: whatever there is)."""

    cpus: float
    memory: int


class Dependency(NamedTuple):
    """A run that must be over before another starts: completed, or, with ``any_end``, ended whatever way."""

    name: str
    uid: str
    folder: str
    any_end: bool = False


class Ticket(NamedTuple):
    """A run's place in the queue.

    ``name`` is the file's name, ``building`` where a submission assembles the folder, ``not_before`` the end of a
    retry's delay and ``first_started`` when the first attempt began, both in seconds since the epoch. The file of a
    new ticket is the run's first record, under a second name: one file to write and to sync, and a ticket from which
    all can be told.
    """

    name: str
    uid: str
    run: str
    folder: str
    building: str
    environment: str
    need: Need
    not_before: float = 0.0
    first_started: float = 0.0
    gpus: GpuNeed = GpuNeed()
    preemptible: bool = False
    max_duration: float | None = None  # hours
    stop_grace: float = 0.0
    after: tuple[Dependency, ...] = ()
    is_container: bool = False

    @property
    def rank(self) -> int:
        """The priority as a number: the lower, the sooner."""
        return int(self.name[0])

    def limit(self) -> float | None:
        """Seconds after which the run is gone for certain, its grace included; None without a limit."""
        return None if self.max_duration is None else self.max_duration * 3600 + self.stop_grace

    def over_at(self) -> float | None:
        """When the time of a run that was started before is over, in seconds since the epoch; None without a limit."""
        if self.max_duration is None or not self.first_started:
            return None
        return self.first_started + self.max_duration * 3600

    def submission(self) -> dict[str, Any]:
        """What a record says of its ticket, besides what the run is and needs."""
        return {"folder": self.folder, "building": self.building, "environment": self.environment}

    def encode(self) -> bytes:
        """The ticket as the content of a file of its own, in the record's shape."""
        submission = {**self.submission(), "not_before": self.not_before, "first_started": self.first_started}
        scheduling = {name: getattr(self, name) for name in SCHEDULING}
        fields = {
            "uid": self.uid,
            "name": self.run,
            "request": self.need._asdict() | self.gpus.request() | scheduling | {"image": self.is_container},
            "dependencies": [each._asdict() for each in self.after],
            "submission": submission,
        }
        return json.dumps(fields).encode()

    @classmethod
    def of(cls, fields: Mapping[str, Any], name: str) -> Ticket:
        """The ticket of that name from a record, or what ``encode`` made."""
        request = fields["request"]
        return cls(
            name,
            fields["uid"],
            fields["name"],
            need=Need(request["cpus"], request["memory"]),
            gpus=GpuNeed.of(request),
            after=tuple(Dependency(**each) for each in fields.get("dependencies", ())),
            is_container=bool(request.get("image")),
            **{name: request[name] for name in SCHEDULING if name in request},
            **fields["submission"],
        )

    @classmethod
    def decode(cls, name: str, data: bytes) -> Ticket:
        """A ticket from its file's name and content; ValueError if it isn't one."""
        try:
            return cls.of(json.loads(data), name)
        except (TypeError, KeyError) as error:
            raise ValueError(f"not a ticket: {error}") from None


def ticket_name(priority: str, uid: str) -> str:
    """A new ticket's name: priority, then submit time, then the run's uid."""
    return f"{_PRIORITY_RANK[priority]}-{time.time_ns():019d}-{uid}"


def with_priority(name: str, priority: str) -> str:
    """A ticket's name at its old place among those of that priority."""
    return f"{_PRIORITY_RANK[priority]}{name[1:]}"
