"""PatchGAN: a discriminator that judges overlapping patches, for images of any size (Isola et al. 2017, app. 6.1.2)."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from rivals.base.errors import UserError
from rivals.base.size import Size
from rivals.base.tensors import at_least_float32


class PatchDiscriminator(nn.Module):
    """Convolutions of 4x4 with leaky ReLU, then one logit for each place of the last map.

    With the default widths a logit sees 34 pixels in each direction; with two widths the paper's 16, with four its 70.
    Images may be smaller than that, down to ``least_size``: then each logit sees the whole image, and zeros beside it.

    Args:
        channels: Of the images.
        widths: Channels of the convolutions, of which all but the last have stride 2.

    Attributes:
        least_size: Pixels of the shorter side that leave a logit.

    Raises:
        UserError: fewer than two widths, or one below 1.
    """

    def __init__(self, channels: int = 3, widths: tuple[int, ...] = (64, 128, 256)) -> None:
        super().__init__()
        if len(widths) < 2 or min(widths) < 1:
            raise UserError(f"widths {widths} make no PatchGAN: take two or more, such as (64, 128, 256)")
        strides = [2] * (len(widths) - 1) + [1]
        # The last two convolutions, of stride 1, each leave a pixel less.
        self.least_size = 3 * 2 ** (len(widths) - 1)
        layers: list[nn.Module] = []
        for (inputs, outputs), stride in zip(pairwise((channels, *widths)), strides, strict=True):
            # No batch norm: it would tie the images of a batch, and gradient penalties do better without.
            layers += [nn.Conv2d(inputs, outputs, 4, stride, 1), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, 1, 1))

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W) to a map of logits, (B, 1, H', W'). Labels are not looked at.

        Raises:
            UserError: the images are so small that no logit is left.
        """
        if min(x.shape[2:]) < self.least_size:
            raise UserError(
                f"images of {Size(*x.shape[2:])} px are halved to nothing: take fewer widths, or images of "
                f"{self.least_size} px or more"
            )
        return at_least_float32(self.layers(x))
