"""Losses and penalties: pure functions of the players' logits."""
