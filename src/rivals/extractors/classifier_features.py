"""A classifier as an extractor, for data such as digits that ImageNet features do not suit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rivals.base.errors import UserError
from rivals.base.size import AnySize, Size
from rivals.extractors.base import Extractor
from rivals.extractors.resize import antialiased_bilinear


def open_classifier(net: nn.Module, *, size: AnySize, channels: int) -> Extractor:
    """The extractor ``classifier``: the input of the last linear layer, and the logits.

    Args:
        net: Images (n, channels, *size) in [0, 1] to logits.
        size: Of the images.
        channels: Their number of channels.

    Raises:
        UserError: it has no linear layer.
    """

    wanted = Size.parse(size)

    def prepare(x: Tensor) -> Tensor:
        return (x if Size(*x.shape[2:]) == wanted else antialiased_bilinear(x, wanted)) / 255

    net_with_features = Penultimate(net)
    return Extractor(
        "classifier",
        net_with_features,
        prepare,
        size=wanted,
        resize="antialiased bilinear",
        channels=channels,
        described=getattr(net, "spec", None),  # its mean, deviation and flips are no weights
    )


class Penultimate(nn.Module):
    """A classifier that returns the input of its last linear layer as well.

    If that layer runs several times in a forward pass, as with flip test-time augmentation, it is the mean of the
    inputs: where the network averages its logits, they are those of the mean.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        layers = [layer for layer in net.modules() if isinstance(layer, nn.Linear)]
        if not layers:
            raise UserError("the classifier has no linear layer, whose input would be the features: use another one")
        self.net = net
        self._inputs: list[Tensor] = []
        layers[-1].register_forward_pre_hook(self._record)

    def _record(self, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._inputs.append(inputs[0])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) in [0, 1] to features (B, d) and logits (B, K).

        Raises:
            UserError: the classifier does not use its last linear layer.
        """
        self._inputs.clear()  # of a pass that failed
        logits: Tensor = self.net(x)
        if not self._inputs:
            raise UserError("the classifier does not use its last linear layer, whose input would be the features")
        features = torch.stack(self._inputs).mean(0) if len(self._inputs) > 1 else self._inputs[0]
        self._inputs.clear()
        return features.flatten(1), logits
