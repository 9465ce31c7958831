"""``train``, ``classify`` and ``harden``: one runner for all three."""
