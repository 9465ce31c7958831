"""Generated images beside the training images that lie closest to them: what no number tells of memorising."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from rivals.reports.history import History
from rivals.reports.markup import Html, join, tag
from rivals.reports.sheet import GROUND, grid
from rivals.reports.words import count

Images = npt.NDArray[np.uint8]

APART = 12  # pixels between the generated images and their neighbours
SIDE = 64  # pixels an image is brought to where it is smaller
WEIGHT = 3_000_000  # bytes of a sheet, above which it is left out of the page


def picture(drawn: Images, beside: Images) -> Image.Image:
    """A row for each generated image: it, a gap, and its neighbours, the nearest first.

    Args:
        drawn: uint8 (m, C, H, W).
        beside: Of each the nearest, uint8 (m, k, C, H', W').
    """
    scale = max(1, SIDE // drawn.shape[-1])
    left = grid(drawn, columns=1, scale=scale)
    right = grid(beside.reshape(-1, *beside.shape[2:]), columns=beside.shape[1], scale=max(1, SIDE // beside.shape[-1]))
    if right.height != left.height:  # of another size: brought to that of the generated ones
        wide = round(right.width * left.height / right.height)
        right = right.resize((wide, left.height), Image.Resampling.BILINEAR)
    mode = "RGB" if "RGB" in (left.mode, right.mode) else "L"
    whole = Image.new(
        mode, (left.width + APART + right.width, left.height), (GROUND,) * len(mode) if mode != "L" else GROUND
    )
    whole.paste((255,) * 3 if mode == "RGB" else 255, (left.width, 0, left.width + APART, left.height))
    whole.paste(left, (0, 0))
    whole.paste(right, (left.width + APART, 0))
    return whole


def section(history: History) -> Html:
    """The sheet that a training left at its end; empty if it left none."""
    about = history.part("neighbours")
    searched, drawn = count(about.get("n")), count(about.get("drawn"))
    says = f"""On the left what the finished generator draws at the first {drawn} places of the sample sheets; beside
each the training images that lie closest to it, the closest first, of all {searched}, by the squared differences of
their {about.get("by")}. A drawn image that is the same as one of them was learnt by heart. Likeness beyond pixels is
shown by """
    return figure(history.folder, about.get("sheet"), join(says, tag("code", "rivals score"), "."))


def figure(folder: Path, name: Any, caption: Html) -> Html:
    """A picture of a run's folder, inside the page with its caption; empty if there is none, or none that will do."""
    if not isinstance(name, str) or "/" in name:
        return Html()
    try:
        content = (folder / name).read_bytes()
    except OSError:
        return Html()
    if len(content) > WEIGHT or not content.startswith(b"\x89PNG"):
        return Html()
    wide, high = (int.from_bytes(content[at : at + 4]) for at in (16, 20))
    uri = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    image = tag("img", src=uri, width=wide, height=high, alt="Generated images beside their nearest training images")
    return tag("figure", image, tag("figcaption", tag("p", caption)), class_="timeline")
