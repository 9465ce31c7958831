"""Pictures inside a page: as data, so that the page asks for no file, and nothing is left on the disk."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from PIL import Image

from rivals.base.errors import UserError
from rivals.reports.markup import Html, join, tag

P = ParamSpec("P")


def uri(picture: Image.Image) -> str:
    """A picture as a data URI."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def shown(source: str, alt: str, caption: str = "", save_as: str = "") -> Html:
    """A picture with its caption and, where it has a file's name, a link that saves it."""
    link = tag("a", "Save this picture", href=source, download=save_as) if save_as else ""
    words = tag("figcaption", caption, " " if caption and save_as else "", link) if caption or save_as else ""
    return tag("figure", tag("img", src=source, alt=alt), words, class_="picture")


def calm(*words: str) -> Html:
    """A remark."""
    return tag("div", tag("p", *words), class_="calm")


def alarm(*words: str) -> Html:
    """A message that something is wrong."""
    return tag("div", tag("p", *words), class_="alarm")


def spoken(function: Callable[P, Html]) -> Callable[P, Html]:
    """What cannot be shown is said instead: bad input becomes a message where the result would stand."""

    @wraps(function)
    def speak(*args: P.args, **kwargs: P.kwargs) -> Html:
        try:
            return function(*args, **kwargs)
        except UserError as error:
            return alarm(_sentence(str(error)))
        except OSError as error:
            return alarm(_sentence(f"a file cannot be read: {error.strerror or type(error).__name__}"))

    return speak


def _sentence(text: str) -> Html:
    return join(text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else "."))
