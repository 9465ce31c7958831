"""Signs of gradient masking: that attacks fail because of the model's gradients, not because it is robust.

The signs are those of Athalye et al. 2018 (sec. 3.1) and Carlini et al. 2019, looked for on a few images with small
budgets; and whether an attack left images that a few steps on another loss, or on a smoothed model, fool.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rivals.base.eps import describe_eps
from rivals.base.norm_balls import L0, L1, L2, Ball

Targets = Tensor | None  # the classes to be predicted in a targeted attack (n,), or None for an untargeted one
Attack = Callable[[Tensor, Tensor, Ball, Targets], Tensor]  # images, labels, ball, targets -> adversarial examples
Fooled = Callable[[Tensor, Tensor, Targets], Tensor]  # images, labels, targets -> which fool the model (n,)

EPS_FACTORS = (1.0, 2.0, 4.0)  # larger radii to attack at, in eps: robust accuracy must not increase
SIGNIFICANCE = 0.05  # level of the sign test: chance that two equally strong attacks raise an alarm
MAX_UNBOUNDED_ROBUST = 0.05  # share of images that may be robust even without a bound
MAX_ZERO_GRADIENT = 0.1  # share of images that may have a gradient of 0
MAX_LOSS_DECREASES = 0.05  # share of small steps along the gradient that may lower the loss
MIN_GRADIENT_FREE_GAIN = 0.02  # share of images that gradient-free stages must add for an alarm
MIN_PROBE_GAIN = 0.1  # share of images that the probes must add for an alarm
MAX_BATCH_CHANGE = 0.01  # share of the logits' range by which the rest of the batch may change them

MULTI_STEP = "multi-step"
ONE_STEP = "one-step"
NOISE = "noise"
GRADIENT_FREE = "gradient-free"
MARGIN = "margin"
DLR = "dlr"
SMOOTHED = "smoothed"
SECONDARY_PROBES = (MARGIN, DLR, SMOOTHED)  # only on images that the others left

REMEDIES = {
    "no-gradient": "attack it through a differentiable approximation (BPDA); the numbers of gradient-free attacks are "
    "only an upper bound of its robust accuracy",
    "zero-gradient": "look for rounding, a saturated softmax or clipping in the model, and attack an approximation "
    "without them",
    "one-step-beats-many": "try more steps, restarts or another loss (dlr, margin): PGD should fool at least as many",
    "noise-beats-gradient": "do not trust gradient-based attacks on this model: use square, or a differentiable "
    "approximation",
    "black-box-beats-gradient": "do not trust gradient-based attacks on this model: use square with more queries, or a "
    "differentiable approximation",
    "larger-eps-fools-fewer": "try other losses and more steps: a larger ball contains every point of a smaller one",
    "unbounded-attack-fails": "try other losses and more steps: without a bound, every image can be changed into one "
    "of another class",
    "gradient-misleads": "do not trust gradient-based attacks on this model: look for ripples, custom gradients or "
    "detached parts, and attack a smooth approximation (BPDA)",
    "weak-attack": "take a stronger attack: autoattack, or other losses (margin, dlr) and more steps; if those fail "
    "too, an approximation without saturated or staircase functions",
    "batch-dependent": "judge every image alone by --batch-size 1, or let the model normalize by fixed statistics",
    "randomized": "average over forward passes with --eot 20: otherwise the attack follows noise",
    "probabilities": "remove the final softmax: where it saturates, its gradient rounds to 0 and attacks look weak",
}


@dataclass(frozen=True)
class Alarm:
    """An alarm: its name, and what was observed."""

    alarm: str
    message: str

    def as_dict(self) -> dict[str, str]:
        """As plain values, with what to do about it."""
        return {"alarm": self.alarm, "message": self.message, "remedy": REMEDIES[self.alarm]}


@dataclass(frozen=True)
class ProbeResult:
    """What cheap attacks did to the same few images.

    Attributes:
        fooled: By attack, which images fool the model at eps (n,): they are misclassified or, in a targeted evaluation,
            classified as their targets. Those of :data:`SECONDARY_PROBES` attack only what those before them left.
        by_eps: For each radius, rising, which images :data:`MULTI_STEP` fooled (n,); the last is the full range.
        zero_gradient: Which images have a gradient of exactly 0 (n,).
        loss_decreases: For random points in the ball, whether a small step along the gradient lowers the loss
            (n, points).
        targeted: Whether all of this is about target classes.
        per_feature: Whether the radii are the largest of any feature.
    """

    fooled: Mapping[str, Tensor]
    by_eps: Sequence[tuple[float, Tensor]]
    zero_gradient: Tensor
    loss_decreases: Tensor
    targeted: bool = False
    per_feature: bool = False

    @property
    def fooled_by_any(self) -> Tensor:
        """Which images at least one attack fooled at eps (n,)."""
        return torch.stack(list(self.fooled.values())).any(0)

    def as_dict(self) -> dict[str, Any]:
        """The counts, as plain values."""
        return {
            "n": len(self.zero_gradient),
            "fooled": {name: _count(fooled) for name, fooled in self.fooled.items()},
            "larger_eps": [{"eps": eps, "fooled": _count(fooled)} for eps, fooled in self.by_eps],
            "zero_gradients": _count(self.zero_gradient),
            "falls": _count(self.loss_decreases),
        }


def probe(
    x: Tensor,
    y: Tensor,
    targets: Targets,
    ball: Ball,
    attacks: Mapping[str, Attack],
    fools: Fooled,
    gradient: Tensor,
    loss_decreases: Tensor,
) -> ProbeResult:
    """Attack a few images cheaply in several ways.

    Args:
        x: Images (n, ...) that are classified correctly.
        y: Their labels (n,).
        targets: Their target classes (n,), if the evaluation is targeted: another class is then no success.
        ball: The ball of the evaluation; its eps is one number.
        attacks: The attacks for :data:`MULTI_STEP`, :data:`ONE_STEP`, :data:`NOISE` and, if the images allow it,
            :data:`GRADIENT_FREE`; and any of :data:`SECONDARY_PROBES`, in order, after them.
        fools: Which images fool the model.
        gradient: Input gradient of the loss (n, ...).
        loss_decreases: See :class:`ProbeResult`.
    """
    eps, n = float(ball.eps), len(x)
    fooled: dict[str, Tensor] = {}
    left = torch.arange(n, device=x.device)
    for name, attack in attacks.items():
        chosen = left if name in SECONDARY_PROBES else torch.arange(n, device=x.device)
        fooled[name] = torch.zeros(n, dtype=torch.bool, device=x.device)
        if len(chosen):
            aims = None if targets is None else targets[chosen]
            fooled[name][chosen] = fools(attack(x[chosen], y[chosen], ball, aims), y[chosen], aims)
        left = left[~fooled[name][left]]
    full = full_range(ball, x)
    radii = [*(factor * eps for factor in EPS_FACTORS if factor * eps < full), full]
    # One call for all radii: eps may be one number per image.
    repeats = (len(radii), *[1] * (x.ndim - 1))
    balls = ball.with_eps(torch.tensor(radii, dtype=x.dtype, device=x.device).repeat_interleave(n))
    labels, aims = y.repeat(len(radii)), None if targets is None else targets.repeat(len(radii))
    found = fools(attacks[MULTI_STEP](x.repeat(repeats), labels, balls, aims), labels, aims)
    by_eps = list(zip(radii, torch.split(found, n), strict=True))
    return ProbeResult(
        fooled,
        by_eps,
        zero_gradient(gradient),
        loss_decreases,
        targeted=targets is not None,
        per_feature=ball.scale is not None,
    )


def zero_gradient(gradient: Tensor) -> Tensor:
    """Which images have a gradient of exactly 0 (n,)."""
    return (gradient == 0).flatten(1).all(1)


def find_alarms(result: ProbeResult) -> list[Alarm]:
    """The alarms that a probe raises."""
    n, alarms = len(result.zero_gradient), []
    zero = _count(result.zero_gradient)
    if n and zero > MAX_ZERO_GRADIENT * n:
        alarms.append(Alarm("zero-gradient", f"{zero} of {n} images have a gradient of exactly zero"))
    strong = result.fooled[MULTI_STEP]
    for name, alarm, message in (
        (NOISE, "noise-beats-gradient", "random noise fools more images than PGD"),
        (GRADIENT_FREE, "black-box-beats-gradient", "a gradient-free attack fools more images than PGD"),
        (ONE_STEP, "one-step-beats-many", "one step fools more images than many"),
    ):
        if name in result.fooled and significantly_more(result.fooled[name], strong):
            counts = f"{_count(result.fooled[name])} against {_count(strong)} of {n}"
            alarms.append(Alarm(alarm, f"{message} ({counts})"))
    for (eps, before), (larger, after) in zip(result.by_eps, result.by_eps[1:], strict=False):
        if significantly_more(before, after):
            at = describe_eps(f"{eps:.4g}", result.per_feature)
            counts = f"{_count(before)} at eps {at}; {_count(after)} at {larger:.4g}"
            alarms.append(Alarm("larger-eps-fools-fewer", f"PGD fools fewer images in a larger ball ({counts})"))
            break
    # A small step along a true gradient raises the loss, wherever it is. Only where PGD fails does it matter.
    steps = result.loss_decreases[~strong]
    if _count(steps) > max(MAX_LOSS_DECREASES * steps.numel(), 2):
        message = f"{_count(steps)} of {steps.numel()} small steps along the gradient lower the loss they should raise"
        alarms.append(Alarm("gradient-misleads", message))
    # Every image can be changed into one of another class, but no image at all may be of the target class.
    robust = n - _count(result.by_eps[-1][1])
    if not result.targeted and robust > max(MAX_UNBOUNDED_ROBUST * n, 1):
        message = f"PGD without a bound leaves {robust} of {n} images classified correctly"
        alarms.append(Alarm("unbounded-attack-fails", message))
    return alarms


def gradient_free_alarm(fooled_gradient_free: int, fooled_gradient: int, n: int) -> list[Alarm]:
    """An alarm if gradient-free stages fooled many images that gradient-based stages had not, else none.

    Args:
        fooled_gradient_free: Images that the former fooled after the latter.
        fooled_gradient: Images that the latter fooled.
        n: Images of the evaluation.
    """
    if fooled_gradient_free <= max(MIN_GRADIENT_FREE_GAIN * n, 2):
        return []
    message = (
        f"gradient-free attacks fool {fooled_gradient_free} of {n} images that gradient-based attacks did not "
        f"(those fooled {fooled_gradient})"
    )
    return [Alarm("black-box-beats-gradient", message)]


def weak_attack_alarm(fooled_by_probes_alone: int, n: int) -> list[Alarm]:
    """An alarm if the probes, at eps, fooled many images that the attack of the evaluation left, else none.

    Args:
        fooled_by_probes_alone: Images that a probe fooled and the attack did not.
        n: Images that both attacked.
    """
    if fooled_by_probes_alone <= max(MIN_PROBE_GAIN * n, 2):
        return []
    message = f"cheap probes fool {fooled_by_probes_alone} of {n} images that the attack does not"
    return [Alarm("weak-attack", message)]


def changed_by_batch(alone: Tensor, in_batch: Tensor) -> Tensor:
    """Which images (n,) have other logits alone (n, K) than in a batch with others (n, K), rounding aside.

    Rounding depends on the size of the batch, too. It is far below the tolerance: a hundredth of the range of an
    image's logits, or the root of the unit of a short floating-point type.
    """
    tolerance = max(MAX_BATCH_CHANGE, math.sqrt(torch.finfo(alone.dtype).eps))
    range_ = torch.maximum(alone.amax(1) - alone.amin(1), in_batch.amax(1) - in_batch.amin(1))
    return (alone - in_batch).abs().amax(1) > tolerance * range_


def significantly_more(one: Tensor, other: Tensor) -> bool:
    """Whether ``one`` (n,) is true more often than ``other`` (n,): a one-sided sign test on the pairs that differ."""
    wins, losses = int((one & ~other).sum()), int((other & ~one).sum())
    total = wins + losses
    p_value = sum(math.comb(total, k) for k in range(wins, total + 1)) / 2**total
    return wins > losses and p_value <= SIGNIFICANCE


def full_range(ball: Ball, x: Tensor) -> float:
    """The radius at which the ball around any image contains the whole range of images."""
    low, high = ball.bounds
    if isinstance(ball, L0):
        return float(ball.dimensions(x))
    if ball.per_feature:
        side = torch.as_tensor(high - low).to(x).expand(1, *x.shape[1:])
        if ball.scale is not None:  # features that must not change do not count
            side = side * (ball.scale > 0)
        side = ball.on_mask(side)
        return float(ball.distance(side, torch.zeros_like(side)))
    size = math.prod(x.shape[1:])
    return float(high - low) * (size if isinstance(ball, L1) else math.sqrt(size) if isinstance(ball, L2) else 1.0)


def _count(which: Tensor) -> int:
    return int(which.sum())
