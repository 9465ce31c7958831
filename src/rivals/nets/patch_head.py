"""The small networks of PatchNCE, which map features of patches to vectors (CUT, Park et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class PatchHead(nn.Module):
    """A two-layer MLP for each feature map: features of patches (B, S, C) to unit vectors (B, S, dim) (sec. 3.2).

    Args:
        channels: Of each map.
        dim: Length of the vectors; 256 in the paper.
    """

    def __init__(self, channels: Sequence[int], dim: int = 128) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(width, dim), nn.ReLU(), nn.Linear(dim, dim)) for width in channels
        )

    def forward(self, patches: Sequence[Tensor]) -> list[Tensor]:
        """Features of patches of each map, (B, S, C), to unit vectors, (B, S, dim)."""
        return [F.normalize(layer(each), dim=-1) for layer, each in zip(self.layers, patches, strict=True)]
