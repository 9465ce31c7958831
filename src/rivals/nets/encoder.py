"""Encoders: images to the latents of a generator, in one forward pass (GAN inversion, Zhu et al. 2016)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from rivals.base.errors import UserError
from rivals.base.size import AnySize, Size
from rivals.nets.padding import WIDEST, check_image_shape, shown, to_channels_last, widths_fit

_HIDDEN = 256
_MOST_STAGES = 6


class Encoder(nn.Module):
    """Images (B, channels, H, W) in [-1, 1] to latents (B, latent_dim).

    4x4 convolutions with stride 2, one for each width, and a hidden layer of 256, with leaky ReLU between. Without
    normalization: a latent does not depend on the batch of its image.

    Args:
        size: Of the images, sides of 8 to 1024 pixels.
        channels: 1, 3 or 4.
        latent_dim: Length of a latent.
        widths: Channels after each halving; (32, 64) by default.

    Attributes:
        spec: The arguments as JSON, for :func:`rivals.nets.factory.rebuild`.
        about: What the .json file of a loaded network holds.
    """

    def __init__(self, *, size: AnySize, channels: int, latent_dim: int, widths: tuple[int, ...] = ()) -> None:
        super().__init__()
        check_image_shape(size, channels, 0)
        size = Size.parse(size)
        widths = tuple(widths) or (32, 64)
        if len(widths) > _MOST_STAGES or size.shorter < 2 ** len(widths) or not widths_fit(widths):
            raise UserError(
                f"widths {shown(widths)} do not fit an encoder of images of {size} px: give a positive number for each "
                f"halving, as 32,64, and at most {_MOST_STAGES}"
            )
        if not 1 <= latent_dim <= WIDEST:
            raise UserError(f"a latent of {latent_dim} numbers is out of range: take 1 to {WIDEST:,}")
        self.size, self.channels, self.latent_dim = size, channels, latent_dim
        self.about: dict[str, Any] = {}
        self.spec: dict[str, Any] = {
            "role": "encoder",
            "net": "strided",
            "size": size.written,
            "channels": channels,
            "classes": 0,
            "latent_dim": latent_dim,
            "widths": list(widths),
        }
        layers: list[nn.Module] = []
        for in_channels, out_channels in pairwise((channels, *widths)):
            layers += [nn.Conv2d(in_channels, out_channels, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
        self.stages = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Linear(widths[-1] * (size.height >> len(widths)) * (size.width >> len(widths)), _HIDDEN),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Linear(_HIDDEN, latent_dim),
        )
        to_channels_last(self)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [-1, 1] to latents (B, latent_dim)."""
        z: Tensor = self.head(self.stages(x).flatten(1))
        return z.to(torch.promote_types(z.dtype, torch.float32))
