"""What every GAN run saves at its end: generated images beside their nearest training images."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rivals.base.run_folder import Run

if TYPE_CHECKING:
    from torch import Tensor

    from rivals.data.imageset import ImageSet

GRID = "nearest.png"
GENERATED, NEAREST = 10, 5  # generated images, and neighbors of each, as in `rivals score`
SPEED = 100e6  # bytes of images that are searched per second on one slow core
BLOCK = 2**24  # bytes of images that are searched at a time
MAX_SHARE = 0.05  # of the run's time that the search may take


def save_nearest(run: Run, generator: Any, images: ImageSet, sample_grid: int, *, seed: int, seconds: float) -> None:
    """Save the nearest neighbors, by pixels: the features of an extractor would have to be computed first.

    All training images are searched. If that would take more than a twentieth of the run's time, nothing is saved.

    Args:
        run: Where the grid is saved and recorded.
        generator: Generates the first images of the run's sample grids.
        images: All training images.
        sample_grid: Number of images in a sample grid.
        seed: The run's seed.
        seconds: The run's time.
    """
    import torch

    from rivals.reports.image_grid import save_png
    from rivals.reports.sections.neighbors import neighbor_grid

    if images.images.nbytes / SPEED > MAX_SHARE * seconds:
        return
    n = min(GENERATED, sample_grid)
    labels = torch.arange(n) % generator.classes if generator.classes else None
    samples = generator.generate(generator.latents(sample_grid, seed)[:n], labels)
    neighbors = _nearest(images, samples, min(NEAREST, len(images))).numpy()
    save_png(neighbor_grid(samples.numpy(), images.images[neighbors]), run.folder / GRID)
    run.update(nearest_images={"grid": GRID, "space": "pixels", "n_generated": n, "n_train": len(images)})


def _nearest(images: ImageSet, samples: Tensor, k: int) -> Tensor:
    """Indices (m, k) of the k images nearest to each sample, searched block by block: they need not fit into memory."""
    import torch

    from rivals.metrics.prdc import nearest_images

    rows = max(1, BLOCK // math.prod(images.images.shape[1:]))
    indices, distances = torch.empty(len(samples), 0, dtype=torch.long), torch.empty(len(samples), 0)
    for start in range(0, len(images), rows):
        block = torch.from_numpy(images.images[start : start + rows])
        found = nearest_images(block, samples, min(k, len(block)))
        distances, order = torch.cat([distances, found.distances], 1).sort(dim=1, stable=True)
        indices = torch.cat([indices, found.indices + start], 1).gather(1, order)[:, :k]
        distances = distances[:, :k]
    return indices
