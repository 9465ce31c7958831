"""What several commands share: network files, model names, resuming, provenance."""
