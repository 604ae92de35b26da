"""In which order processes ended, although they are collected together."""

from __future__ import annotations

import os
import random
import select
import subprocess

from localrun.engine.supervision.exits import Exits


def test_the_order_is_that_of_their_ends() -> None:
    children = {rank: subprocess.Popen(["cat"], stdin=subprocess.PIPE) for rank in range(8)}
    order = random.Random(3).sample(sorted(children), len(children))
    exits = Exits()
    for rank, child in children.items():
        exits.add(child.pid, rank)
    assert exits.in_order() == []
    for count, rank in enumerate(order, 1):
        end(children[rank])
        if count == 3:
            assert exits.in_order() == order[:3]
    assert exits.in_order() == order
    for child in children.values():
        child.wait()
    assert exits.in_order() == order
    exits.close()


def end(child: subprocess.Popen[bytes]) -> None:
    """End a child, and see that it has ended, without collecting it."""
    assert child.stdin is not None
    child.stdin.close()
    pidfd = os.pidfd_open(child.pid)
    assert select.select([pidfd], [], [], 30)[0]
    os.close(pidfd)
