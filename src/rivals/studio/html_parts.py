"""HTML parts of the studio: pictures as data, so that no file is requested or left on disk, and notices."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from PIL import Image

from rivals.base.errors import UserError
from rivals.reports.formatting import sentence
from rivals.reports.html import Html, tag

P = ParamSpec("P")


def png_uri(picture: Image.Image) -> str:
    """A picture as a data URI."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def picture_figure(uri: str, alt: str, caption: str = "", save_as: str = "") -> Html:
    """A picture with its caption and, given a file name, a link that saves it."""
    link = tag("a", "Save this picture", href=uri, download=save_as) if save_as else ""
    text = tag("figcaption", caption, " " if caption and save_as else "", link) if caption or save_as else ""
    return tag("figure", tag("img", src=uri, alt=alt), text, class_="picture")


def notice(*text: str) -> Html:
    """A remark in a box."""
    return tag("div", tag("p", *text), class_="ok")


def alarm(*text: str) -> Html:
    """An error or a warning in a box."""
    return tag("div", tag("p", *text), class_="alarm")


def error_notice(error: UserError) -> Html:
    """The message of an error."""
    return alarm(sentence(error))


def errors_as_notices(function: Callable[P, Html]) -> Callable[P, Html]:
    """Return the message of an error in place of the result, where the user can mend it."""

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Html:
        try:
            return function(*args, **kwargs)
        except UserError as error:
            return error_notice(error)
        except OSError as error:
            return alarm(sentence(f"a file cannot be read: {error.strerror or type(error).__name__}"))

    return wrapped
