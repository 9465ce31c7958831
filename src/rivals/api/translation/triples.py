"""Input, output and target side by side: grids in a run's samples, and evaluations on held-out images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from rivals.api.translation.judgement import block_of, judge, to_bytes
from rivals.base.duration import Duration
from rivals.base.files import make_folder
from rivals.base.run_folder import Record, Run
from rivals.data.decode import to_channels
from rivals.game.callbacks import Callback, Progress
from rivals.metrics.diversity import Diversity
from rivals.metrics.image_quality import relative_change
from rivals.reports import image_grid

if TYPE_CHECKING:
    from rivals.api.translation.image_pairs import ImagePairs
    from rivals.extractors.base import Extractor

EVALUATED = 256  # held-out images of an evaluation during the run
BY_FEATURES = 128  # of one without pairs, for which an extractor sees inputs, outputs and targets
MAX_SHARE = 0.05  # of the run's time, unless the user says how often


@torch.no_grad()
def triples(net: nn.Module, pairs: ImagePairs, n: int) -> npt.NDArray[np.uint8]:
    """Input, output and target of the first ``n`` held-out images, uint8 (3 n, C, H, W); without pairs no targets, so
    (2 n, C, H, W)."""
    device = next(net.parameters()).device
    net.eval()
    parts = []
    block = block_of(pairs)
    for first in range(0, min(n, len(pairs)), block):
        last = min(n, first + block, len(pairs))
        x, output = pairs.x(first, last, device), net(pairs.x(first, last, device))
        columns = [x.repeat_interleave(pairs.scale, 2).repeat_interleave(pairs.scale, 3), output]
        if pairs.paired:
            columns.append(pairs.y(first, last, device))
        parts.append(_stacked([to_bytes(each).cpu().numpy() for each in columns]))
    return np.concatenate(parts)


def _stacked(columns: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    """Images (n, C, H, W) of several kinds, one of each after the other, with equal channels."""
    channels = max(each.shape[1] for each in columns)
    alike = [to_channels(each, channels) for each in columns]
    return np.stack(alike, 1).reshape(-1, *alike[0].shape[1:])


def triple_grid(images: npt.NDArray[np.uint8], each: int) -> Any:
    """A picture of triples (``each`` 3) or pairs (2), several in a row."""
    sets = len(images) // each
    columns = max(1, min(sets, round((sets / each) ** 0.5)))
    return image_grid.make_grid(images, columns=each * columns)


class HeldOutTriples(Callback):
    """Saves a grid of triples of held-out images, always of the same ones, and judges the translator.

    With pairs by PSNR and SSIM; without by the Fréchet distance and by structure, if there is an extractor.

    Args:
        every: Time between two grids.
        run: Where they are saved.
        net: The translator that will be saved.
        pairs: Held-out images.
        n: Triples in a grid.
        extractor: Of features, where there are no pairs; None for none.
        max_share: Of the run's time; None for any.
    """

    def __init__(
        self,
        every: Duration,
        run: Run,
        net: nn.Module,
        pairs: ImagePairs,
        n: int,
        extractor: Extractor | None,
        max_share: float | None,
    ) -> None:
        self.every, self.max_share = every, max_share
        self.run, self.net, self.pairs, self.n = run, net, pairs, n
        self.extractor = extractor
        self.device = next(net.parameters()).device
        self.diversity = Diversity(pairs.targets.images, n)

    def measure(self, progress: Progress) -> Iterator[Record]:
        """The record of an evaluation."""
        images = triples(self.net, self.pairs, self.n)
        make_folder(self.run.samples)
        path = self.run.samples / f"{progress.images:09d}.png"
        image_grid.save_png(triple_grid(images, 3 if self.pairs.paired else 2), path)
        sides: Any = {"translator": self.net}
        n = EVALUATED if self.extractor is None else BY_FEATURES
        found = judge(sides, self.pairs, n=n, device=self.device, extractor=self.extractor)["translator"]
        values = {f"quality/{key}": value for key, value in found.items()}
        yield progress.record(sample_grid=f"samples/{path.name}", **values, **self._signs_of_collapse(images))

    def _signs_of_collapse(self, images: npt.NDArray[np.uint8]) -> Record:
        """The diversity of the outputs in a grid, relative to targets; without pairs also how far they left inputs."""
        each = 3 if self.pairs.paired else 2
        targets = self.pairs.targets
        inputs, outputs = (torch.from_numpy(images[start::each]) for start in (0, 1))
        found = {"diversity": self.diversity(outputs[:, : targets.channels])}
        if not self.pairs.paired:
            shown = torch.from_numpy(np.ascontiguousarray(targets.images[: len(inputs)]))
            found["change"] = relative_change(outputs, inputs, shown)
        return found
