"""Traced blocks, and what the code in them, or in any run, reads and makes."""
