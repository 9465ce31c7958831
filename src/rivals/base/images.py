"""uint8 arrays as PIL images; images under noise."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

_under_noise: ContextVar[bool] = ContextVar("under_noise", default=False)


@contextlib.contextmanager
def images_under_noise() -> Iterator[None]:
    """Inside, a model of this thread gets images with noise, which may reach far out of their range."""
    token = _under_noise.set(True)
    try:
        yield
    finally:
        _under_noise.reset(token)


def under_noise() -> bool:
    """Whether images are those of :func:`images_under_noise`."""
    return _under_noise.get()


def to_pil(image: npt.NDArray[np.uint8]) -> Image.Image:
    """One image (C, H, W), C 1 (gray), 3 (RGB) or 4 (RGBA), as PIL has it."""
    import numpy as np
    from PIL import Image

    return Image.fromarray(np.ascontiguousarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)))
