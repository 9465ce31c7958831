"""Dropout whose coins cost little on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Dropout(nn.Dropout):
    """Zero each number with probability p and scale the others by 1 / (1 - p) (Srivastava et al. 2014).

    On a CPU torch tosses its coins one by one, which takes longer than some of the products around them. There the
    coins are 16-bit slices of 64-bit random words, so p is met to within 1/131072, and the scale is that of the p met.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or not self.training or self.p == 0:
            return super().forward(x)
        words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        dropped = round(self.p * 65536)
        kept = words.view(torch.int16)[: x.numel()].view(x.shape) >= dropped - 32768
        return (x * kept).mul_(65536 / (65536 - dropped))
