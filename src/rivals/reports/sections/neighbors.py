"""Generated images next to their nearest training images: memorization that no score detects."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from rivals.reports.formatting import format_count
from rivals.reports.history import History
from rivals.reports.html import Html, join, tag
from rivals.reports.image_grid import BACKGROUND, make_grid
from rivals.reports.sections.common import EMPTY

Images = npt.NDArray[np.uint8]

GAP = 12  # pixels between the generated images and their neighbors
MIN_SIDE = 64  # pixels that smaller images are enlarged to
MAX_BYTES = 3_000_000  # of a picture inside the page


def neighbor_grid(generated: Images, neighbors: Images) -> Image.Image:
    """A row per generated image: the image, a gap, and its neighbors, the nearest first.

    Args:
        generated: uint8 (m, C, H, W).
        neighbors: The nearest training images of each, uint8 (m, k, C, H', W').
    """
    left = make_grid(generated, columns=1, scale=max(1, MIN_SIDE // max(generated.shape[-2:])))
    scale = max(1, MIN_SIDE // max(neighbors.shape[-2:]))
    right = make_grid(neighbors.reshape(-1, *neighbors.shape[2:]), columns=neighbors.shape[1], scale=scale)
    if right.height != left.height:  # the data have another size than the generator
        width = round(right.width * left.height / right.height)
        right = right.resize((width, left.height), Image.Resampling.BILINEAR)
    mode = "RGB" if "RGB" in (left.mode, right.mode) else "L"
    white, gray = ((255,) * 3, (BACKGROUND,) * 3) if mode == "RGB" else (255, BACKGROUND)
    both = Image.new(mode, (left.width + GAP + right.width, left.height), gray)
    both.paste(white, (left.width, 0, left.width + GAP, left.height))
    both.paste(left, (0, 0))
    both.paste(right, (left.width + GAP, 0))
    return both


def section(history: History) -> Html:
    """The grid of nearest training images that a training writes at its end; empty if there is none."""
    entry = history.section("nearest_images")
    generated, searched = format_count(entry.get("n_generated")), format_count(entry.get("n_train"))
    caption = f"""Left: the first {generated} images of the sample grid, by the finished generator. Next to each: its
nearest training images, of all {searched}, by squared distance of their {entry.get("space")}. A generated image that
equals one of them was memorized. For distances of features see """
    return picture_figure(history.folder, entry.get("grid"), join(caption, tag("code", "rivals score"), "."))


def picture_figure(
    folder: Path, name: Any, caption: Html, alt: str = "Generated images and their nearest training images"
) -> Html:
    """A PNG of a run folder inside the page, with its caption; empty if it is missing, no PNG, or too large."""
    if not isinstance(name, str) or "/" in name:
        return EMPTY
    try:
        content = (folder / name).read_bytes()
    except OSError:
        return EMPTY
    if len(content) > MAX_BYTES or not content.startswith(b"\x89PNG"):
        return EMPTY
    width, height = (int.from_bytes(content[at : at + 4]) for at in (16, 20))  # of the IHDR chunk
    uri = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    image = tag("img", src=uri, width=width, height=height, alt=alt)
    return tag("figure", image, tag("figcaption", tag("p", caption)), class_="timeline")
