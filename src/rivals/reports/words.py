"""Numbers, spans of time and the state of a game, as one says them to a reader."""

from __future__ import annotations

import json
from typing import Any

from rivals.reports.history import History, number

STATES = {
    "running": "or ended without a word",
    "interrupted": "after saving; it can be resumed",
    "stopped": "by itself: see Health",
}

MEANINGS = {
    "loss/discriminator": "how badly the discriminator does, all parts together",
    "loss/generator": "how badly the generator does, all parts together",
    "loss/discriminator/real": "the discriminator's loss on real images",
    "loss/discriminator/fake": "the discriminator's loss on generated images",
    "d_real": "the discriminator's mean answer to real images",
    "d_fake": "the discriminator's mean answer to generated images",
    "grad_norm/discriminator": "length of the discriminator's gradient",
    "grad_norm/generator": "length of the generator's gradient",
    "penalty/r1": "slope of the discriminator at real images, squared",
    "penalty/r2": "slope of the discriminator at generated images, squared",
    "loss/classifier": "how badly the classifier does",
    "grad_norm/classifier": "length of the classifier's gradient",
    "accuracy": "share of the batch that is classified rightly, while learning",
    "accuracy/test": "share of test images that are classified rightly",
    "accuracy/attacked": "share of the batch that stands against its own attack, while learning",
    "accuracy/held": "share of images kept aside that are classified rightly",
    "accuracy/fgsm": "and stand against an attack in one step",
    "accuracy/pgd": "and stand against PGD in 10 steps: what the best state is chosen by",
    "diversity": "how far the images of a sheet differ from each other; real images have 1",
    "entropy/pixels": "entropy of the pixel values of a sheet, in bits",
    "equilibrium/accuracy": "share that the discriminator tells rightly of images that it has not learnt from",
    "equilibrium/jsd_bound": "the least Jensen-Shannon divergence of real and generated images, in nats",
    "equilibrium/r_v": "how far the discriminator has learnt its images by heart, from 0 to 1",
    "images_per_second": "speed",
}


def count(value: Any) -> str:
    """A whole number with its thousands marked, an en dash for none."""
    found = number(value)
    return "–" if found is None else f"{round(found):,}"


def short(value: Any) -> str:
    """A number to four digits, an en dash for none."""
    found = number(value)
    if found is None:
        return "–"
    return f"{found:,.0f}" if abs(found) >= 1000 else f"{found:.4g}"


def duration(seconds: Any) -> str:
    """Seconds as ``42 s``, ``3 min 20 s`` or ``1 h 05 min``, an en dash for none."""
    found = number(seconds)
    if found is None:
        return "–"
    minutes, rest = divmod(round(found), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def setting(value: Any) -> str:
    """A value of a configuration as it is written."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(setting(entry) for entry in value) or "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def standing(history: History) -> str:
    """Who was ahead at the end, in one or two sentences; empty where the run does not tell."""
    real, fake = history.last("d_real"), history.last("d_fake")
    if real is None or fake is None:
        return ""
    told = (
        f"Over the last twentieth of the run the discriminator gave real images {real[0]:.2f} "
        f"and generated ones {fake[0]:.2f} on average"
    )
    draw = history.equilibrium("d")
    if history.about.get("d_unit", "probability") != "probability" or draw is None:
        return f"{told}: the wider the gap, the further it is ahead."
    gap = real[0] - fake[0]
    if gap > 0.8:
        return f"{told}: it wins almost every round."
    if gap > 0.1:
        return f"{told}: it is ahead, and still tells the two apart."
    if gap > -0.05:
        return f"{told}: close to the draw at {short(draw)}."
    return f"{told}: it takes generated images for real more often than real ones."
