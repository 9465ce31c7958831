"""Losses of adversarial training: functions of the logits of clean images and of adversarial examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from rivals.base.errors import UserError

LossTerms = dict[str, Tensor]


class AdversarialOutput(Protocol):
    """What a loss reads."""

    @property
    def logits(self) -> Tensor:
        """Logits of the clean images, (B, classes)."""

    @property
    def logits_adv(self) -> Tensor:
        """Logits of the adversarial examples, (B, classes)."""

    @property
    def y(self) -> Tensor:
        """The labels, (B,)."""


Loss = Callable[[AdversarialOutput], LossTerms]


def madry(adversarial_weight: float = 1.0, label_smoothing: float = 0.0) -> Loss:
    """Cross-entropy on adversarial examples (Madry et al. 2018, eq. 2.1).

    Args:
        adversarial_weight: Weight of the adversarial loss; that of the clean loss is 1 minus it (Goodfellow et al.
            2015, sec. 6). At 1 there is no clean forward pass.
        label_smoothing: Probability that is spread evenly over all classes.

    Raises:
        UserError: ``adversarial_weight`` is not in (0, 1], or ``label_smoothing`` not in [0, 1).
    """
    if not 0 < adversarial_weight <= 1:
        raise UserError(
            f"an adversarial weight of {adversarial_weight:g} is out of range: take more than 0 and at most 1"
        )
    _check_smoothing(label_smoothing)

    def loss(output: AdversarialOutput) -> LossTerms:
        adv = cross_entropy(output.logits_adv, output.y, label_smoothing=label_smoothing)
        terms = {"adv": adversarial_weight * adv}
        if adversarial_weight < 1:
            clean = cross_entropy(output.logits, output.y, label_smoothing=label_smoothing)
            terms["clean"] = (1 - adversarial_weight) * clean
        return terms

    return loss


def trades(beta: float = 6.0, label_smoothing: float = 0.0) -> Loss:
    """``CE(p(x), y) + beta KL(p(x) || p(x'))`` (TRADES, Zhang et al. 2019, eq. 5); beta is 1 / lambda there.

    Raises:
        UserError: ``beta`` is not above 0, or ``label_smoothing`` not in [0, 1).
    """
    _check_beta(beta)
    _check_smoothing(label_smoothing)

    def loss(output: AdversarialOutput) -> LossTerms:
        log_p, log_p_adv = log_softmax(output.logits, 1), log_softmax(output.logits_adv, 1)
        # kl_div(q, p) is KL(p || q). Both arguments are differentiated, as in the authors' code.
        divergence = kl_div(log_p_adv, log_p, reduction="batchmean", log_target=True)
        clean = cross_entropy(output.logits, output.y, label_smoothing=label_smoothing)
        return {"clean": clean, "divergence": beta * divergence}

    return loss


def mart(beta: float = 5.0) -> Loss:
    """``BCE(p(x'), y) + beta KL(p(x) || p(x')) (1 - p_y(x))`` (MART, Wang et al. 2020, eq. 10).

    The boosted cross-entropy BCE adds to ``-log p_y(x')`` the margin term ``-log(1 - max_{k != y} p_k(x'))``. The
    divergence counts more for images that are misclassified without an attack.

    Raises:
        UserError: ``beta`` is not above 0.
    """
    _check_beta(beta)

    def loss(output: AdversarialOutput) -> LossTerms:
        y = output.y[:, None]
        log_p, log_p_adv = log_softmax(output.logits, 1), log_softmax(output.logits_adv, 1)
        log_other = log_p_adv.scatter(1, y, -torch.inf).amax(1)  # log max_{k != y} p_k(x')
        # log(1 - p) = log(-expm1(log p)), clamped: in float32, p may be exactly 1 and the loss infinite.
        boosted = -log_p_adv.gather(1, y)[:, 0] - torch.log((-torch.expm1(log_other)).clamp_min(1e-6))
        weight = -torch.expm1(log_p.gather(1, y)[:, 0])  # 1 - p_y(x)
        divergence = kl_div(log_p_adv, log_p, reduction="none", log_target=True).sum(1)
        return {"boosted": boosted.mean(), "divergence": beta * (divergence * weight).mean()}

    return loss


def readings(output: AdversarialOutput) -> LossTerms:
    """Accuracy on the adversarial examples of the batch."""
    return {"accuracy/train_adversarial": (output.logits_adv.detach().argmax(1) == output.y).float().mean()}


def awp(loss: Loss, gamma: float = 5e-3) -> Loss:
    """Adversarial weight perturbation: the loss at the worst weights nearby (AWP, Wu et al. 2020, eq. 7-10).

    Costs one more forward and backward pass. Biases and normalization weights are not perturbed. The pass that finds
    the perturbation leaves running statistics alone, as in the authors' code, where a copy of the network takes it.

    Args:
        loss: A loss of a step whose weights can be replaced (:meth:`rivals.game.classifier_step.ClassifierStep.at`).
        gamma: Size of the perturbation of each weight matrix, relative to its norm.

    Raises:
        UserError: ``gamma`` is not above 0.
    """
    if not gamma > 0:
        raise UserError(f"a weight perturbation of {gamma:g} is out of range: take a fraction above 0, such as 0.005")

    def perturbed(step: Any) -> LossTerms:
        # Weights that are frozen stay as they are here, too.
        weights = {name: weight for name, weight in step.weights.items() if weight.ndim > 1 and weight.requires_grad}
        with step.unchanged_buffers():
            total = torch.stack(list(loss(step).values())).sum()
        grads = torch.autograd.grad(total, list(weights.values()), allow_unused=True)
        # One ascent step along the normalized gradient, to the bound ||v_l|| <= gamma ||w_l|| of each layer. The
        # perturbed weights stay a function of the weights, so the classifier gets the gradient at w + v.
        moved = {
            name: weight + gamma * weight.detach().norm() * grad / grad.norm().clamp_min(1e-12)
            for (name, weight), grad in zip(weights.items(), grads, strict=True)
            if grad is not None  # as of a second head, which the loss does not read
        }
        return loss(step.at(moved))

    return perturbed


def _check_beta(beta: float) -> None:
    if not beta > 0:
        raise UserError(f"a beta of {beta:g} is out of range: take a weight of the divergence above 0")


def _check_smoothing(label_smoothing: float) -> None:
    if not 0 <= label_smoothing < 1:
        raise UserError(f"label smoothing of {label_smoothing:g} is out of range: take 0 (none) or more, below 1")
