"""Initial weights for training with interval bounds (Shi et al. 2021, *Fast Certified Robust Training*)."""

from __future__ import annotations

import math

from torch import nn


def initialize_for_ibp(net: nn.Module) -> None:
    """Draw all weights from ``N(0, (sqrt(2 pi) / n_in)^2)`` (Shi et al. 2021, eq. 8), from torch's global random state.

    The mean width of interval bounds then neither grows nor shrinks from layer to layer. With the usual initialization
    it grows by the root of the fan-in, and training begins with bounds that say nothing.
    """
    for layer in net.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.normal_(layer.weight, 0.0, math.sqrt(2 * math.pi) / layer.weight[0].numel())
