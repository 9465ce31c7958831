"""Everything that reports a number."""
