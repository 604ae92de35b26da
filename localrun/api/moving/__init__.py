"""Runs between places: this machine's folders, and whatever fsspec reaches."""
