"""The recipe ``auto``: what fits the data, the budget and the machine, by rules that are written down here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from rivals.base.schedules import Schedule
from rivals.base.spans import Span
from rivals.recipes.games import Config, auto

LADDER = (64, 96, 128, 192, 256, 384, 512)
"""Channels at the lowest resolution that a network may have; each doubling of the side halves them."""
IMAGES_A_CHANNEL = 1_500
"""How many images a run must see for each of those channels, or the next narrower network draws better."""
NARROWEST = 16
"""Fewest channels of a stage: a vector of AVX-512 holds so many."""
GAMMA = 0.3
"""Of R1 and R2 at 32 px and batch 64."""
REPEATS = 100
"""How often an image may come before the discriminator knows it by heart, and is shown changed ones instead."""


@dataclass(frozen=True)
class Facts:
    """What is known of the data.

    Attributes:
        n: Images.
        size: Their side in pixels.
        channels: 1, 3 or 4.
    """

    n: int
    size: int
    channels: int

    @property
    def stages(self) -> int:
        """How often the side is halved: until about 4 px are left. At 28 px three times drew far better than two."""
        return round(math.log2(self.size / 4))


def budget(config: Config, n: int) -> float | None:
    """Images that ``until`` comes to on a set of n; None where it is a time, which depends on the machine."""
    span = Span.parse(config.until)
    known = {"images": 1, "epochs": n, "steps": config.batch * config.discriminator_turns}
    return span.amount * known[span.unit] if span.unit in known else None


def widths(channels: int, facts: Facts) -> dict[str, Any]:
    """Both players' widths for so many channels at the lowest resolution."""
    falling = tuple(max(NARROWEST, channels >> stage) for stage in range(facts.stages))
    return {"generator_widths": falling, "discriminator_widths": falling[::-1]}


def enough(channels: int, images: float) -> bool:
    """Whether a run of so many images can fill a network of so many channels."""
    return images >= channels * IMAGES_A_CHANNEL


def basis(facts: Facts) -> tuple[Config, dict[str, str]]:
    """What follows from the data alone, with the reasons: the game of ``quick``, mirrored if that fits.

    The length of a gradient grows with the side (Karras et al. 2020 scale gamma by its square), so gamma does.
    """
    gamma = Schedule.parse(float(f"{GAMMA * (facts.size / 32) ** 2:.2g}"))
    told: dict[str, Any] = {"r1": gamma, "r2": gamma, "flip": facts.channels > 1}
    growing = f"{GAMMA:g} at 32 px, growing with the square of the side"
    why = {
        "r1": growing,
        "r2": growing,
        "flip": "colour images are seldom writing" if facts.channels > 1 else "grey images may be writing",
    }
    return auto().changed(**told), why


def course(images: float, facts: Facts) -> tuple[dict[str, Any], dict[str, str]]:
    """What follows from how many images the run will see, with the reasons."""
    seen = _round(images)
    half_life = min(max(_round(images / 20), 1_000), 500_000)
    repeats = images / facts.n
    comes = f"each image comes {repeats:,.0f} times, {'more' if repeats > REPEATS else 'no more'} than {REPEATS}"
    told: dict[str, Any] = {
        "ema": Schedule.parse(half_life),
        "augment": "diff" if repeats > REPEATS else "none",
        "generator_lr": Schedule.parse(f"1e-3 -> 2e-4 in {seen} images"),
        "discriminator_lr": Schedule.parse(f"1e-3 -> 2e-4 in {seen} images"),
    }
    why = {
        "ema": "a twentieth of the run",
        "augment": comes,
        "generator_lr": "brave at first, calm at the end",
        "discriminator_lr": "the same",
    }
    return told, why


def _round(images: float) -> int:
    """To two digits, so that a probe that is a little off changes nothing."""
    digits = max(0, math.floor(math.log10(max(images, 1))) - 1)
    unit = int(10**digits)
    return max(1, round(images / unit)) * unit
