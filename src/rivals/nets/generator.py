"""What every generator is: a module from latents to images that can also be asked for finished pictures."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rivals.base import seeds
from rivals.base.errors import UserError
from rivals.nets.canvas import check_images

BLOCK = 64  # latents are drawn this many at a time, each block from a seed of its own
FIRST = 16  # the number of images in the first pass of `sample`


class Generator(nn.Module):
    """Latents (B, latent) and labels (B,) to images (B, channels, size, size) in [-1, 1].

    ``classes`` is 0 for a generator without labels. ``spec`` holds every argument that made the module, as
    plain JSON, for :func:`rivals.nets.build.rebuild`; ``about`` what a loaded network's file says of it.
    """

    def __init__(
        self,
        net: str,
        *,
        size: int,
        channels: int,
        classes: int,
        latent: int,
        widths: tuple[int, ...],
        **knobs: Any,
    ) -> None:
        super().__init__()
        check_images(size, channels, classes)
        if latent < 1:
            raise UserError(f"a latent of {latent} numbers is too short: take 1 or more")
        self.size, self.channels, self.classes, self.latent = size, channels, classes, latent
        self.about: dict[str, Any] = {}
        self.spec: dict[str, Any] = {
            "role": "generator",
            "net": net,
            "size": size,
            "channels": channels,
            "classes": classes,
            "latent": latent,
            "widths": list(widths),
            **knobs,
        }

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Draw a batch: latents (B, latent), labels (B,) int64 or None, to images (B, C, H, W) in [-1, 1]."""
        raise NotImplementedError

    def latents(self, n: int, seed: int = 0, truncation: float = 1.0) -> Tensor:
        """Normal latents (n, latent), times ``truncation``: row i depends on ``seed`` and i alone, whatever n is.

        Raises:
            UserError: n is below 1, or truncation outside [0, 2].
        """
        if not 0 <= truncation <= 2:
            raise UserError(f"truncation {truncation} is out of range: take a number from 0 to 2")
        if n < 1:
            raise UserError(f"cannot draw {n} images: ask for 1 or more")
        blocks = [
            torch.randn(BLOCK, self.latent, generator=seeds.generator("latents", seed, block), device="cpu")
            for block in range(-(-n // BLOCK))
        ]
        return torch.cat(blocks)[:n].to(next(self.parameters())) * truncation

    @torch.no_grad()
    def draw(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Finished images for latents (B, latent) and labels (B,): uint8 (B, C, H, W) on the CPU.

        The network is in evaluation mode for the call, and every module's own mode comes back after it.
        """
        like = next(self.parameters())
        with _evaluating(self):
            x: Tensor = self(z.to(like), None if labels is None else labels.to(like.device))
        return x.add(1).mul(127.5).round().clamp(0, 255).to("cpu", torch.uint8)

    def sample(
        self,
        n: int,
        *,
        seed: int = 0,
        truncation: float = 1.0,
        labels: int | Sequence[int] | Tensor | None = None,
        batch: int = 256,
    ) -> Tensor:
        """Draw n images: uint8 (n, C, H, W) on the CPU. The first k of them are ``sample(k)``, bit for bit.

        Args:
            n: How many.
            seed: Image i depends on this and on i alone (on ``batch`` only by float rounding).
            truncation: The latents are multiplied by this, so drawn towards their mean 0: below 1, more
                typical and less varied images. From 0 to 2.
            labels: The class of every image, or one for all. Without, the classes take turns: 0, 1, 2, ...
            batch: The most images in one pass through the network.

        Raises:
            UserError: n or batch below 1, truncation outside [0, 2], or labels that do not fit.
        """
        z = self.latents(n, seed, truncation)
        if batch < 1:
            raise UserError(f"a batch of {batch} images is too small: take 1 or more")
        y = self._labels(n, labels)
        # A pass's shape decides how floats are rounded in it. So an image's pass has a shape that depends on
        # the image's place alone: passes start small, double up to `batch`, the last is filled up, then cut.
        images, start = [], 0
        while start < n:
            end = start + min(max(start, FIRST), batch)
            filled = z.new_zeros(end - start, self.latent)
            filled[: n - start] = z[start:end]
            classes = None if y is None else torch.cat([y[start:end], y.new_zeros(max(0, end - n))])
            images.append(self.draw(filled, classes)[: n - start])
            start = end
        return torch.cat(images)

    def _labels(self, n: int, labels: int | Sequence[int] | Tensor | None) -> Tensor | None:
        """The label of each of n images, (n,) int64, or None for a generator without labels."""
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


@contextlib.contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode within, and every sub-module's own mode after."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
