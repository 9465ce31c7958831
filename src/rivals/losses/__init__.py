"""Losses and penalties: pure scoring of what the players answered."""
