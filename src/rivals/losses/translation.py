"""The losses of a translator: adversarial and L1 (pix2pix, Isola et al. 2017), perceptual, PatchNCE (CUT)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, l1_loss

from rivals.base import devices
from rivals.base.errors import UserError
from rivals.losses.gan import DiscriminatorOutput

LossTerms = dict[str, Tensor]

TEMPERATURE = 0.07  # of PatchNCE (Park et al. 2020, sec. 3.2)


class TranslationOutput(DiscriminatorOutput, Protocol):
    """What a loss reads, besides the discriminator's logits of targets (real) and of translated images (fake)."""

    @property
    def x(self) -> Tensor:
        """The inputs, (B, C, h, w) in [0, 1]."""

    @property
    def y(self) -> Tensor:
        """The targets, (B, C', H, W) in [0, 1]."""

    @property
    def output(self) -> Tensor:
        """The translated inputs, (B, C', H, W)."""

    @property
    def unchanged(self) -> Tensor:
        """The translated targets, (B, C', H, W)."""

    @property
    def there_and_back(self) -> Tensor:
        """The inputs, translated and back, (B, C, h, w)."""

    @property
    def back_and_there(self) -> Tensor:
        """The targets, translated back and then translated, (B, C', H, W)."""

    def patch_vectors(self, before: Tensor, after: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Unit vectors of the same patches after and before translation, (B, S, dim) each, for each feature map."""


def translation(
    gan: Callable[[DiscriminatorOutput], LossTerms] | None,
    *,
    gan_weight: float = 0.005,
    l1_weight: float = 1.0,
    nce_weight: float = 0.0,
    identity_weight: float = 0.0,
) -> Callable[[TranslationOutput], LossTerms]:
    """The weighted sum of the terms, the loss of the translator.

    With pairs ``w_gan L_GAN + w_l1 ||G(x) - y||_1``, the mean over pixels of images in [0, 1] (Isola et al. 2017, eq.
    4). Without them ``w_gan L_GAN + w_nce L_PatchNCE(x, G(x)) + w_id L_PatchNCE(y, G(y))`` (Park et al. 2020, eq. 5).

    Args:
        gan: The generator's part of a GAN loss; None for none.
        gan_weight: Its weight.
        l1_weight: Of the L1 distance to the target.
        nce_weight: Of PatchNCE between an input and what comes out.
        identity_weight: Of PatchNCE between a target and what comes out of it, which keeps changes small.

    Raises:
        UserError: a weight is negative.
    """
    weights = {"gan": gan_weight, "l1": l1_weight, "nce": nce_weight, "identity": identity_weight}
    for name, value in weights.items():
        if not value >= 0:
            raise UserError(f"the weight of {name}, {value:g}, is negative: take 0 or more")

    def loss(step: TranslationOutput) -> LossTerms:
        terms: LossTerms = {}
        if gan is not None and gan_weight:
            terms["gan"] = gan_weight * torch.stack(list(gan(step).values())).sum()
        if l1_weight:
            terms["l1"] = l1_weight * l1_loss(step.output, step.y)
        if nce_weight:
            terms["nce"] = nce_weight * patch_nce(step.patch_vectors(step.x, step.output))
        if identity_weight:
            terms["identity"] = identity_weight * patch_nce(step.patch_vectors(step.y, step.unchanged))
        return terms

    return loss


def patch_nce(vectors: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Cross-entropy of recognizing a patch among others of the same image (Park et al. 2020, eqs. 2 and 4), a scalar.

    Args:
        vectors: Unit vectors of patches after (queries) and before translation (keys), each (B, S, dim), for each
            feature map.
    """
    terms = []
    for queries, keys in vectors:
        # In float32: the cosines of patches that are alike differ by less than bf16 resolves.
        with devices.autocast(queries.device, False):
            logits = queries.float() @ keys.float().transpose(1, 2) / TEMPERATURE  # (B, S, S)
        target = torch.arange(logits.shape[1], device=logits.device).repeat(len(logits))
        terms.append(cross_entropy(logits.flatten(0, 1), target))
    return torch.stack(terms).mean()


def cycle(
    gan: Callable[[DiscriminatorOutput], LossTerms],
    *,
    gan_weight: float = 1.0,
    cycle_weight: float = 20.0,
    identity_weight: float = 10.0,
) -> Callable[[TranslationOutput], LossTerms]:
    """The loss of one of CycleGAN's two translators (Zhu et al. 2017, eqs. 1 to 3 and sec. 5.2).

    ``w_gan L_GAN + w_cycle (||F(G(x)) - x||_1 + ||G(F(y)) - y||_1) + w_id ||G(y) - y||_1``, the mean over pixels of
    images in [0, 1]: the weights are twice those of the paper, whose images are in [-1, 1].

    Args:
        gan: The generator's part of a GAN loss.
        gan_weight: Its weight.
        cycle_weight: Of the distances after a way there and back.
        identity_weight: Of the distance of a target to what comes out of it, which keeps colors.

    Raises:
        UserError: a weight is negative.
    """
    for name, value in (("gan", gan_weight), ("cycle", cycle_weight), ("identity", identity_weight)):
        if not value >= 0:
            raise UserError(f"the weight of {name}, {value:g}, is negative: take 0 or more")

    def loss(step: TranslationOutput) -> LossTerms:
        terms: LossTerms = {"gan": gan_weight * torch.stack(list(gan(step).values())).sum()}
        if cycle_weight:
            ways = l1_loss(step.there_and_back, step.x) + l1_loss(step.back_and_there, step.y)
            terms["cycle"] = cycle_weight * ways
        if identity_weight:
            terms["identity"] = identity_weight * l1_loss(step.unchanged, step.y)
        return terms

    return loss


def perceptual(distance: Callable[[Tensor, Tensor], Tensor]) -> Callable[[TranslationOutput], Tensor]:
    """The mean distance of what came out to the targets in the features of a network (Johnson et al. 2016, eq. 2).

    Args:
        distance: Images (B, C, H, W) in [0, 1], twice, to distances (B,), differentiable.
    """

    def score(step: TranslationOutput) -> Tensor:
        return distance(step.output, step.y).mean()

    return score
