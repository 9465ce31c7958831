"""The losses of a generator that learns to fool a classifier (AdvGAN, Xiao et al. 2018)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, relu

from rivals.base.errors import UserError
from rivals.losses.gan import DiscriminatorOutput

LossTerms = dict[str, Tensor]


class PerturberOutput(DiscriminatorOutput, Protocol):
    """What a loss reads, besides the discriminator's logits for clean images (real) and perturbed ones (fake)."""

    @property
    def logits_adv(self) -> Tensor:
        """The classifier's logits of the perturbed images, (B, classes)."""

    @property
    def y(self) -> Tensor:
        """The labels, (B,)."""

    @property
    def targets(self) -> Tensor | None:
        """The classes to be predicted, (B,), or None for any wrong one."""

    @property
    def perturbation(self) -> Tensor:
        """Perturbed minus clean images, (B, C, H, W)."""


def fooling(output: PerturberOutput, confidence: float) -> Tensor:
    """``max(z_y - max_{i != y} z_i, -confidence)``, or with targets ``max(max_{i != t} z_i - z_t, -confidence)``, (B,).

    The loss f of Carlini & Wagner 2017 (sec. IV-A, f_6), which AdvGAN takes (sec. 3.2).
    """
    logits, targets = output.logits_adv, output.targets
    chosen = (output.y if targets is None else targets)[:, None]
    own = logits.gather(1, chosen)[:, 0]
    other = logits.scatter(1, chosen, torch.full_like(logits[:, :1], -math.inf)).amax(1)
    gap = own - other if targets is None else other - own
    return gap.clamp_min(-confidence)


def advgan(
    gan: Callable[[DiscriminatorOutput], LossTerms] | None = None,
    *,
    confidence: float = 5.0,
    gan_weight: float = 0.1,
    norm_weight: float = 0.1,
    norm_bound: float = 1.0,
) -> Callable[[PerturberOutput], LossTerms]:
    """``L_adv + alpha L_GAN + beta L_hinge`` (Xiao et al. 2018, eq. 4), the loss of the generator.

    Args:
        gan: The generator's part of a GAN loss, which makes perturbed images look real; None for none.
        confidence: Kappa of the margin loss: a margin this far on the wrong side, in logits, is enough.
        gan_weight: Alpha.
        norm_weight: Beta, of ``max(0, ||G(x)||_2 - c)``, averaged over the batch.
        norm_bound: c: the L2 norm up to which a perturbation is free.

    Raises:
        UserError: a weight or a bound is negative.
    """
    for name, value in (
        ("confidence", confidence),
        ("gan_weight", gan_weight),
        ("norm_weight", norm_weight),
        ("norm_bound", norm_bound),
    ):
        if not value >= 0:
            raise UserError(f"{name} {value:g} is negative: take 0 or more")

    def loss(output: PerturberOutput) -> LossTerms:
        terms = {"fool": fooling(output, confidence).mean()}
        if gan is not None and gan_weight:
            terms["gan"] = gan_weight * torch.stack(list(gan(output).values())).sum()
        if norm_weight:
            norms = torch.linalg.vector_norm(output.perturbation.flatten(1), dim=1)
            terms["norm"] = norm_weight * relu(norms - norm_bound).mean()
        return terms

    return loss


class TaughtOutput(Protocol):
    """What the loss of a surrogate reads."""

    @property
    def logits(self) -> Tensor:
        """The surrogate's logits of the clean images, (B, classes)."""

    @property
    def logits_adv(self) -> Tensor:
        """Those of the perturbed images, (B, classes)."""

    @property
    def taught(self) -> tuple[Tensor, Tensor]:
        """The labels that the black box answers for both, each (B,)."""


def distillation(output: TaughtOutput) -> LossTerms:
    """Cross-entropy with the answers of a black box, on clean and on perturbed images (Xiao et al. 2018, sec. 3.3).

    The perturbed ones are what makes the distillation dynamic: the surrogate learns where the generator goes next.
    """
    clean, perturbed = output.taught
    return {"clean": cross_entropy(output.logits, clean), "adv": cross_entropy(output.logits_adv, perturbed)}
