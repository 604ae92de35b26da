"""Traced blocks: a run that is a stretch of a process of the user's own, with its record, liveness and output."""
