"""A few adversarial examples of an attack, ready for a page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rivals.base.array_files import FLAGS, IMAGES, INTEGERS, NUMBERS, read_arrays
from rivals.base.errors import UserError
from rivals.base.images import to_pil
from rivals.reports.history import FIX

MAX_EXAMPLES = 8
MAX_SIDE = 192  # pixels
FILE = "examples.npz"
COLUMNS = {
    **{"x": IMAGES, "x_adv": IMAGES, "label": INTEGERS, "prediction": INTEGERS, "index": INTEGERS},
    **{"is_adversarial": FLAGS, "eps": NUMBERS},
}


@dataclass(frozen=True)
class Example:
    """One image of an attack.

    Attributes:
        clean: The image as a data URI.
        adversarial: The attacked image.
        change: Their difference, magnified.
        label: Its class.
        prediction: The class predicted for the attacked image.
        is_adversarial: Whether the attack succeeded.
        eps: Radius of the ball.
        index: Of the image in the data.
    """

    clean: str
    adversarial: str
    change: str
    label: int
    prediction: int
    is_adversarial: bool
    eps: float
    index: int


def read_examples(path: Path) -> tuple[list[Example], int]:
    """The examples of a run, successful attacks first, and the factor that magnifies their changes.

    Raises:
        FileNotFoundError: there are none.
        UserError: the file is damaged.
    """
    arrays = read_arrays(path, COLUMNS, FIX)
    x, x_adv = arrays["x"], arrays["x_adv"]
    if x.shape != x_adv.shape:
        raise UserError(f"'{path}' is damaged: it has images of shapes {x.shape} and {x_adv.shape}: {FIX}")
    if x.ndim != 4 or x.shape[1] not in (1, 3):  # features, or images that no page can show
        return [], 1
    order = np.argsort(~arrays["is_adversarial"], kind="stable")[:MAX_EXAMPLES]
    changes = x_adv[order] - x[order]
    largest = float(np.abs(changes).max(initial=0))
    factor = max(1, int(0.5 / largest)) if largest > 0 else 1
    examples = [
        Example(
            clean=data_uri(x[i]),
            adversarial=data_uri(x_adv[i]),
            change=data_uri(0.5 + factor * change),
            label=int(arrays["label"][i]),
            prediction=int(arrays["prediction"][i]),
            is_adversarial=bool(arrays["is_adversarial"][i]),
            eps=float(arrays["eps"][i]),
            index=int(arrays["index"][i]),
        )
        for i, change in zip(order.tolist(), changes, strict=True)
    ]
    return examples, factor


def data_uri(image: npt.NDArray[Any]) -> str:
    """An image (C, H, W) in [0, 1] as a PNG in a data URI; values outside are clipped."""
    picture = to_pil((np.clip(image, 0, 1) * 255).round().astype(np.uint8))
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
