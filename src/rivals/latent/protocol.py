"""What a generator is here."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor


class Drawing(Protocol):
    """A generator, as far as its latent space is looked at."""

    latent: int
    classes: int
    size: int
    channels: int

    def latents(self, n: int, seed: int = 0, truncation: float = 1.0) -> Tensor:
        """Normal latents (n, latent)."""

    def parameters(self) -> Any:
        """Its weights."""

    def modules(self) -> Any:
        """Its parts."""

    def __call__(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W) in [-1, 1]."""
