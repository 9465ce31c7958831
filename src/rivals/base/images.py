"""uint8 arrays as PIL images."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image


def to_pil(image: npt.NDArray[np.uint8]) -> Image.Image:
    """One image (C, H, W), C 1 (gray), 3 (RGB) or 4 (RGBA), as PIL has it."""
    import numpy as np
    from PIL import Image

    return Image.fromarray(np.ascontiguousarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)))
