"""The Fréchet distance during training, of the network that is saved, within a time budget."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rivals.base import rng
from rivals.base.duration import Duration
from rivals.base.errors import UserError
from rivals.base.run_folder import Record
from rivals.game.callbacks import Callback, Progress

if TYPE_CHECKING:
    import torch

    from rivals.data.imageset import ImageSet
    from rivals.nets.generator import Generator

DEFAULT_SECONDS = 10.0  # of a score
MIN_IMAGES, MAX_IMAGES = 64, 10_000  # generated for a score
REAL_PER_FAKE = 4  # real images for each generated one: their features are computed only once


class FidCallback(Callback):
    """Measures the Fréchet distance of a generator to its data, always with the same latents and real images.

    How many images fit the budget is measured once. The distance of few images is too large, by an amount that depends
    on their number: it compares states of this run, and nothing else.

    Args:
        generator: The generator, as it is at each measurement.
        images: The training images.
        every: Time between two scores.
        seconds: Time budget of one score; 10 if None.
        seed: The run's seed.
        device: Device of the feature extractor.
        stored: :attr:`protocol` of the run that is resumed.

    Attributes:
        key: The score in the records.
        protocol: Extractor and its hash, resize, n_real, n_fake, how its classes are chosen, seed, seconds.

    Raises:
        UserError: no extractor is available, or it is another one than the run began with.
    """

    def __init__(
        self,
        generator: Generator,
        images: ImageSet,
        every: Duration,
        seconds: float | None,
        *,
        seed: int,
        device: torch.device,
        stored: Record | None,
    ) -> None:
        from rivals.api.scoring.feature_passes import cached_real_features, find_extractor, of_set, resolve_extractor
        from rivals.metrics.generative import display_name

        seconds = DEFAULT_SECONDS if seconds is None else seconds
        if not 0 < seconds <= 3600:
            raise UserError(f"--score-seconds {seconds:g} cannot work: take 1 to 3600")
        self.generator, self.images = generator, images
        self.every = every
        self.extractor = find_extractor(resolve_extractor("auto"), device)
        if stored and (stored["extractor"], stored["extractor_hash"]) != (self.extractor.name, self.extractor.hash):
            raise UserError(
                f"the run was scored with {stored['extractor']} ({stored['extractor_hash']}), and this is "
                f"{self.extractor.name} ({self.extractor.hash}): restore it to resume"
            )
        self.seed = rng.derive(seed, "score")
        n = stored["n_fake"] if stored else min(MAX_IMAGES, max(MIN_IMAGES, int(seconds / self._cost())))
        source = of_set(images, REAL_PER_FAKE * n)
        self.real = cached_real_features(self.extractor, source, what="real images", show=lambda what, done, n: None)
        self.key = f"score/{display_name('fd', self.extractor)}"
        self.protocol: dict[str, Any] = {
            "metric": display_name("fd", self.extractor),
            "extractor": self.extractor.name,
            "extractor_hash": self.extractor.hash,
            "resize": self.extractor.resize,
            "n_real": source.n,
            "n_fake": n,
            "fake_classes": "as in the real images" if generator.classes else None,
            "seed": self.seed,
            "seconds": seconds,
        }

    def _cost(self) -> float:
        """Seconds to generate one image and compute its features."""
        from rivals.api.scoring.feature_passes import GENERATED, extract_features, of_generator

        source = of_generator(self.generator, GENERATED, self.seed, "", self.images)
        extract_features(
            self.extractor, source, logits=False, what="", show=lambda what, done, n: None
        )  # the first is slow
        start = time.perf_counter()
        extract_features(self.extractor, source, logits=False, what="", show=lambda what, done, n: None)
        return (time.perf_counter() - start) / GENERATED

    def measure(self, progress: Progress) -> Iterator[Record]:
        """The record of a score."""
        from rivals.api.scoring.feature_passes import extract_features, of_generator
        from rivals.metrics.feature_set import frechet_of_moments

        source = of_generator(self.generator, self.protocol["n_fake"], self.seed, "", self.images)
        fake = extract_features(self.extractor, source, logits=False, what="", show=lambda what, done, n: None)
        yield progress.record(**{self.key: frechet_of_moments(self.real.moments, fake.moments)})
