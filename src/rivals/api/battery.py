"""An evaluation under way: chunk by chunk, radius by radius, part by part, each step written down before the next.

Nothing of the size of the evaluation is held but a few small numbers an image. The records in ``metrics.jsonl`` are all
that is needed to go on: a step that is recorded is not done again, and the next finds everything as it would have been.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rivals.api.pool import Pool
from rivals.api.trophies import Trophies
from rivals.attacks.ensemble import Part, assault
from rivals.attacks.frozen import Frozen
from rivals.attacks.streams import own_randomness
from rivals.base.balls import Ball
from rivals.base.seeds import derive
from rivals.metrics.robustness import CLEAN, Record, Tally, predict, verify
from rivals.reports.run import Run

BATCHES = 4  # in a chunk: few enough for memory, enough to keep batches full as images fall


@dataclass
class Chunk:
    """Images from ``start`` to ``stop`` of the order, with their labels and clean logits; read when first needed."""

    start: int
    stop: int
    x: Tensor
    y: Tensor
    said: Tensor
    logits: Tensor


@dataclass
class Battery:
    """Everything an evaluation needs, and its loop.

    Attributes:
        pool: The images.
        judge: The model as it was given, evaluated but with nothing folded: it alone says who has fallen.
        frozen: What is attacked: the same, folded, and averaged over draws if that was asked for.
        ball: Its norm and bounds count here.
        radii: The radii, rising.
        parts: The attacks, in order.
        seed: Of everything random.
        batch_size: The most images in one pass.
        draws: How often the judge looks at each image.
        run: Where steps are written down, or None.
        trophies: What becomes of adversarial images.
        show: Is told of every step.
    """

    pool: Pool
    judge: Frozen
    frozen: Frozen
    ball: Ball
    radii: list[float]
    parts: tuple[Part, ...]
    seed: int
    batch_size: int
    draws: int
    run: Run | None
    trophies: Trophies
    show: Callable[[Record], None]
    dtype: torch.dtype = torch.float32
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def play(self, tally: Tally, kept: dict[int, Record], seconds: float) -> None:
        """All steps; those in ``kept`` are entered as they are recorded.

        Args:
            tally: Is brought up to date with every step.
            kept: Records of steps done before, by number.
            seconds: Time spent before.
        """
        begun, step, size = time.perf_counter() - seconds, 0, BATCHES * self.batch_size
        for start in range(0, len(self.pool), size):
            stop = min(start + size, len(self.pool))
            chunk: Chunk | None = None
            schedule = list(self._schedule())
            for turn, (level, part) in enumerate(schedule):
                standing = tally.standing(start, stop)
                if not len(standing):
                    break
                step += 1
                record = kept.get(step)
                if record is None:
                    chunk = chunk or self.read(start, stop)
                    record = self._clean(chunk) if part is None else self._attack(chunk, standing, level, part, step)
                    eps = self.radii[level - 1] if level else 0.0
                    # Who stands is through with a part of the schedule; who has fallen, with all of it.
                    ahead = (len(standing) - len(record["felled"])) * (1 - (turn + 1) / len(schedule))
                    record = {"images": int(stop - ahead), "step": step, "level": level, "eps": eps, **record}
                    record["seconds"] = round(time.perf_counter() - begun, 3)
                    if self.run is not None:
                        self.run.append([record])
                    tally.take(record)
                    self.show({**record, "fallen": int(np.sum(tally.fell >= 0))})
                else:
                    tally.take(record)
            tally.done = stop

    def read(self, start: int, stop: int) -> Chunk:
        """Images of the order, and what the judge says of them."""
        places = np.arange(start, stop)
        x = self.pool.take(places).to(self.device, self.dtype)
        y = torch.from_numpy(self.pool.labels[places]).to(self.device)
        with own_randomness(derive(self.seed, "judge", start), self.device):
            said, logits = predict(self.judge.logits, x, batch_size=self.batch_size, draws=self.draws)
        return Chunk(start, stop, x, y, said, logits)

    def _schedule(self) -> Iterator[tuple[int, Part | None]]:
        yield 0, None
        for level in range(1, len(self.radii) + 1):
            for part in self.parts:
                yield level, part

    def _clean(self, chunk: Chunk) -> Record:
        wrong = (chunk.start + (chunk.said != chunk.y).nonzero()[:, 0]).tolist()
        return {"part": CLEAN, "attacked": chunk.stop - chunk.start, "felled": wrong, "whole": wrong}

    def _attack(self, chunk: Chunk, standing: np.ndarray[Any, Any], level: int, part: Part, step: int) -> Record:
        """One part at one radius on the images still standing; only what the judge confirms has fallen."""
        local = torch.from_numpy(standing - chunk.start).to(self.device)
        x, y = chunk.x[local], chunk.y[local]
        ball = self.ball.sized(torch.tensor(self.radii[level - 1], dtype=x.dtype))
        knobs: dict[str, Any] = {"seed": self.seed, "batch_size": self.batch_size}
        # The folded model may find a rounding error's worth of images wrong that the judge finds right: none is lost,
        # they stay among those standing.
        *_, outcome = assault(self.frozen, x, y, ball, [part], clean=chunk.logits[local], **knobs)
        if outcome.part != part.name:
            return {"part": part.name, "attacked": 0, **_NOTHING}
        claimed = outcome.fooled if self.draws == 1 else torch.ones_like(outcome.fooled)
        points, x_adv = outcome.points[claimed], outcome.x_adv[claimed]
        with own_randomness(derive(self.seed, "verify", step), self.device):
            judged = verify(
                *(self.judge.logits, x[points], y[points], x_adv, ball), batch_size=self.batch_size, draws=self.draws
            )
        fooled, whole, said = judged
        places = standing[points[fooled].cpu().numpy()]
        still = ~torch.isin(outcome.points, points[fooled])
        self.trophies.take(
            *(step, self.radii[level - 1], x[points[fooled]], x_adv[fooled], places, said[fooled].cpu().numpy()),
            rest=(x[outcome.points[still]], outcome.x_adv[still], standing[outcome.points[still].cpu().numpy()]),
        )
        return {
            "part": part.name,
            "attacked": len(outcome.points),
            "felled": places.tolist(),
            "whole": standing[points[whole].cpu().numpy()].tolist(),
            "unverified": int((outcome.fooled[claimed] & ~fooled).sum()),
            "forwards": outcome.forwards,
            "backwards": outcome.backwards,
            "part_seconds": round(outcome.seconds, 3),
        }


_NOTHING: Record = {"felled": [], "whole": [], "unverified": 0, "forwards": 0, "backwards": 0, "part_seconds": 0.0}


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Within it SIGTERM and Ctrl-C raise ``KeyboardInterrupt``, also where a shell had the latter ignored, as it does
    for jobs in the background. Steps done are written down already."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may listen to signals
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
