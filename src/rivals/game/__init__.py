"""The game: players, turns, and the one loop that plays them."""
