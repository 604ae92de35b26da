"""What runs have written: merged, as it is and as it comes."""
