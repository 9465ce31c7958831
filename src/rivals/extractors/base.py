"""Feature extractors: uint8 images to features, with a record of weights and resizing."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rivals.base.errors import UserError
from rivals.base.hashing import key_hash, weights_hash
from rivals.base.size import AnySize, Size
from rivals.extractors.resize import to_rgb

BATCH = 32  # images per forward pass, always: its shape decides how floats are rounded

Prepare = Callable[[Tensor], Tensor]
"""float32 images (B, 3, H, W) in [0, 255] to the input of the network (B, 3, H', W')."""


class ExtractorOutput(NamedTuple):
    """Features (B, d) and, if the network classifies, logits (B, K); float32 on the CPU."""

    features: Tensor
    logits: Tensor | None


class Extractor:
    """A network with its preprocessing.

    Args:
        name: Such as ``inception``; part of the names of distances.
        net: The output of ``prepare`` to features (B, d) and logits (B, K) or None.
        prepare: Resizes and normalizes.
        size: To which it resizes.
        resize: The resize rule in words.
        official: Whether the weights are the published ones that the name of a metric stands for.
        channels: Required number of channels; None for any.
        described: What the network computes with its weights, if they do not say it all.

    Attributes:
        hash: Of the weights and of ``described``, 16 hexadecimal digits.
        dim: Length of the features, d.
        classes: Number of logits, K; 0 without logits.
    """

    def __init__(
        self,
        name: str,
        net: nn.Module,
        prepare: Prepare,
        *,
        size: AnySize,
        resize: str,
        official: bool = True,
        channels: int | None = None,
        described: object = None,
    ) -> None:
        self.name = name
        self.net = net.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.prepare = prepare
        self.size = Size.parse(size)
        self.resize = f"{resize} to {size} px"
        self.official = official
        self.channels = channels
        self.hash = weights_hash(net) if described is None else key_hash(weights_hash(net), described)[:16]
        # One forward pass tells the shapes, whatever the network is.
        with torch.no_grad():
            features, logits = self.net(prepare(torch.zeros(1, channels or 3, *self.size)))
        self.dim: int = features.shape[1]
        self.classes: int = 0 if logits is None else logits.shape[1]

    def __call__(self, images: Tensor) -> Tensor:
        """Features (B, d) of uint8 images (B, C, H, W), bit-identical for every B."""
        return self.extract(images).features

    @torch.no_grad()
    def extract(self, images: Tensor) -> ExtractorOutput:
        """Features and logits of uint8 images (B, C, H, W).

        Raises:
            UserError: no images, images of another dtype or shape, or features that are not finite.
        """
        if self.channels not in (None, images.shape[1]):
            raise UserError(
                f"the extractor {self.name} was made for images of {self.channels} channels, and these have "
                f"{images.shape[1]}: take another extractor"
            )
        if not len(images):
            raise UserError("there are no images to extract features of: give one or more")
        features, logits = [], []
        for block in torch.split(images, BATCH):
            padded = torch.cat([block, block[-1:].expand(BATCH - len(block), -1, -1, -1)])
            values = padded.to(self.device)
            pixels = values.float() if self.channels else to_rgb(values)
            inputs = self.prepare(pixels.contiguous(memory_format=torch.channels_last))
            block_features, block_logits = self.net(inputs.contiguous(memory_format=torch.channels_last))
            features.append(block_features[: len(block)].float().cpu())
            if block_logits is not None:
                logits.append(block_logits[: len(block)].float().cpu())
        output = ExtractorOutput(torch.cat(features), torch.cat(logits) if logits else None)
        if not bool(output.features.isfinite().all()):
            raise UserError(
                f"the extractor {self.name} gave features that are not finite numbers: its weights are damaged, or "
                "the images are none that it can take"
            )
        return output

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.net.parameters(), torch.zeros(0)).device

    def to(self, device: torch.device) -> Extractor:
        """Move the network; returns the extractor."""
        self.net.to(device)
        return self
