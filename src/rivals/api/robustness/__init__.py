"""``attack`` and ``evaluate``: robust accuracy, with everything needed to believe it."""
