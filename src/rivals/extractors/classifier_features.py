"""A classifier as an extractor: customary for digits and the like, to which ImageNet's features are foreign."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from rivals.base.errors import UserError
from rivals.extractors.extractor import Extractor
from rivals.extractors.resize import smooth


def open_classifier(net: nn.Module, *, size: int, channels: int) -> Extractor:
    """The extractor ``classifier``: what goes into the last linear layer, and the logits.

    Args:
        net: Images (n, channels, size, size) in [0, 1] to logits.
        size: The side of its images.
        channels: Their channels.

    Raises:
        UserError: it has no linear layer.
    """

    def prepared(x: Tensor) -> Tensor:
        return (x if x.shape[-1] == size else smooth(x, size)) / 255

    seen = Penultimate(net)
    return Extractor("classifier", seen, prepared, size=size, resize="antialiased bilinear", channels=channels)


class Penultimate(nn.Module):
    """A classifier whose last linear layer tells what goes into it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        layers = [layer for layer in net.modules() if isinstance(layer, nn.Linear)]
        if not layers:
            raise UserError("the classifier has no linear layer, before which its features would be: take another one")
        self.net = net
        self._told: list[Tensor] = []
        layers[-1].register_forward_pre_hook(self._listen)

    def _listen(self, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._told.append(inputs[0])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, C, S, S) in [0, 1] to features (B, d) and logits (B, K)."""
        logits: Tensor = self.net(x)
        return self._told.pop().flatten(1), logits
