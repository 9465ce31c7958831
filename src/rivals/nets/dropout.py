"""Dropout with a fast mask on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Dropout(nn.Dropout):
    """Zero each value with probability p and scale the others by 1 / (1 - p) (Srivastava et al. 2014).

    On a CPU torch draws the Bernoulli variables one by one, which takes longer than some of the matrix products
    around them. Here they are the 16-bit slices of 64-bit random words below p, so p is rounded to a multiple of
    1/65536, and the scale is that of the rounded p.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Values of any shape to the same shape."""
        if x.device.type != "cpu" or not self.training or self.p == 0:
            return super().forward(x)
        words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        dropped = round(self.p * 65536)
        # A uniform int16 is below dropped - 2^15 with probability dropped / 2^16.
        uniform = words.view(torch.int16)[: x.numel()].view(x.shape)
        # As numbers of the type of x: a product with a mask of bools would convert it, forward and backward.
        keep = torch.ge(uniform, dropped - 32768, out=torch.empty_like(x))
        return (x * keep).mul_(65536 / (65536 - dropped))
