"""Refusals: the one line that a user reads."""

import re

import pytest

from rivals import UserError


def named(*parts):
    """Expect a refusal that names ``parts``, in this order."""
    return pytest.raises(UserError, match=".*".join(map(re.escape, parts)))
