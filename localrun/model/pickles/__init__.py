"""The pickles of a run: how values are stored and checked, and how a project's code travels in them and arrives."""
