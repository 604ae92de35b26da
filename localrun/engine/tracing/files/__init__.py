"""Which files a traced block opens, seen from inside its process, and what they are."""
