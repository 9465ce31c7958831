"""Names, folders and zips of images -> uint8 sets in memory -> batches by (seed, micro-batch, index)."""
