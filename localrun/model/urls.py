"""URLs as they may be shown and kept: without what is secret in them."""

from __future__ import annotations

import re

_LOGIN = re.compile(r"(?<=://)[^/?#]*@")  # a password may have an @ in it
_SECRET = re.compile(r"(?i)([?&;#][^=&;#]*(?:key|token|sig|secret|passw|auth|cred)[^=&;#]*)=[^&;#]*")


def shown(url: str) -> str:
    """A URL without its password, or the token in place of one, and without the values that sign or authorize it."""
    login = _LOGIN.search(url)
    if login is not None:
        user, has_password, _ = login[0][:-1].partition(":")
        is_token = not has_password and url.lower().startswith("http")
        url = url.replace(login[0], "" if is_token else f"{user}@", 1)
    return _SECRET.sub(r"\1=***", url)
