"""What mcli's programs call first, and what has nothing to do here: there is no account and no key."""

from __future__ import annotations


def initialize(api_key: str | None = None) -> None:
    """Do nothing: localrun is ready when it is imported (``mcli.initialize``). The key is not kept."""


def set_api_key(api_key: str) -> None:
    """Do nothing: this machine's runs need no key (``mcli.set_api_key``). The key is not kept."""
