"""The losses of Rob-GAN (Liu & Hsieh 2019): those of a GAN, and of classes as in AC-GAN (Odena et al. 2017)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor
from torch.nn.functional import cross_entropy

from rivals.losses.gan import DiscriminatorOutput, GanLoss

LossTerms = dict[str, Tensor]


class ClassOutput(DiscriminatorOutput, Protocol):
    """What a loss reads, besides the logits of real and generated images."""

    @property
    def y(self) -> Tensor:
        """Classes of real and of generated images, (B,)."""

    @property
    def real_classes(self) -> Tensor:
        """Class logits of real images, (B, classes)."""

    @property
    def fake_classes(self) -> Tensor:
        """Class logits of generated images, (B, classes)."""


def discriminator(gan: GanLoss, weight: float = 1.0) -> Callable[[ClassOutput], LossTerms]:
    """``L_S + weight L_C`` of the discriminator: the class loss is of real images alone (sec. 3.2).

    AC-GAN also lets it classify generated images, which are of no class while the generator is young.
    """

    def loss(output: ClassOutput) -> LossTerms:
        return {**gan.discriminator(output), "class": weight * cross_entropy(output.real_classes, output.y)}

    return loss


def generator(gan: GanLoss, weight: float = 1.0) -> Callable[[ClassOutput], LossTerms]:
    """``L_S + weight L_C`` of the generator: its images are to be of the class that was asked for."""

    def loss(output: ClassOutput) -> LossTerms:
        return {**gan.generator(output), "class": weight * cross_entropy(output.fake_classes, output.y)}

    return loss


def readings(gan: GanLoss) -> Callable[[ClassOutput], LossTerms]:
    """Mean outputs as of the GAN loss, and the accuracy on the adversarial examples of the batch."""

    def read(output: ClassOutput) -> LossTerms:
        right = (output.real_classes.detach().argmax(1) == output.y).float().mean()
        return {**gan.readings(output), "accuracy/train_adversarial": right}

    return read
