"""Progress on the terminal. Everything goes to standard error."""
