"""``python -m rivals``."""

from rivals.cli.main import main

main()
