"""The errors a user can fix, each one line: what was wrong, the value, the fix."""

from __future__ import annotations

import unicodedata


def printable(text: str, keep: str = "") -> str:
    """Text as it may be printed on a terminal or in one line, whatever names are in it.

    Line ends, escape codes, lone surrogates and marks that turn the direction of writing are escaped as in Python.

    Args:
        text: The text.
        keep: Characters that are not escaped.
    """
    if text.isprintable():
        return text
    return "".join(char if _is_shown(char) or char in keep else repr(char)[1:-1] for char in text)


def _is_shown(char: str) -> bool:
    return char.isprintable() or unicodedata.category(char) == "Zs"  # such as the space of full width


class UserError(Exception):
    """Something the user can fix. Its text is one line; the command line prints it and exits with 2.

    Args:
        message: What was wrong, the value, the fix. Names in it may be anything: see :func:`printable`.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class Interrupted(Exception):
    """The run was stopped by Ctrl-C or SIGTERM after saving. The command line exits with 130."""


class ProcessLost(Exception):
    """Another process of the run died or cannot be reached. The command line prints it and exits with 1."""
