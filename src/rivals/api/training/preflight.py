"""Checks before a GAN is trained: errors for what cannot work, warnings for what may disappoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from rivals.base.errors import UserError
from rivals.recipes import Config, auto_rules

if TYPE_CHECKING:
    from rivals.data.imageset import ImageSet

FEWER_AT_ONCE = 8  # the factor of the micro-batches that the note of memory compares with
MIN_IMAGES = 10  # with fewer, a generator can only memorize


def check_trainable(config: Config, images: ImageSet) -> None:
    """Refuse a game in which nothing can be learned.

    Raises:
        UserError: too few images, or a length below one step.
    """
    if len(images) < MIN_IMAGES:
        raise UserError(f"'{images.name}' has {len(images)} images, too few to learn from: give {MIN_IMAGES} or more")
    total, step = auto_rules.budget(config, len(images)), config.batch_size * config.discriminator_turns
    if total is not None and total < step:
        raise UserError(
            f"--until '{config.until}' is {total:,.0f} images, less than one step of {step:,}: "
            "give a longer --until or a smaller --batch-size"
        )


def refuse_unread(config: Config, settings: Mapping[str, Any]) -> None:
    """Refuse what was asked for where nothing reads it; a recipe's own settings, and defaults, may go unread.

    Args:
        config: Of the run.
        settings: Those that were given for it.

    Raises:
        UserError: there is one.
    """
    asked = settings.keys() & config.differences().keys()
    penalties = (config.r1, config.r2, config.gp, config.fd_r1, config.fd_r2)
    if "penalty_every" in asked and not any(weight.peak for weight in penalties):
        raise UserError(
            f"--penalty-every {config.penalty_every} has no meaning without a gradient penalty: add --r1 or --gp, or "
            "leave it out"
        )
    if "ema_rampup" in asked and not config.ema.peak:
        raise UserError(f"--ema-rampup {config.ema_rampup:g} has no meaning without an EMA: add --ema, or leave it out")


def memory_note(config: Config, images: ImageSet, processes: int) -> str:
    """What memory a step needs on each of some processes, in one line."""
    from rivals.api.training.memory import estimate_memory

    shape: dict[str, Any] = {"size": images.size, "channels": images.channels, "classes": len(images.classes)}

    def gib(parts: int) -> float:
        size = config.batch_size // processes
        return estimate_memory(config.changed(batch_size=size), **shape, micro_batches=parts // processes) / 2**30

    parts = processes if config.micro_batches == "auto" else max(config.micro_batches, processes)
    line = f"a step needs about {gib(parts):,.1f} GiB of memory on each of {processes} devices, in 32-bit floats"
    if processes == 1:
        line = f"a step needs about {gib(parts):,.1f} GiB of memory, in 32-bit floats"
    more = FEWER_AT_ONCE * parts
    if config.batch_size % more or config.batch_size < 2 * more:
        return line
    return f"{line}; with --micro-batches {more} {gib(more):,.1f} GiB"


def warnings_for(config: Config, images: ImageSet) -> list[str]:
    """What may disappoint in a game that can be trained, one line each."""
    from rivals.nets.padding import PaddedSize

    lines = []
    padded = PaddedSize.of(images.size, len(config.generator_widths) if config.net == "dcgan" else 0)
    if config.net != "mlp" and padded.padded != images.size:
        lines.append(f"images of {images.size} px are generated at {padded.padded} px and cropped")
    if config.conditional and images.labels is not None:
        present, counts = np.unique(images.labels, return_counts=True)
        single = [images.classes[label] for label in present[counts < 2]]
        if single:
            names = ", ".join(f"'{name}'" for name in single[:3]) + (" and others" if len(single) > 3 else "")
            lines.append(f"only one image in class {names}, which will be memorized: add images, or remove the class")
    unregularized = not any(weight.peak for weight in (config.r1, config.r2, config.gp, config.fd_r1, config.fd_r2))
    if unregularized and config.loss in ("relativistic", "wasserstein"):
        fix = "give --r1 and --r2, or --gp, above 0"
        if config.robust_steps:  # Rob-GAN has no penalties
            fix = "take another --loss, such as hinge"
        lines.append(f"the loss {config.loss} diverges without a gradient penalty (Mescheder et al. 2018): {fix}")
    return lines
