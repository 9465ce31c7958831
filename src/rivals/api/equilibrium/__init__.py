"""``equilibrium``: how far a GAN is from the equilibrium of its game."""
