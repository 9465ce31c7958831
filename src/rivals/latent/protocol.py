"""The interface of generators that this package uses."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from rivals.base.size import AnySize


class LatentGenerator(Protocol):
    """A generator with latents."""

    latent_dim: int
    classes: int
    channels: int

    @property
    def size(self) -> AnySize:
        """Size of its images."""

    def latents(self, n: int, seed: int = 0, truncation: float = 1.0) -> Tensor:
        """Standard normal latents (n, latent_dim)."""

    def parameters(self) -> Any:
        """Its parameters."""

    def modules(self) -> Any:
        """Its submodules."""

    def __call__(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W) in [-1, 1]."""
