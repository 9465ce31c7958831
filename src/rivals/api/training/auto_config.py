"""The recipe ``auto``: measure the speed of this machine, then apply the rules."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rivals.base import devices, rng
from rivals.base.duration import Duration
from rivals.base.run_folder import Record
from rivals.recipes import Config, auto_rules

if TYPE_CHECKING:
    import torch

    from rivals.data.imageset import ImageSet

PROBE_SECONDS = 0.5  # for the rounds without a penalty, after which no more are started
PROBE_ROUNDS = 12  # of those, at most
TRAINING_SHARE = 0.9  # of the time; the rest is for sample grids, evaluations and checkpoints
_FIXES_WIDTHS = ("net", "generator_widths", "discriminator_widths")  # if the user sets one, no widths are chosen


@dataclass(frozen=True)
class FittedConfig:
    """The settings that were chosen for a run.

    Attributes:
        config: All settings.
        reasons: Why, by setting.
        images_per_second: Measured speed.
        total_images: Images that the run will see.
        memory: Peak memory of this process in bytes, or None if unknown.
    """

    config: Config
    reasons: dict[str, str]
    images_per_second: float
    total_images: float
    memory: int | None

    def written(self) -> Record:
        """The entries of ``run.json``."""
        return {
            "images_per_second": round(self.images_per_second, 1),
            "total_images": round(self.total_images),
            "memory_bytes": self.memory,
            "reasons": self.reasons,
        }

    def lines(self, images: ImageSet) -> list[str]:
        """The choices and what they cost, for the user."""
        values = self.config.written()
        chosen = {name: values[name] for name in self.reasons}
        width = max(map(len, chosen))
        lines = [f"auto: for {len(images):,} images of {images.size} px, --until '{self.config.until}'"]
        for name, value in chosen.items():
            text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
            lines.append(f"  {name:<{width}}  {text} ({self.reasons[name]})")
        minutes = self.total_images / self.images_per_second / TRAINING_SHARE / 60
        memory = f", {self.memory / 2**30:.1f} GB of memory" if self.memory else ""
        lines.append(
            f"  about {self.total_images:,.0f} images, {self.total_images / len(images):,.1f} epochs, at "
            f"{self.images_per_second:,.0f} images/s {minutes:,.1f} minutes{memory}"
        )
        return lines


def fit_config(
    images: ImageSet, given: dict[str, Any], device: torch.device, seed: int, processes: int = 1
) -> FittedConfig:
    """Fit the recipe ``auto``.

    Args:
        images: The training images.
        given: Settings of the user, which override the rules.
        device: Where training runs. It is probed for about half a second per width that could be chosen.
        seed: Seed of the probed game.
        processes: How many will play it, as fast as so many of this one.

    Raises:
        UserError: a given setting cannot work.
    """
    facts = auto_rules.DataFacts(len(images), images.size, images.channels)
    config, reasons = auto_rules.settings_for_data(facts)
    config = config.changed(**given)  # another net has no use for some of the rules' settings
    reasons = {name: reason for name, reason in reasons.items() if getattr(config, name) is not None}
    if config.precision == "auto":
        config = config.changed(precision=devices.fastest_precision(device))
    budget = auto_rules.budget(config, facts.n)
    seconds = Duration.parse(config.until).amount * 60 * TRAINING_SHARE  # used only if there is no budget in images
    speed, total = 0.0, budget or 0.0
    candidates = [config.changed(**auto_rules.widths(channels, facts)) for channels in auto_rules.LADDER]
    if any(name in given for name in _FIXES_WIDTHS):
        candidates = [config]
    rule = f"the widest with {auto_rules.IMAGES_PER_CHANNEL:,} images per channel of the first stage"
    for candidate in candidates:
        # A wider net sees no more images than the one before it: one that even so many would not fill is not probed.
        if candidate is not candidates[0] and not auto_rules.is_enough(total, candidate.generator_widths[0]):
            break
        try:
            measured = processes * probe(candidate, images, device, seed) if budget is None else 0.0
        except RuntimeError as error:
            if candidate is candidates[0] or not devices.is_out_of_memory(error):
                raise
            rule = "the widest that fits into memory"
            break
        seen = budget or measured * seconds
        # The narrowest is used however few images it sees.
        if candidate is not candidates[0] and not auto_rules.is_enough(seen, candidate.generator_widths[0]):
            break
        config, speed, total = candidate, measured, seen
    speed = speed or processes * probe(config, images, device, seed)
    if len(candidates) > 1:
        reasons |= {"generator_widths": rule, "discriminator_widths": "the same, reversed"}
    settings, more = auto_rules.settings_for_length(total, Duration.parse(config.until), facts)
    config = config.changed(**{name: value for name, value in settings.items() if name not in given})
    reasons = {name: reason for name, reason in (reasons | more).items() if name not in given}
    return FittedConfig(config, reasons, speed, total, devices.peak_memory(device))


def probe(config: Config, images: ImageSet, device: torch.device, seed: int) -> float:
    """The images per second of a game on this device, measured on a throw-away copy for about half a second."""

    from rivals.api.common.game_factory import build_game
    from rivals.data.batches import Batches

    shape: dict[str, Any] = {"size": images.size, "channels": images.channels, "classes": len(images.classes)}
    game = build_game(config, **shape, device=device, seed=seed)
    parts = 1 if config.micro_batches == "auto" else config.micro_batches
    batches = Batches(images, config.batch_size, seed=seed, micro_batches=parts, flip=config.flip)
    every = config.penalty_every

    def seconds(step: int) -> float:
        start = time.perf_counter()
        game.round(step, batches, seed=seed)["loss/generator"].item()  # which waits for the device
        return time.perf_counter() - start

    with rng.fork(device):
        seconds(0), seconds(1)  # warm-up, with and without penalties
        with_penalty = seconds(every)
        plain: list[float] = []
        start = time.perf_counter()
        while not plain or (len(plain) < PROBE_ROUNDS and time.perf_counter() - start < PROBE_SECONDS):
            plain.append(seconds(every * (1 + len(plain)) + 1))
    mean = (with_penalty + (every - 1) * sorted(plain)[len(plain) // 2]) / every
    return game.images_per_round(batches) / mean
