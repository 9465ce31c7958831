"""What is wrong, or only unwise, about a game before it begins: of its data, its length and its settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rivals.base.errors import UserError
from rivals.recipes import Config, automatic

if TYPE_CHECKING:
    from rivals.data.imageset import ImageSet

FEWEST = 10  # images: of fewer, a generator can only learn copies


def playable(config: Config, images: ImageSet) -> None:
    """Refuse a game that could teach nothing.

    Raises:
        UserError: too few images, or a length below one step.
    """
    if len(images) < FEWEST:
        raise UserError(f"'{images.name}' has {len(images)} images, too few to learn from: give {FEWEST} or more")
    wanted, step = automatic.budget(config, len(images)), config.batch * config.discriminator_turns
    if wanted is not None and wanted < step:
        raise UserError(
            f"--until '{config.until}' is {wanted:,.0f} images, less than one step of {step:,}: "
            "give a longer --until or a smaller --batch"
        )


def cautions(config: Config, images: ImageSet) -> list[str]:
    """What may well disappoint in a game that can be played, one line each."""
    from rivals.nets.canvas import Canvas

    told = []
    canvas = Canvas.of(images.size, len(config.generator_widths) if config.net == "dcgan" else 0)
    if config.net != "mlp" and canvas.side != images.size:
        told.append(f"images of {images.size} px are drawn on a canvas of {canvas.side} px, and cut out of it")
    if config.conditional and images.labels is not None:
        found, counts = np.unique(images.labels, return_counts=True)
        few = [images.classes[each] for each in found[counts < 2]]
        if few:
            names = ", ".join(f"'{name}'" for name in few[:3]) + (" and others" if len(few) > 3 else "")
            told.append(f"one image only in class {names}, which will be repeated: add images, or leave out the class")
    unbound = not any(weight.peak for weight in (config.r1, config.r2, config.gp))
    if unbound and config.loss in ("relativistic", "wasserstein"):
        told.append(
            f"the loss {config.loss} without a penalty on slopes runs away from the draw (Mescheder et al. 2018): "
            "give --r1 and --r2, or --gp, above 0"
        )
    return told
