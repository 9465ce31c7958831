"""Run folders, pictures and the self-contained page. Reads files only, so that old runs render after any refactor."""
