"""What is shown of URLs."""

from __future__ import annotations

import pytest

from localrun.model.urls import shown


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("memory://bucket/a@b", "memory://bucket/a@b"),
        ("sftp://me@host:22/runs/a", "sftp://me@host:22/runs/a"),
        ("ftp://user:hunter2@host/x", "ftp://user@host/x"),
        ("ftp://user:p@ss@host/x@y", "ftp://user@host/x@y"),
        ("s3://KEY:SECRET@bucket/x", "s3://KEY@bucket/x"),
        ("https://t0ken@host/x", "https://host/x"),
        ("https://h/x?sig=1&v=2&X-Amz-Credential=3", "https://h/x?sig=***&v=2&X-Amz-Credential=***"),
        ("https://h/x?v=1;token=5#access_token=9", "https://h/x?v=1;token=***#access_token=***"),
    ],
)
def test_nothing_secret_is_shown(url: str, expected: str) -> None:
    assert shown(url) == expected
