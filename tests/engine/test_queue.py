"""Tickets: their order, their moves, what is kept beside them."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest
from support import Home, is_locked

from localrun import files
from localrun.engine import queue as queues
from localrun.engine.queue import ACTIVE, ENDING, SUBMITTING, WAITING, Queue
from localrun.engine.scheduling.ticket import Need, Ticket, ticket_name
from localrun.errors import SystemFailureError

HOSTILE = ["home", "a 'b\" c", "new\nline", "ünï-日本", "raw\udcff"]


@pytest.fixture
def queue(home: Home) -> Queue:
    queue = Queue(home.path)
    queue.prepare()
    return queue


def ticket(queue: Queue, name: str, *, cpus: float = 1, state: str = WAITING, folder: str = "") -> Ticket:
    """A ticket in that state, with a folder of its own to lock."""
    folder = folder or f"{queue.home}/runs/{name}"
    os.makedirs(folder, exist_ok=True)
    made = Ticket(name, name[-4:], f"run-{name}", folder, "", "key", Need(cpus, 0))
    Path(queue.path(state, name)).write_bytes(made.encode())
    return made


def test_names_sort_by_priority_and_then_by_time() -> None:
    wanted = []
    for priority in ("high", "auto", "low", "lowest"):
        wanted += [ticket_name(priority, f"{i:016x}") for i in reversed(range(3))]
    shuffled = random.Random(1).sample(wanted, len(wanted))
    assert sorted(shuffled) == wanted


@pytest.mark.parametrize("home", HOSTILE, indirect=True)
def test_a_ticket_survives_its_file(queue: Queue) -> None:
    made = ticket(queue, "1-0001-aaaa", cpus=0.5, folder=f"{queue.home}/q 'u\"o\nt\udc80é")
    assert queue.read(WAITING, made.name) == made
    assert queue.tickets(WAITING) == [made]
    assert Ticket.decode(made.name, made._replace(not_before=12.5).encode()).not_before == 12.5


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"null", b"\xff", b'{"name": "x"}', b'{"need": {}}', b"3"])
def test_a_damaged_ticket_is_said_to_be_damaged(queue: Queue, damage: bytes) -> None:
    Path(queue.path(WAITING, "1-0001-aaaa")).write_bytes(damage)
    with pytest.raises(SystemFailureError, match="damaged"):
        queue.read(WAITING, "1-0001-aaaa")
    assert queue.tickets(WAITING) == []


def test_moves(queue: Queue) -> None:
    ticket(queue, "1-0001-aaaa")
    with queue.lock():
        assert queue.move("1-0001-aaaa", WAITING, ACTIVE)
        assert not queue.move("1-0001-aaaa", WAITING, ACTIVE)
    assert queue.names(ACTIVE) == ["1-0001-aaaa"]
    assert queue.find(ACTIVE, "aaaa") == "1-0001-aaaa"
    assert queue.find(WAITING, "aaaa") is None
    assert queue.read(WAITING, "1-0001-aaaa") is None
    assert not queue.is_quiet()
    queue.drop("1-0001-aaaa", WAITING, ACTIVE, ENDING)
    assert queue.is_quiet()


def test_files_that_are_no_tickets_are_not_names(queue: Queue) -> None:
    Path(queue.path(WAITING, ".damaged-1")).write_bytes(b"x")
    assert queue.names(WAITING) == []
    assert queue.is_quiet()


@pytest.mark.parametrize("state", [SUBMITTING, WAITING, ACTIVE, ENDING])
def test_a_ticket_in_any_state_is_no_quiet(queue: Queue, state: str) -> None:
    ticket(queue, "1-0001-aaaa", state=state)
    assert not queue.is_quiet()


def test_a_requeued_ticket_waits_at_its_old_place_for_its_time(queue: Queue) -> None:
    for number in (1, 2, 3):
        ticket(queue, f"1-000{number}-aaa{number}")
    with queue.lock():
        queue.move("1-0002-aaa2", WAITING, ACTIVE)
    before = time.time()
    queue.requeue(queue.tickets(ACTIVE)[0], 10)
    assert queue.names(WAITING) == ["1-0001-aaa1", "1-0002-aaa2", "1-0003-aaa3"]
    assert queue.names(ACTIVE) == []
    requeued = queue.read(WAITING, "1-0002-aaa2")
    assert requeued is not None
    assert before + 10 <= requeued.not_before <= time.time() + 10


def test_a_new_priority_moves_a_ticket_among_others_by_its_old_time(queue: Queue) -> None:
    for name in ("1-0001-aaaa", "1-0003-bbbb", "2-0002-cccc"):
        ticket(queue, name)
    fields = {"preemptible": True, "max_duration": 2.5, "stop_grace": 7.0}
    for uid, priority in (("cccc", "auto"), ("aaaa", "lowest"), ("bbbb", "auto"), ("dddd", "high")):
        queue.reschedule(uid, {**fields, "priority": priority})
    assert queue.names(WAITING) == ["1-0002-cccc", "1-0003-bbbb", "3-0001-aaaa"]
    assert [each.name for each in queue.tickets(WAITING)] == queue.names(WAITING)
    assert {(t.preemptible, t.max_duration, t.stop_grace) for t in queue.tickets(WAITING)} == {(True, 2.5, 7.0)}


class TestLeave:
    """A supervisor that has ended one run takes the next only where the dispatcher would have started that too."""

    def ended(self, queue: Queue, cpus: float = 1, state: str = ACTIVE) -> Ticket:
        return ticket(queue, "1-0000-over", cpus=cpus, state=state)

    def test_the_first_waiting_one_is_claimed_with_its_lock(self, queue: Queue) -> None:
        first = ticket(queue, "1-0001-aaaa")
        ticket(queue, "1-0002-bbbb")
        successor = queue.leave(self.ended(queue), claim_next=True)
        assert successor is not None
        assert successor[0] == first
        assert is_locked(f"{first.folder}/.lock", 1)
        assert (queue.names(ACTIVE), queue.names(WAITING)) == ([first.name], ["1-0002-bbbb"])
        successor[1].release()

    def test_nothing_is_claimed_unasked(self, queue: Queue) -> None:
        ticket(queue, "1-0001-aaaa")
        assert queue.leave(self.ended(queue), claim_next=False) is None
        assert (queue.names(ACTIVE), queue.names(WAITING)) == ([], ["1-0001-aaaa"])

    def test_nobody_waits(self, queue: Queue) -> None:
        assert queue.leave(self.ended(queue), claim_next=True) is None
        assert queue.is_quiet()

    def test_one_that_needs_more_is_the_dispatchers(self, queue: Queue) -> None:
        ticket(queue, "1-0001-aaaa", cpus=1.5)
        ticket(queue, "1-0002-bbbb", cpus=0.5)
        assert queue.leave(self.ended(queue), claim_next=True) is None
        assert (len(queue.names(WAITING)), queue.names(ACTIVE)) == (2, [])

    def test_a_retry_whose_time_has_not_come_is_the_dispatchers(self, queue: Queue) -> None:
        ticket(queue, "1-0001-aaaa", state=ACTIVE)
        queue.requeue(queue.tickets(ACTIVE)[0], 60)
        assert queue.leave(self.ended(queue), claim_next=True) is None
        assert queue.names(WAITING) == ["1-0001-aaaa"]

    def test_one_whose_last_supervisor_has_not_left_is_the_dispatchers(self, queue: Queue) -> None:
        first = ticket(queue, "1-0001-aaaa")
        with files.ByteLock.acquire(f"{first.folder}/.lock", 1):
            assert queue.leave(self.ended(queue), claim_next=True) is None
        assert queue.names(WAITING) == ["1-0001-aaaa"]

    def test_a_run_whose_resources_were_given_back_before_hands_none_on(self, queue: Queue) -> None:
        ticket(queue, "1-0001-aaaa")
        assert queue.leave(self.ended(queue, state=ENDING), claim_next=True) is None
        assert (queue.names(ENDING), queue.names(WAITING)) == ([], ["1-0001-aaaa"])


def test_environments_are_kept_once_and_private(queue: Queue) -> None:
    context = queues.encode_context({"environ": {"A": "\udcffé\n"}, "umask": 0o27})
    key = queues.context_key(context)
    with queue.lock():
        queue.keep_environment(key, context)
        queue.keep_environment(key, context)
    assert queue.environment(key) == {"environ": {"A": "\udcffé\n"}, "umask": 0o27}
    (kept,) = os.scandir(f"{queue.root}/environments")
    assert kept.stat().st_mode & 0o077 == 0
    with queue.lock():
        queue.forget_environments()
    with pytest.raises(SystemFailureError, match="environment"):
        queue.environment(key)


def test_the_same_environment_has_the_same_key_in_any_order() -> None:
    one = queues.encode_context({"environ": {"A": "1", "B": "2"}, "umask": 2})
    other = queues.encode_context({"umask": 2, "environ": {"B": "2", "A": "1"}})
    assert queues.context_key(one) == queues.context_key(other)
    assert queues.context_key(one) != queues.context_key(queues.encode_context({"environ": {"A": "1"}, "umask": 2}))


def test_waking_nobody_and_waking_somebody_who_is_slow(queue: Queue) -> None:
    queue.wake("nobody listens")
    reader = os.open(queue.wake_fifo, os.O_RDWR | os.O_NONBLOCK)
    try:
        for i in range(20_000):  # more than a pipe holds
            queue.wake(f"1-{i:019d}-aaaa")
        assert os.read(reader, 100).startswith(b"1-0000000000000000000-aaaa\n")
    finally:
        os.close(reader)


def test_everything_is_the_users_alone(queue: Queue) -> None:
    for place, _, names in os.walk(queue.home):
        assert os.stat(place).st_mode & 0o077 == 0, place
        for name in names:
            assert os.stat(f"{place}/{name}").st_mode & 0o077 == 0, name


def test_a_home_that_others_can_write_to_is_refused(home: Home) -> None:
    home.path.mkdir(mode=0o700)
    home.path.chmod(0o770)
    with pytest.raises(SystemFailureError, match="writable by others"):
        Queue(home.path).prepare()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_home_of_somebody_else_is_refused(home: Home) -> None:
    home.path.mkdir(mode=0o700)
    os.chown(home.path, 65534, 65534)
    with pytest.raises(SystemFailureError, match="belongs to uid 65534"):
        Queue(home.path).prepare()
    os.chown(home.path, 0, 0)


def test_a_home_that_is_a_file_is_refused(home: Home) -> None:
    home.path.write_text("")
    with pytest.raises(SystemFailureError, match="LOCALRUN_HOME"):
        Queue(home.path).prepare()
    home.path.unlink()


def test_a_queue_that_was_never_used_is_empty(home: Home) -> None:
    queue = Queue(home.path)
    assert not queue.exists()
    assert queue.names(WAITING) == []
    assert queue.is_quiet()
    assert queue.dispatcher_pid() is None
    assert not home.path.exists()
