"""A handful of images before and after an attack, with what it changed, ready for a page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
from PIL import Image

MOST = 8
SIDE = 192  # pixels on the longer side, at most
KEYS = ("x", "x_adv", "label", "said", "fell", "eps", "index")


@dataclass(frozen=True)
class Example:
    """One image: as it was, attacked, the change magnified, as data URIs; its class, what the model says, its place."""

    clean: str
    adversarial: str
    change: str
    label: int
    said: int
    fell: bool
    eps: float
    index: int


def read_examples(folder: Path) -> tuple[list[Example], int]:
    """The examples of a run, those that fell first, and by how much their changes are magnified."""
    try:
        with np.load(folder / "examples.npz", allow_pickle=False) as file:
            kept: dict[str, Any] = {key: file[key] for key in KEYS}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return [], 1
    x, x_adv = kept["x"], kept["x_adv"]
    if x.ndim != 4 or x.shape[1] not in (1, 3) or x.shape != x_adv.shape:
        return [], 1
    order = np.argsort(~kept["fell"], kind="stable")[:MOST]
    change = x_adv[order] - x[order]
    most = float(np.abs(change).max(initial=0))
    times = max(1, int(0.5 / most)) if most > 0 else 1
    found = []
    for i, moved in zip(order.tolist(), change, strict=True):
        found.append(
            Example(
                clean=data_uri(x[i]),
                adversarial=data_uri(x_adv[i]),
                change=data_uri(0.5 + times * moved),
                label=int(kept["label"][i]),
                said=int(kept["said"][i]),
                fell=bool(kept["fell"][i]),
                eps=float(kept["eps"][i]),
                index=int(kept["index"][i]),
            )
        )
    return found, times


def data_uri(image: npt.NDArray[Any]) -> str:
    """An image (C, H, W) in [0, 1] as a PNG in a data URI; what lies outside is cut."""
    pixels = (np.clip(image, 0, 1) * 255).round().astype(np.uint8)
    picture = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    picture.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
