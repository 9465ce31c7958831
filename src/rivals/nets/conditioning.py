"""How class labels enter the networks. Without classes each module here leaves the labels unread."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rivals.base.errors import UserError


def needed(labels: Tensor | None) -> Tensor:
    """The labels of a network with classes.

    Raises:
        UserError: there are none.
    """
    if labels is None:
        raise UserError("this network was built with classes: give it a label for every image")
    return labels


class LabelledLatent(nn.Module):
    """The latent, followed by a learned vector of the same length for the class (R3GAN, Huang et al. 2024).

    (B, latent) to (B, ``out_features``). ``std`` is the vectors' scale at the start.
    """

    def __init__(self, latent: int, classes: int, std: float = 1.0) -> None:
        super().__init__()
        self.out_features = 2 * latent if classes else latent
        self.embedding = nn.Embedding(classes, latent) if classes else None
        if self.embedding is not None:
            nn.init.normal_(self.embedding.weight, std=std)

    def forward(self, z: Tensor, labels: Tensor | None) -> Tensor:
        if self.embedding is None:
            return z
        return torch.cat([z, self.embedding(needed(labels))], dim=1)


class ProjectionHead(nn.Module):
    """Features h (B, F) to logits (B,): w.h + b + e(y).h (Miyato & Koyama 2018, eq. 3)."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 1)
        self.embedding = nn.Embedding(classes, features) if classes else None
        if self.embedding is not None:
            # A class's vector is a row of weights on h: it starts as torch starts the rows of a linear layer.
            bound = 1 / math.sqrt(features)
            nn.init.uniform_(self.embedding.weight, -bound, bound)

    def forward(self, h: Tensor, labels: Tensor | None) -> Tensor:
        logits: Tensor = self.linear(h).squeeze(1)
        if self.embedding is None:
            return logits
        projection: Tensor = (self.embedding(needed(labels)) * h).sum(1)
        return logits + projection


class LabelledBatchNorm2d(nn.Module):
    """Batch norm whose scale and shift belong to the image's class (Dumoulin et al. 2017)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=not classes)
        self.scale = nn.Embedding(classes, channels) if classes else None
        self.shift = nn.Embedding(classes, channels) if classes else None
        if self.scale is not None and self.shift is not None:
            nn.init.ones_(self.scale.weight)
            nn.init.zeros_(self.shift.weight)

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        normed: Tensor = self.norm(x)
        if self.scale is None or self.shift is None:
            return normed
        y = needed(labels)
        return torch.addcmul(self.shift(y)[:, :, None, None], self.scale(y)[:, :, None, None], normed)
