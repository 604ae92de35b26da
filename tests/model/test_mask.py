"""The mask of secrets' values: what it hides, and that values which come in pieces are hidden too."""

from __future__ import annotations

import random

import pytest

from localrun.model.mask import Mask, MaskedStream


@pytest.mark.parametrize(
    ("values", "text", "shown"),
    [
        ([b"hush"], "a hush, hushed", "a ***, ***ed"),
        ([b"abc"], "abc", "abc"),
        ([b" hush\n\n"], "<hush>", "<***>"),
        ([b"hush", b"hush-hush"], "hush-hush hush", "*** ***"),
        ([b"the first\nthe second\n{\n"], "the second {the first", "*** {***"),
        ([b"it's \\ \xff"], repr("it's \\ \udcff"), '"***"'),
        (["tvåord".encode()], repr("tvåord".encode()), "b'***'"),
        ([b"x" * (65 << 10)], "x" * 9, "x" * 9),
        ([], "text", "text"),
    ],
)
def test_what_is_hidden(values: list[bytes], text: str, shown: str) -> None:
    mask = Mask(values)
    assert mask.text(text) == shown
    data = text.encode("utf-8", "surrogateescape")
    assert mask.data(data) == shown.encode()
    assert mask.is_needed(data) == (text != shown)
    assert bool(Mask([b"abc", b"", b"\n"])) is False


def test_pieces() -> None:
    """Whatever the pieces, what is shown is what a mask of the whole would have shown."""
    chance = random.Random(4)
    for _ in range(2000):
        values = [bytes(chance.choices(b"ab", k=chance.randint(4, 7))) for _ in range(chance.randint(1, 3))]
        data = bytes(chance.choices(b"ab\n", [5, 5, 1], k=40))
        mask, shown, at = Mask(values), b"", 0
        stream = MaskedStream(mask)
        while at < len(data):
            size = chance.randint(1, 9)
            shown += stream.feed(data[at : at + size])
            at += size
            assert not mask.is_needed(shown)
        assert shown + stream.finish() == mask.data(data), (values, data)


def test_what_cannot_be_a_value_does_not_wait() -> None:
    stream = MaskedStream(Mask([b"hush"]))
    assert stream.feed(b"Continue? [y/N] ") == b"Continue? [y/N] "
    assert stream.feed(b"hus") == b""
    assert stream.feed(b"ky ") == b"husky "
