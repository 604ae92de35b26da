"""Lineage: which files and runs led to a run, and what came of it."""
