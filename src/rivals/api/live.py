"""Scores during training: on a fixed budget of seconds, of the generator that is shown, by the same latents."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rivals.base import seeds
from rivals.base.errors import UserError
from rivals.base.spans import Span
from rivals.reports.run import Record

if TYPE_CHECKING:
    import torch

    from rivals.data.imageset import ImageSet
    from rivals.game.best import Best
    from rivals.game.play import Moment
    from rivals.nets.generator import Generator

SECONDS = 10.0  # of a score, if nothing else was asked for
LEAST, MOST = 64, 10_000  # images drawn for a score
REALS = 4  # real images for each drawn one: they are looked at once


class LiveScore:
    """The Fréchet distance of a generator to its data, again and again: of the same latents, to the same real images.

    How many images fit the budget is measured once, and stays: with few images the distance is too large, by an amount
    that depends on their number, so it is good for comparing moments of this run, and for nothing else.

    Args:
        generator: What is scored, as it is at each moment.
        images: The data.
        every: How long it is from one score to the next.
        seconds: Budget of one score.
        seed: The run's.
        device: Where the extractor works.
        kept: What :attr:`about` was in the run that is resumed.

    Attributes:
        best: Sees every score, if one was put here.
        about: The protocol: extractor and its hash, resize, n_real, n_fake, seed, seconds.

    Raises:
        UserError: no extractor can be had, or it is another one than the run began with.
    """

    def __init__(
        self,
        generator: Generator,
        images: ImageSet,
        every: Span,
        seconds: float,
        *,
        seed: int,
        device: torch.device,
        kept: Record | None,
    ) -> None:
        from rivals.api.viewing import find_extractor, look_at_real, of_set, settled
        from rivals.metrics.fidelity import title

        if not 0 < seconds <= 3600:
            raise UserError(f"--score-seconds {seconds:g} cannot work: take 1 to 3600")
        self.generator = generator
        self.every = every
        self.extractor = find_extractor(settled("auto"), device)
        if kept and (kept["extractor"], kept["extractor_hash"]) != (self.extractor.name, self.extractor.hash):
            raise UserError(
                f"the run was scored by {kept['extractor']} ({kept['extractor_hash']}), and here is "
                f"{self.extractor.name} ({self.extractor.hash}): restore it to resume"
            )
        self.seed = seeds.derive(seed, "score")
        n = kept["n_fake"] if kept else min(MOST, max(LEAST, int(seconds / self._cost())))
        source = of_set(images, REALS * n)
        self.real = look_at_real(self.extractor, source, what="real images", show=lambda what, done, n: None)
        self.key = f"score/{title('fd', self.extractor)}"
        self.best: Best | None = None
        self.about: dict[str, Any] = {
            "metric": title("fd", self.extractor),
            "extractor": self.extractor.name,
            "extractor_hash": self.extractor.hash,
            "resize": self.extractor.resize,
            "n_real": source.n,
            "n_fake": n,
            "seed": self.seed,
            "seconds": seconds,
        }

    def _cost(self) -> float:
        """Seconds that drawing and looking at one image take."""
        from rivals.api.viewing import DRAWN, look, of_generator

        source = of_generator(self.generator, DRAWN, self.seed, "")
        look(self.extractor, source, logits=False, what="", show=lambda what, done, n: None)  # the first is slow
        start = time.perf_counter()
        look(self.extractor, source, logits=False, what="", show=lambda what, done, n: None)
        return (time.perf_counter() - start) / DRAWN

    def __call__(self, moment: Moment) -> Iterator[Record]:
        """The score at a moment."""
        from rivals.api.viewing import look, of_generator
        from rivals.metrics.fidelity import distance

        source = of_generator(self.generator, self.about["n_fake"], self.seed, "")
        fake = look(self.extractor, source, logits=False, what="", show=lambda what, done, n: None)
        score = distance(self.real, fake)
        if self.best is not None:
            self.best.see(score, moment)
        place = {"images": moment.images, "step": moment.step, "seconds": round(moment.seconds, 3)}
        yield place | {self.key: score}
