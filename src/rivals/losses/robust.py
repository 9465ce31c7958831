"""The losses of a classifier under attack, each a function of its answers to images and to their attacked twins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from rivals.base.errors import UserError

Parts = dict[str, Tensor]


class Answers(Protocol):
    """What a loss may look at."""

    @property
    def logits(self) -> Tensor:
        """The logits of the images, (B, classes)."""

    @property
    def logits_adv(self) -> Tensor:
        """The logits of the attacked images, (B, classes)."""

    @property
    def y(self) -> Tensor:
        """The labels, (B,)."""


Loss = Callable[[Answers], Parts]


def madry(mix: float = 1.0, smoothing: float = 0.0) -> Loss:
    """Cross-entropy with the labels on attacked images (Madry et al. 2018, eq. 2.1).

    Args:
        mix: The weight of attacked images; the rest is the plain images' (Goodfellow et al. 2015, sec. 6). With 1,
            plain images are not passed at all.
        smoothing: The share of each label that is spread evenly over all classes.

    Raises:
        UserError: ``mix`` is not in (0, 1], or ``smoothing`` not in [0, 1).
    """
    if not 0 < mix <= 1:
        raise UserError(f"a mix of {mix:g} cannot work: take the share of attacked images, above 0 and at most 1")
    _check_smoothing(smoothing)

    def loss(answers: Answers) -> Parts:
        parts = {"adv": mix * cross_entropy(answers.logits_adv, answers.y, label_smoothing=smoothing)}
        if mix < 1:
            parts["clean"] = (1 - mix) * cross_entropy(answers.logits, answers.y, label_smoothing=smoothing)
        return parts

    return loss


def trades(beta: float = 6.0, smoothing: float = 0.0) -> Loss:
    """``CE(p(x), y) + beta KL(p(x) || p(x'))`` (Zhang et al. 2019, eq. 5); both sides of the divergence learn.

    Raises:
        UserError: ``beta`` is not above 0, or ``smoothing`` not in [0, 1).
    """
    _check_beta(beta)
    _check_smoothing(smoothing)

    def loss(answers: Answers) -> Parts:
        clean, attacked = log_softmax(answers.logits, 1), log_softmax(answers.logits_adv, 1)
        divergence = kl_div(attacked, clean, reduction="batchmean", log_target=True)
        plain = cross_entropy(answers.logits, answers.y, label_smoothing=smoothing)
        return {"clean": plain, "divergence": beta * divergence}

    return loss


def mart(beta: float = 5.0) -> Loss:
    """``BCE(p(x'), y) + beta KL(p(x) || p(x')) (1 - p_y(x))`` (Wang et al. 2020, eq. 10).

    The boosted cross-entropy adds to ``-log p_y(x')`` a margin ``-log(1 - max_{k != y} p_k(x'))``; the divergence
    weighs more where the image itself is not recognised.

    Raises:
        UserError: ``beta`` is not above 0.
    """
    _check_beta(beta)

    def loss(answers: Answers) -> Parts:
        own = answers.y[:, None]
        clean, attacked = log_softmax(answers.logits, 1), log_softmax(answers.logits_adv, 1)
        rival = attacked.scatter(1, own, -torch.inf).amax(1)
        # log(1 - p) by way of expm1; a rival at p = 1 to rounding must not make it infinite.
        boosted = -attacked.gather(1, own)[:, 0] - torch.log((-torch.expm1(rival)).clamp_min(1e-6))
        doubt = -torch.expm1(clean.gather(1, own)[:, 0])
        divergence = kl_div(attacked, clean, reduction="none", log_target=True).sum(1)
        return {"boosted": boosted.mean(), "divergence": beta * (divergence * doubt).mean()}

    return loss


def readings(answers: Answers) -> Parts:
    """The share of the attacked batch that was classified rightly."""
    return {"accuracy/attacked": (answers.logits_adv.detach().argmax(1) == answers.y).float().mean()}


def awp(loss: Loss, gamma: float = 5e-3) -> Loss:
    """A loss taken at the worst of the weights nearby: adversarial weight perturbation (Wu et al. 2020, eq. 7-10).

    Each weight matrix moves along the loss's gradient by ``gamma`` times its own length; the classifier then learns
    from the gradient there. It costs one more forward and backward pass. Biases and norms stay where they are.

    Args:
        loss: Of a lesson, which can be looked at with other weights (:meth:`rivals.game.lesson.Lesson.at`).
        gamma: How far, as a share of each matrix's length.

    Raises:
        UserError: ``gamma`` is not above 0.
    """
    if not gamma > 0:
        raise UserError(f"a weight perturbation of {gamma:g} cannot work: take a share above 0, as 0.005")

    def perturbed(lesson: Any) -> Parts:
        weights = {name: weight for name, weight in lesson.weights.items() if weight.ndim > 1}
        here = torch.stack(list(loss(lesson).values())).sum()
        slopes = torch.autograd.grad(here, list(weights.values()))
        moved = {
            name: weight + gamma * weight.detach().norm() * slope / slope.norm().clamp_min(1e-12)
            for (name, weight), slope in zip(weights.items(), slopes, strict=True)
        }
        return loss(lesson.at(moved))

    return perturbed


def _check_beta(beta: float) -> None:
    if not beta > 0:
        raise UserError(f"a beta of {beta:g} cannot work: take the weight of the divergence, above 0")


def _check_smoothing(smoothing: float) -> None:
    if not 0 <= smoothing < 1:
        raise UserError(f"label smoothing of {smoothing:g} cannot work: take 0 (none) or more, below 1")
