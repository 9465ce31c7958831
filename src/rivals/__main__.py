"""``python -m rivals``."""

from rivals.cli import main

main()
