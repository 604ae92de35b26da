"""What made a run reproducible: gathered at its submission, compared, taken elsewhere, and run again."""
