"""Numbers, durations and settings as the report writes them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

MISSING = "–"

STATE_NOTES = {
    "running": "or killed without notice",
    "interrupted": "saved; it can be resumed",
    "stopped": "on a non-finite number: see Health",
}

METRIC_NOTES = {
    "loss/discriminator": "the discriminator's loss, without penalties",
    "loss/generator": "the generator's loss, without penalties",
    "loss/discriminator/real": "its term on real images",
    "loss/discriminator/fake": "its term on generated images",
    "d_real": "mean discriminator output on real images",
    "d_fake": "mean discriminator output on generated images",
    "grad_norm/discriminator": "norm of the discriminator's gradient",
    "grad_norm/generator": "norm of the generator's gradient",
    "penalty/r1": "squared gradient norm of the discriminator at real images, weighted",
    "penalty/r2": "squared gradient norm of the discriminator at generated images, weighted",
    "penalty/fd_r1": "R1 by a finite difference, weighted",
    "penalty/fd_r2": "R2 by a finite difference, weighted",
    "loss/classifier": "the classifier's loss",
    "grad_norm/classifier": "norm of the classifier's gradient",
    "accuracy": "accuracy on the training batch",
    "accuracy/test": "accuracy on test images",
    "accuracy/train_adversarial": "accuracy on the training batch under the training attack",
    "accuracy/held_out": "clean accuracy on held-out images",
    "accuracy/fgsm": "accuracy on held-out images under FGSM",
    "accuracy/pgd": "accuracy on held-out images under PGD with 10 steps; selects the best checkpoint",
    "diversity": "distances between the images of a sample grid, relative to real images (1)",
    "entropy/pixels": "entropy of the pixel values of a sample grid, in bits",
    "equilibrium/accuracy": "the discriminator's accuracy on held-out real and generated images",
    "equilibrium/jsd_bound": "lower bound of the Jensen-Shannon divergence of real and generated images, in nats",
    "equilibrium/r_v": "how far the discriminator overfits its training images, from 0 to 1",
    "loss/encoder": "the encoder's loss",
    "score/reconstruction": "root mean squared error of what generator and encoder make of held-out images",
    "loss/generator/gan": "its adversarial term, weighted",
    "loss/generator/l1": "its L1 distance to the targets, weighted",
    "loss/generator/nce": "its PatchNCE between inputs and outputs, weighted",
    "penalty/perceptual": "distance of outputs to targets in the features of an extractor, weighted",
    "quality/psnr": "PSNR on held-out images, in dB",
    "quality/ssim": "SSIM on held-out images",
    "change": "difference of translated images to their inputs, relative to that of targets: 0 is a copy",
    "quality/structure": "how well held-out images keep the structure of their inputs: 1 is kept, about 0 is unrelated",
    "quality/FD": "Fréchet distance of translated held-out images to those of the kind to translate to",
    "images_per_second": "throughput",
}


def finite(value: Any) -> float | None:
    """The value if it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def format_count(value: Any) -> str:
    """A whole number with thousands separators."""
    number = finite(value)
    return MISSING if number is None else f"{round(number):,}"


def format_number(value: Any) -> str:
    """A number to four significant digits."""
    number = finite(value)
    if number is None:
        return MISSING
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.4g}"


def format_duration(seconds: Any) -> str:
    """Seconds as ``42 s``, ``3 min 20 s`` or ``1 h 05 min``."""
    number = finite(seconds)
    if number is None:
        return MISSING
    minutes, rest = divmod(round(number), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def format_setting(value: Any) -> str:
    """A value of a configuration."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(format_setting(entry) for entry in value) or "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def format_percent(proportion: Mapping[str, Any]) -> str:
    """The ``value`` of a proportion in percent."""
    value = finite(proportion.get("value"))
    return MISSING if value is None else f"{100 * value:.1f}%"


def format_interval(proportion: Mapping[str, Any]) -> str:
    """The interval from ``low`` to ``high`` of a proportion in percent; empty if it has none."""
    low, high = finite(proportion.get("low")), finite(proportion.get("high"))
    return "" if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f}%"


def in_255ths(eps: float) -> bool:
    """Whether a radius is customarily written as a multiple of 1/255: whole steps, or quarters of the first few."""
    steps = eps * 255 * (4 if eps * 255 < 4 else 1)  # no quarters above: 0.05 would be 12.75/255
    # 0 is the same either way, and 0.2, which happens to be 51/255, is written with two decimals.
    short = eps > 0 and abs(100 * eps - round(100 * eps)) < 1e-9
    return abs(steps - round(steps)) < 1e-5 and not short


def format_eps(eps: Any) -> str:
    """A radius: ``8/255`` where that is customary, else four digits."""
    number = finite(eps)
    return f"{number * 255:.4g}/255" if number and 0 < number < 1 and in_255ths(number) else format_number(number)


def sentence(text: Any) -> str:
    """A message with a capital letter and a full stop."""
    words = str(text)
    return f"{words[:1].upper()}{words[1:]}" + ("" if words.endswith(".") else ".")
