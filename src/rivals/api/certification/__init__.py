"""``certify``: randomized smoothing."""
