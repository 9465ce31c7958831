"""The command line, made from the typed configurations."""
