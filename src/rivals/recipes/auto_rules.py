"""Rules of the recipe ``auto``: settings that fit the data, the budget and the machine."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from rivals.base.duration import Duration
from rivals.base.schedules import Schedule
from rivals.base.size import Size
from rivals.recipes.gan import Config, auto

LADDER = (64, 96, 128, 192, 256, 384, 512)
"""Channels that a network may have at the lowest resolution; each doubling of the side halves them."""
IMAGES_PER_CHANNEL = 1_500
"""Images that a run must see for each of those channels; with fewer, the next narrower network is better."""
MIN_CHANNELS = 16
"""Fewest channels of a stage: the float32 values in a vector register of AVX-512."""
GAMMA = 0.3
"""Gamma of R1 and R2 at 32 px and batch size 64."""
CHECKERED_STAGES = 4
"""Doublings of the resolution, as at 64 px, from which on transposed convolutions leave a checkerboard for long."""
MAX_REPEATS = 100
"""How often an image may be seen before the discriminator memorizes it, and augmentation is needed."""


@dataclass(frozen=True)
class DataFacts:
    """What the rules know of the data.

    Attributes:
        n: Number of images.
        size: Their size.
        channels: 1, 3 or 4.
    """

    n: int
    size: Size
    channels: int

    @property
    def stages(self) -> int:
        """How often the sides are halved: until about 4 px of the shorter one are left.

        At 28 px three stages were far better than two.
        """
        return round(math.log2(self.size.shorter / 4))


def budget(config: Config, n: int) -> float | None:
    """``until`` in images, for n training images; None if it is a time, which depends on the machine."""
    length = Duration.parse(config.until)
    units = {"images": 1, "epochs": n, "steps": config.batch_size * config.discriminator_turns}
    return length.amount * units[length.unit] if length.unit in units else None


def widths(channels: int, facts: DataFacts) -> dict[str, Any]:
    """The widths of both players with so many channels at the lowest resolution."""
    descending = tuple(max(MIN_CHANNELS, channels >> stage) for stage in range(facts.stages))
    return {"generator_widths": descending, "discriminator_widths": descending[::-1]}


def is_enough(images: float, channels: int) -> bool:
    """Whether a run of so many images can train a network of so many channels."""
    return images >= channels * IMAGES_PER_CHANNEL


def needed_images(recipe: str | None, channels: int) -> int:
    """About how many images a run must see before its samples are worth judging.

    Args:
        recipe: ``auto``, whose rule is for networks of so many channels; of other recipes, the least for any network.
        channels: Of the generator at its lowest resolution.
    """
    return IMAGES_PER_CHANNEL * (channels if recipe == "auto" else LADDER[0])


def settings_for_data(facts: DataFacts) -> tuple[Config, dict[str, str]]:
    """The settings that follow from the data alone, with the reasons by setting.

    Gamma grows with the number of pixels, as in ADA, Karras et al. 2020, since gradients do with the side.
    """
    gamma = Schedule.parse(float(f"{GAMMA * facts.size.area / 32**2:.2g}"))
    settings: dict[str, Any] = {"r1": gamma, "r2": gamma, "flip": facts.channels > 1}
    gamma_reason = f"{GAMMA:g} at 32x32 px, in proportion to the number of pixels"
    reasons = {
        "r1": gamma_reason,
        "r2": gamma_reason,
        "flip": "color images are rarely text" if facts.channels > 1 else "gray images may be text",
    }
    if facts.stages >= CHECKERED_STAGES:
        settings["generator_upsample"] = "nearest"
        reasons["generator_upsample"] = f"no checkerboard, which {facts.stages} transposed convolutions leave"
    return auto().changed(**settings), reasons


def settings_for_length(images: float, until: Duration, facts: DataFacts) -> tuple[dict[str, Any], dict[str, str]]:
    """The settings that follow from how many images the run will see, with the reasons by setting.

    Where its length is a time, so is that of the decay of the learning rates: a machine that gets busier or slower
    during the run changes the number of images, and the decay still ends with the run.
    """
    decay = Schedule(1e-3, 2e-4, until.amount, "minutes")
    if until.unit != "minutes":
        decay = Schedule(1e-3, 2e-4, float(_round(images)))
    half_life = min(max(_round(images / 20), 1_000), 500_000)
    repeats = images / facts.n
    augment = repeats > MAX_REPEATS
    seen = "less than once" if repeats < 1 else f"{repeats:,.0f} times"
    settings: dict[str, Any] = {
        "ema": Schedule.parse(half_life),
        "augment": "diff" if augment else "none",
        "generator_lr": decay,
        "discriminator_lr": decay,
    }
    reasons = {
        "ema": "a twentieth of the run",
        "augment": f"each image is seen {seen}, {'more' if augment else 'no more'} than {MAX_REPEATS}",
        "generator_lr": "cosine decay from 1e-3 to 2e-4",
        "discriminator_lr": "the same",
    }
    return settings, reasons


def _round(images: float) -> int:
    """To two digits, so that the noise of the measured speed changes nothing."""
    digits = max(0, math.floor(math.log10(max(images, 1))) - 1)
    unit = int(10**digits)
    return max(1, round(images / unit)) * unit
