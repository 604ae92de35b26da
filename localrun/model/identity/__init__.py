"""When two calls are the same: fingerprints of inputs and of code, equal in every process."""
