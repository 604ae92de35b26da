"""The fields of containers: what is taken, how it is spelled out, and what is refused in which words."""

from __future__ import annotations

from typing import Any

import pytest

from localrun import RunConfig, RunConfigError
from localrun.model.request import Request


def request(**fields: Any) -> Request:
    config = RunConfig(command="true", image="image:1")
    for field, value in fields.items():
        setattr(config, field, value)
    return Request.from_config(config)


def test_defaults() -> None:
    made = request()
    assert (made.image, made.volumes, made.shm_size, made.pull, made.network) == ("image:1", [], 0, "missing", "host")


@pytest.mark.parametrize(
    ("text", "source", "target", "read_only"),
    [
        ("/a:/b", "/a", "/b", False),
        ("/a:/b:ro", "/a", "/b", True),
        ("/a/../c:/b/:rw", "/c", "/b", False),
        ("~/x:/b", "/home/me/x", "/b", False),
        ("./x:/b", "/here/x", "/b", False),
    ],
)
def test_volumes(monkeypatch: pytest.MonkeyPatch, text: str, source: str, target: str, read_only: bool) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setattr("os.getcwd", lambda: "/here")
    assert request(volumes=[text]).volumes == [{"source": source, "target": target, "read_only": read_only}]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image": "-v"}, "image: must be the name of an image, not '-v'"),
        ({"image": "a b"}, "image: must be the name of an image, not 'a b'"),
        ({"image": 3}, "image: must be text, not 3"),
        ({"volumes": "/a:/b"}, "compute.volumes: must be a list of 'HOST:CONTAINER[:ro]', not '/a:/b'"),
        ({"volumes": ["/a"]}, "compute.volumes[0]: must be 'HOST:CONTAINER' or 'HOST:CONTAINER:ro', not '/a'"),
        ({"volumes": [3]}, "compute.volumes[0]: must be 'HOST:CONTAINER' or 'HOST:CONTAINER:ro', not 3"),
        ({"volumes": ["/a:/b:x"]}, "compute.volumes[0]: the last part must be ro or rw, not 'x'"),
        ({"volumes": ["a:/b"]}, "compute.volumes[0]: the folder on this machine must begin with /, ~ or a dot: 'a'"),
        ({"volumes": ["/a:b"]}, "compute.volumes[0]: the place in the container must be an absolute path: 'b'"),
        ({"volumes": ["/a:/"]}, "compute.volumes[0]: the place in the container must be an absolute path: '/'"),
        ({"volumes": ["/a:/c", "/b:/c/"]}, "compute.volumes[1]: /c is another volume's place already"),
        ({"pull": "later"}, "compute.pull: must be 'missing' or 'never' or 'always', not 'later'"),
        ({"network": "--x"}, "compute.network: must be the name of a network, not '--x'"),
        ({"image": "", "network": "mine"}, "compute.network: is for containers: set image, too"),
    ],
)
def test_what_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RunConfigError) as raised:
        request(**fields)
    assert raised.value.message == message
