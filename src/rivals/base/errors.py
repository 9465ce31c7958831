"""The errors a user can fix, each one line: what was wrong, the value, the fix."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can fix. Its text is one line; the command line prints it and exits with 2."""


class Interrupted(Exception):
    """The run was stopped by Ctrl-C or SIGTERM after saving. The command line exits with 130."""
