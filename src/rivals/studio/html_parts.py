"""HTML parts of the studio: pictures as data, so that no file is requested or left on disk, and notices."""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec

from PIL import Image

from rivals.base.errors import UserError
from rivals.base.size import Size
from rivals.reports import image_grid
from rivals.reports.formatting import sentence
from rivals.reports.html import Html, tag

P = ParamSpec("P")
SAVED_SIDE = 512  # pixels that a saved picture is enlarged to, about
MAX_COLUMNS = 65  # of a sample grid


def png_uri(picture: Image.Image) -> str:
    """A picture as a data URI."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def open_uri(uri: str) -> Image.Image:
    """The picture of a data URI that was made from a file that could be read."""
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as opened:
        return opened.convert("L" if opened.mode == "L" else "RGB")


def picture_figure(picture: Image.Image, alt: str, caption: str = "", save_as: str = "", most: int = 720) -> Html:
    """A picture with its caption and, given a file name, a link that saves it.

    The style sheet enlarges it by the largest whole number of pixels of the screen for which it fits its place; one
    that is wider than its place scrolls. What is saved is enlarged too, or it would be tiny in an image viewer.

    Args:
        picture: One pixel for each pixel of the images.
        alt: What it shows, for those who do not see it.
        caption: Below it.
        save_as: A name for the file.
        most: Pixels of the page that it may be wide.
    """
    link = ""
    if save_as:
        scale = max(1, SAVED_SIDE // max(picture.size))
        saved = picture.resize((scale * picture.width, scale * picture.height), Image.Resampling.NEAREST)
        link = tag("a", "Save this picture", href=png_uri(saved), download=save_as)
    text = tag("figcaption", caption, " " if caption and save_as else "", link) if caption or save_as else ""
    shown = tag(
        "img",
        src=png_uri(picture),
        alt=alt,
        width=picture.width,
        height=picture.height,
        style=f"--w: {picture.width}; --m: {most}px",
    )
    return tag("figure", shown, text, class_="picture")


def ungrown(picture: Image.Image, info: Mapping[str, Any]) -> Image.Image:
    """A grid of a run with one pixel for each pixel of its images; unchanged if it has none of the size of its data.

    In the file the images are enlarged, but not what is between them: another enlargement would not be whole.

    Args:
        picture: The grid, as :func:`~rivals.reports.image_grid.make_grid` made it.
        info: What ``run.json`` says.
    """
    data = info.get("data")
    try:
        size = Size.parse(str(data.get("size")) if isinstance(data, dict) else "")
    except UserError:
        return picture
    for columns in range(1, MAX_COLUMNS):
        scale = image_grid.scale_for(size.longer, columns)
        width, height = size.width * scale + image_grid.GAP, size.height * scale + image_grid.GAP
        rows, rest = divmod(picture.height + image_grid.GAP, height)
        if scale > 1 and picture.width + image_grid.GAP == columns * width and not rest:
            sides = (columns * (size.width + 1) - 1, rows * (size.height + 1) - 1)
            small = Image.new("L", sides, image_grid.BACKGROUND).convert(picture.mode)
            for row, column in itertools.product(range(rows), range(columns)):
                left, top = column * width, row * height
                box = (left, top, left + size.width * scale, top + size.height * scale)
                image = picture.crop(box).resize((size.width, size.height), Image.Resampling.NEAREST)
                small.paste(image, (column * (size.width + 1), row * (size.height + 1)))
            return small
    return picture


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
