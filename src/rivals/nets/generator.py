"""The base class of generators: latents to images, and seeded sampling of uint8 images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rivals.base import rng
from rivals.base.errors import UserError
from rivals.base.evaluation_mode import evaluating
from rivals.base.size import AnySize, Size
from rivals.nets.padding import WIDEST, check_image_shape

BLOCK = 64  # latents per random stream
FIRST = 16  # images in the first forward pass of `sample`


class Generator(nn.Module):
    """Latents (B, latent_dim) and labels (B,) to images (B, channels, H, W) in [-1, 1].

    Attributes:
        size: Of the images.
        classes: Number of classes; 0 for an unconditional generator.
        spec: The constructor's arguments as JSON, for :func:`rivals.nets.factory.rebuild`.
        about: What the .json file of a loaded network holds.
    """

    def __init__(
        self,
        net: str,
        *,
        size: AnySize,
        channels: int,
        classes: int,
        latent_dim: int,
        widths: tuple[int, ...],
        **options: Any,
    ) -> None:
        super().__init__()
        check_image_shape(size, channels, classes)
        if not 1 <= latent_dim <= WIDEST:
            raise UserError(f"a latent of {latent_dim} numbers is out of range: take 1 to {WIDEST:,}")
        self.size, self.channels, self.classes, self.latent_dim = Size.parse(size), channels, classes, latent_dim
        self.about: dict[str, Any] = {}
        self.spec: dict[str, Any] = {
            "role": "generator",
            "net": net,
            "size": self.size.written,
            "channels": channels,
            "classes": classes,
            "latent_dim": latent_dim,
            "widths": list(widths),
            **options,
        }

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Latents (B, latent_dim) and labels (B,) int64 or None to images (B, C, H, W) in [-1, 1]."""
        raise NotImplementedError

    def latents(self, n: int, seed: int = 0, truncation: float = 1.0) -> Tensor:
        """Standard normal latents (n, latent_dim) times ``truncation``; row i depends on ``seed`` and i only, not on n.

        Raises:
            UserError: n is below 1, or truncation outside [0, 2].
        """
        if not 0 <= truncation <= 2:
            raise UserError(f"truncation {truncation} is out of range: take a number from 0 to 2")
        if n < 1:
            raise UserError(f"cannot generate {n} images: ask for 1 or more")
        blocks = [
            torch.randn(BLOCK, self.latent_dim, generator=rng.generator("latents", seed, block), device="cpu")
            for block in range(-(-n // BLOCK))
        ]
        return torch.cat(blocks)[:n].to(next(self.parameters())) * truncation

    def latents_of_seeds(self, seeds: Sequence[int], truncation: float = 1.0) -> Tensor:
        """The first latent of each seed, (n, latent_dim).

        Raises:
            UserError: there are no seeds, or truncation is outside [0, 2].
        """
        if not len(seeds):
            raise UserError("no seeds were given, so there are no images: give one or more")
        return torch.cat([self.latents(1, seed, truncation) for seed in seeds])

    def generate(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """As :meth:`generate_on_device`, on the CPU."""
        return self.generate_on_device(z, labels).cpu()

    @torch.no_grad()
    def generate_on_device(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """uint8 images (B, C, H, W) on the generator's device, from latents (B, latent_dim) and labels (B,).

        The network is in evaluation mode during the call; every module's mode is restored afterward.
        """
        like = next(self.parameters())
        with evaluating(self):
            moved = z.to(like, non_blocking=True)
            x: Tensor = self(moved, None if labels is None else labels.to(like.device, non_blocking=True))
        # [-1, 1] to 0..255, rounded to the nearest.
        return x.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)

    def sample(
        self,
        n: int | None = None,
        *,
        seed: int = 0,
        seeds: Sequence[int] | None = None,
        truncation: float = 1.0,
        labels: int | Sequence[int] | Tensor | None = None,
        batch_size: int = 256,
    ) -> Tensor:
        """Generate n images, uint8 (n, C, H, W) on the CPU. The first k of them are ``sample(k)``, bit for bit.

        Args:
            n: Number of images.
            seed: Image i depends on it and on i only (on ``batch_size`` up to rounding).
            seeds: In place of ``n`` and ``seed``: one image for each, that of ``sample(1, seed=seed)`` up to rounding.
            truncation: Factor of the latents, from 0 to 2: below 1 images are more typical and less diverse.
            labels: The class of every image, or one for all; by default 0, 1, 2, ... in turn, or with ``seeds`` 0.
            batch_size: Largest number of images in one forward pass.

        Raises:
            UserError: n or batch_size below 1, both or neither of n and seeds, truncation outside [0, 2], or labels
                that do not fit.
        """
        passes = self.passes(n, seed=seed, seeds=seeds, truncation=truncation, labels=labels, batch_size=batch_size)
        return torch.cat([each.images() for each in passes])

    def passes(
        self,
        n: int | None = None,
        *,
        seed: int = 0,
        seeds: Sequence[int] | None = None,
        truncation: float = 1.0,
        labels: int | Sequence[int] | Tensor | None = None,
        batch_size: int = 256,
    ) -> list[Pass]:
        """The forward passes of :meth:`sample`, which takes and raises the same."""
        if (n is None) == (seeds is None):
            raise UserError(
                "give the number of images, such as sample(16), or the seed of each, such as sample(seeds=[3, 17])"
            )
        z = self.latents(n or 0, seed, truncation) if seeds is None else self.latents_of_seeds(seeds, truncation)
        n = len(z)
        labels = 0 if labels is None and seeds is not None and self.classes else labels
        if batch_size < 1:
            raise UserError(f"a batch of {batch_size} images is too small: take 1 or more")
        y = self._labels(n, labels)
        # The shape of a forward pass decides how floats are rounded in it. So the shape of an image's pass depends
        # on the image's index only: passes double from FIRST to batch_size, and the last is padded, then cut.
        passes, start = [], 0
        while start < n:
            end = start + min(max(start, FIRST), batch_size)
            classes = None if y is None else y[start:end]
            passes.append(Pass(self, z[start:end], classes, end - start))
            start = end
        return passes

    def _labels(self, n: int, labels: int | Sequence[int] | Tensor | None) -> Tensor | None:
        """The labels of n images, (n,) int64, or None for an unconditional generator."""
        if not self.classes:
            if labels is not None:
                raise UserError("this generator was trained without labels: leave labels out")
            return None
        if labels is None:
            return torch.arange(n) % self.classes
        y = torch.as_tensor(labels, device="cpu")
        if y.is_floating_point() or y.shape not in ((), (n,)):
            raise UserError(f"labels of shape {tuple(y.shape)} do not fit {n} images: give {n} whole numbers, or one")
        wrong = y[(y < 0) | (y >= self.classes)]
        if wrong.numel():
            raise UserError(f"label {wrong[0].item()} is out of range: take 0 to {self.classes - 1}")
        return y.long().expand(n)


@dataclass(frozen=True)
class Pass:
    """A forward pass of a generator.

    Attributes:
        generator: The generator.
        z: Latents (B, latent_dim).
        labels: Classes (B,), or None.
        size: Images in the pass, B or more.
    """

    generator: Generator
    z: Tensor
    labels: Tensor | None
    size: int

    def images(self) -> Tensor:
        """The images of the latents, uint8 (B, C, H, W)."""
        n = len(self.z)
        padded = torch.cat([self.z, self.z.new_zeros(self.size - n, self.z.shape[1])])
        labels = None if self.labels is None else torch.cat([self.labels, self.labels.new_zeros(self.size - n)])
        return self.generator.generate(padded, labels)[:n]
