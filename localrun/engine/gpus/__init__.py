"""The GPUs: what there is, asked of the driver, and who has which, by leases."""
