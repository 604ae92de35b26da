"""What starts when: pure functions of the tickets, the active runs and the machine."""
