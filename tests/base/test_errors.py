"""Messages are one printable line, whatever names are in them."""

import pytest

from rivals.base.errors import UserError, printable


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("line\nrivals: done", "line\\nrivals: done"),
        ("\x1b[2Jx", "\\x1b[2Jx"),
        ("\x9b31mx", "\\x9b31mx"),
        ("a\u2028b", "a\\u2028b"),
        ("gnp.\u202ea", "gnp.\\u202ea"),
        ("\udcff", "\\udcff"),
        ("ネコ\u3000犬 é [b] \\n", "ネコ\u3000犬 é [b] \\n"),
    ],
)
def test_control_characters_are_escaped_and_letters_are_not(name, shown):
    assert printable(name) == shown
    assert str(UserError(f"there is no '{name}'")) == f"there is no '{shown}'"


def test_kept_characters_are_not_escaped():
    assert printable("a\n\tb", keep="\n") == "a\n\\tb"
