"""The callback of an encoder: how far images are from what comes back of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rivals.base.duration import Duration
from rivals.base.files import make_folder
from rivals.base.run_folder import Record, Run
from rivals.game.callbacks import Callback, Progress

if TYPE_CHECKING:
    from rivals.data.imageset import ImageSet

ERROR = "score/reconstruction"  # root mean squared, of images in [0, 1]
BLOCK = 500  # images in one forward pass


class ReconstructionError(Callback):
    """Measures the root mean squared error of ``G(E(x))``; saves a grid of images, each beside what comes back.

    Args:
        every: Time between two evaluations.
        run: Where the grids are saved.
        encoder: Images in [-1, 1] to latents.
        generator: Latents to images in [-1, 1].
        held_out: Images that the encoder is not trained on.
        grid: Images in a grid, half of them reconstructed.
    """

    def __init__(self, every: Duration, run: Run, encoder: Any, generator: Any, held_out: ImageSet, grid: int) -> None:
        self.every, self.run, self.encoder, self.generator, self.grid = every, run, encoder, generator, grid
        self.x = torch.from_numpy(held_out.images[:]).to(next(generator.parameters()).device) / 255

    @torch.no_grad()
    def measure(self, progress: Progress) -> Iterator[Record]:
        """The record of an evaluation."""
        from rivals.reports import image_grid

        self.encoder.eval()
        back = torch.cat([self._reconstructed(x) for x in torch.split(self.x, BLOCK)])
        half = max(1, self.grid // 2)
        pairs = torch.stack([self.x[:half], back[:half]], 1).flatten(0, 1)
        pixels = pairs.mul(255).round().to("cpu", torch.uint8)
        make_folder(self.run.samples)
        path = self.run.samples / f"{progress.images:09d}.png"
        image_grid.save_png(image_grid.make_grid(pixels.numpy()), path)
        error = float((back - self.x).square().mean().sqrt())
        yield progress.record(sample_grid=f"samples/{path.name}", **{ERROR: error})

    def _reconstructed(self, x: Tensor) -> Tensor:
        images: Tensor = self.generator(self.encoder(x * 2 - 1))
        return images.add(1).div(2).clamp(0, 1)
