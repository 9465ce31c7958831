"""A picture as a translator takes it: one rule for the command and the studio."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rivals.base.errors import UserError

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from rivals.data.imageset import Pixels
    from rivals.data.pixel_modes import Peak
    from rivals.nets.translator import Translator

SMALLEST = 8  # pixels of a side that can be translated
TURNED_GRAY = "in color and turned gray (Rec. 601), as the translator takes gray images"


def read_input(open_image: Callable[[], Image.Image], net: Translator, peak: Peak, what: str) -> tuple[Tensor, bool]:
    """A picture for a translator, and whether it was turned gray.

    A translator of gray images sees the luma of a color picture, and the color is lost, which is to be
    said. What is behind transparent pixels nobody knows, so that is refused.

    Args:
        open_image: Opens it.
        net: The translator.
        peak: Its white level, if it has more than 8 bits.
        what: The picture, in messages.

    Returns:
        (1, C, H, W) in [0, 1], and whether it was in color where the translator takes gray.

    Raises:
        UserError: it cannot be read, is too small, or has transparency that the translator does not know.
    """
    import numpy as np
    import torch

    from rivals.data.decode import strict_limits, to_channels
    from rivals.data.pixel_modes import AboveWhiteError, to_chw, to_standard_mode

    try:
        with strict_limits():
            pixels = to_chw(to_standard_mode(open_image(), peak))
    except AboveWhiteError as error:
        raise UserError(
            f"{what} holds values up to {error.brightest:,}, above {peak.given:,}, the white level of the training "
            "images: scale the values to that range"
        ) from None
    except UserError:
        raise
    except Exception as error:  # damaged files make decoders raise nearly any exception
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"cannot read {what} ({reason}): replace or remove it") from None
    channels, height, width = pixels.shape
    if min(height, width) < SMALLEST:
        raise UserError(
            f"{what} is {width} x {height}, and a side of {SMALLEST} or more can be translated: remove or enlarge it"
        )
    if channels == 4 > net.in_channels:
        taken = "opaque gray" if net.in_channels == 1 else "opaque"
        raise UserError(
            f"{what} is partly transparent, and the translator takes {taken} images: put it on a background first"
        )
    turned_gray = channels > net.in_channels
    if turned_gray:
        pixels, turned_gray = _gray(pixels), not (pixels[0] == pixels[1:]).all()
    array = np.array(to_channels(pixels[None], net.in_channels))  # one that may be written to
    return torch.from_numpy(array).float() / 255, turned_gray


def _gray(pixels: Pixels) -> Pixels:
    """The luma of a color image (3, H, W), (1, H, W): 0.299 R + 0.587 G + 0.114 B; of a gray one itself."""
    import numpy as np
    from PIL import Image

    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).convert("L"))[None]
