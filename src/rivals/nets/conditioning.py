"""How class labels enter the networks. With 0 classes every module here ignores its labels."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rivals.base.errors import UserError


def require_labels(labels: Tensor | None) -> Tensor:
    """The labels of a conditional network.

    Raises:
        UserError: there are none.
    """
    if labels is None:
        raise UserError("this network was built with classes: give it a label for every image")
    return labels


class ConditionalLatent(nn.Module):
    """The latent, concatenated with a class embedding of the same length (R3GAN, Huang et al. 2024).

    (B, latent_dim) to (B, ``out_features``). ``std`` is the initial scale of the embeddings.
    """

    def __init__(self, latent_dim: int, classes: int, std: float = 1.0) -> None:
        super().__init__()
        self.out_features = 2 * latent_dim if classes else latent_dim
        self.embedding = nn.Embedding(classes, latent_dim) if classes else None
        if self.embedding is not None:
            nn.init.normal_(self.embedding.weight, std=std)

    def forward(self, z: Tensor, labels: Tensor | None) -> Tensor:
        if self.embedding is None:
            return z
        return torch.cat([z, self.embedding(require_labels(labels))], dim=1)


class ProjectionHead(nn.Module):
    """Features h (B, F) to logits (B,): w.h + b + e(y).h (Miyato & Koyama 2018, eq. 3)."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 1)
        self.embedding = nn.Embedding(classes, features) if classes else None
        if self.embedding is not None:
            # An embedding is a row of weights on h, so it is initialized as a row of nn.Linear.
            bound = 1 / math.sqrt(features)
            nn.init.uniform_(self.embedding.weight, -bound, bound)

    def forward(self, h: Tensor, labels: Tensor | None) -> Tensor:
        logits: Tensor = self.linear(h).squeeze(1)
        if self.embedding is None:
            return logits
        projection: Tensor = (self.embedding(require_labels(labels)) * h).sum(1)
        return logits + projection


class ConditionalBatchNorm2d(nn.Module):
    """Batch norm with a scale and a shift per class (Dumoulin et al. 2017)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=not classes)
        self.scale = nn.Embedding(classes, channels) if classes else None
        self.shift = nn.Embedding(classes, channels) if classes else None
        if self.scale is not None and self.shift is not None:
            nn.init.ones_(self.scale.weight)
            nn.init.zeros_(self.shift.weight)

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """Feature maps (B, C, H, W) and labels (B,) or None to (B, C, H, W)."""
        normalized: Tensor = self.norm(x)
        if self.scale is None or self.shift is None:
            return normalized
        y = require_labels(labels)
        return torch.addcmul(self.shift(y)[:, :, None, None], self.scale(y)[:, :, None, None], normalized)
