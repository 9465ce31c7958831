"""What every extractor is: 8-bit images in, features out, under a name that says all that the numbers depend on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rivals.base.errors import UserError
from rivals.extractors.resize import colour

BATCH = 32  # images of every pass: a pass's shape decides how floats are rounded in it, so it never changes

Prepare = Callable[[Tensor], Tensor]
"""Float32 images (B, 3, H, W) in [0, 255] to what the network takes (B, 3, S, S)."""


class Seen(NamedTuple):
    """What an extractor makes of images: features (B, d) and, if it classifies, logits (B, K); float32 on the CPU."""

    features: Tensor
    logits: Tensor | None


class Extractor:
    """A network with its resize rule.

    Args:
        name: As ``inception``; what distances are called by.
        net: What ``prepare`` gives, to a pair: features (B, d), and logits (B, K) or None.
        prepare: Resizes and scales.
        size: The side to which it resizes, in pixels.
        resize: That rule in words.
        official: Whether these are the published weights by which a metric of this extractor has its name.
        channels: How many the images must have; None takes any.

    Attributes:
        hash: What the weights are, in 16 hexadecimal digits.
        dim: Length of the features, d.
        classes: Logits an image, K; 0 for none.
    """

    def __init__(
        self,
        name: str,
        net: nn.Module,
        prepare: Prepare,
        *,
        size: int,
        resize: str,
        official: bool = True,
        channels: int | None = None,
    ) -> None:
        self.name = name
        self.net = net.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.prepare = prepare
        self.size = size
        self.resize = f"{resize} to {size} px"
        self.official = official
        self.channels = channels
        self.hash = fingerprint(net)
        # What one image becomes tells the forms, whatever the network is made of.
        with torch.no_grad():
            features, logits = self.net(prepare(torch.zeros(1, channels or 3, size, size)))
        self.dim: int = features.shape[1]
        self.classes: int = 0 if logits is None else logits.shape[1]

    def __call__(self, images: Tensor) -> Tensor:
        """Features (B, d) of uint8 images (B, C, H, W), bit for bit the same whatever B is."""
        return self.look(images).features

    @torch.no_grad()
    def look(self, images: Tensor) -> Seen:
        """Features and logits of uint8 images (B, C, H, W).

        Raises:
            UserError: images of another type or form, or features that are not finite numbers.
        """
        if self.channels not in (None, images.shape[1]):
            raise UserError(
                f"the extractor {self.name} was made for images of {self.channels} channels, and these have "
                f"{images.shape[1]}: take another extractor"
            )
        device = next(self.net.parameters(), torch.zeros(0)).device
        features, logits = [], []
        for block in torch.split(images, BATCH):
            filled = torch.cat([block, block[-1:].expand(BATCH - len(block), -1, -1, -1)])
            values = filled.to(device)
            pixels = values.float() if self.channels else colour(values)
            taken = self.prepare(pixels.contiguous(memory_format=torch.channels_last))
            found, said = self.net(taken.contiguous(memory_format=torch.channels_last))
            features.append(found[: len(block)].float().cpu())
            if said is not None:
                logits.append(said[: len(block)].float().cpu())
        seen = Seen(torch.cat(features), torch.cat(logits) if logits else None)
        if not bool(seen.features.isfinite().all()):
            raise UserError(
                f"the extractor {self.name} gave features that are not finite numbers: its weights are damaged, or "
                "the images are none that it can take"
            )
        return seen

    def to(self, device: torch.device) -> Extractor:
        """Move the network; returns the extractor."""
        self.net.to(device)
        return self


def fingerprint(net: nn.Module) -> str:
    """What the weights are, in 16 hexadecimal digits: of their shapes, types and bytes, in order."""
    digest = hashlib.blake2b(digest_size=8)
    for values in net.state_dict().values():
        digest.update(f"{tuple(values.shape)} {values.dtype}".encode())
        digest.update(values.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
