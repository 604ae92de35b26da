"""This machine: its GPUs, what it is at work on, and clusters of one."""
