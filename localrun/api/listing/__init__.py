"""Finding runs: the index, the filters, and the lists they come in."""
