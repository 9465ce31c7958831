"""What a turn sees where a generator learns to fool a classifier: images, perturbed ones, the logits of both judges."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from rivals.base.evaluation_mode import evaluating
from rivals.base.schedules import Clock
from rivals.game.gan_step import GENERATOR, GanStep

CLASSIFIER = "classifier"


class AdvGanStep(GanStep):
    """One turn's view of AdvGAN (Xiao et al. 2018): a GAN whose generated images are perturbed real ones.

    To a discriminator's turn it is a :class:`GanStep`, to a classifier's turn what a
    :class:`~rivals.game.classifier_step.ClassifierStep` is. So the losses of both need not know of it.

    Args:
        args: This and ``options``: see :class:`GanStep`. The generator maps images (B, C, H, W) in [0, 1], and labels
            or targets (B,) or None, to perturbed images.
        classifier: The classifier to fool, held constant: in evaluation mode, without gradients for its weights. None
            if it is the player ``classifier``.
        strength: The share of the perturbation that is applied at a point of the run. Ball and box are convex, so any
            share of it stays in both.
        teacher: Labels of images (B, C, H, W) in [0, 1], (B,): those that a black box answers. By default the labels
            of the data.
    """

    def __init__(
        self,
        *args: Any,
        classifier: nn.Module | None = None,
        teacher: Callable[[Tensor], Tensor] | None = None,
        strength: Callable[[Clock], float] = lambda clock: 1.0,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self._classifier = classifier
        self._teacher = teacher
        self._strength = strength

    @property
    def labels(self) -> None:
        """The discriminator is not told the class."""
        return

    @cached_property
    def x(self) -> Tensor:
        """The batch, (B, C, H, W) in [0, 1]."""
        return self._real_batch[0] * (1 / 255)

    @property
    def y(self) -> Tensor:
        """Labels of the images, (B,)."""
        labels = self._real_batch[1]
        assert labels is not None, "fooling a classifier needs labels"
        return labels

    @cached_property
    def targets(self) -> Tensor | None:
        """Classes to be predicted, (B,): the generator's only target, or random wrong ones if it is told a target."""
        generator: Any = self.nets[GENERATOR]
        if generator.target is not None:
            return torch.full_like(self.y, generator.target)
        if generator.condition != "target":
            return None
        classes: int = generator.classes
        return (self.y + torch.randint_like(self.y, 1, classes)) % classes

    @cached_property
    def x_adv(self) -> Tensor:
        """The perturbed images, (B, C, H, W) in [0, 1]: constant, unless it is the generator's turn.

        A classifier learns from them as the attack makes them, in evaluation mode.
        """
        with torch.set_grad_enabled(self.mover == GENERATOR):
            generator: Any = self.nets[GENERATOR]
            told = {"none": None, "label": self.y, "target": self.targets}[generator.condition]
            with evaluating(generator) if self.mover == CLASSIFIER else contextlib.nullcontext():
                perturbed: Tensor = generator(self.x, told)
            share = self._strength(self.clock)
            return perturbed if share == 1 else self.x + share * (perturbed - self.x)

    @property
    def perturbation(self) -> Tensor:
        """What was added to the images, (B, C, H, W)."""
        return self.x_adv - self.x

    @cached_property
    def fake_images(self) -> Tensor:
        """The perturbed images in [-1, 1], as the discriminator sees them."""
        return self.x_adv * 2 - 1

    @cached_property
    def logits(self) -> Tensor:
        """The classifier's logits of the images, (B, classes)."""
        return self._classify(self.x)

    @cached_property
    def logits_adv(self) -> Tensor:
        """The classifier's logits of the perturbed images, (B, classes)."""
        return self._classify(self.x_adv)

    @cached_property
    def taught(self) -> tuple[Tensor, Tensor]:
        """What the teacher answers for the images and for the perturbed ones, each (B,)."""
        assert self._teacher is not None, "a black box needs a teacher"
        return self._teacher(self.x), self._teacher(self.x_adv)

    def _classify(self, images: Tensor) -> Tensor:
        if self._classifier is not None:
            constant: Tensor = self._classifier(images)
            return constant
        net = self.nets[CLASSIFIER]
        if self.mover == CLASSIFIER:
            learning: Tensor = net(images)
            return learning
        # As it will be attacked. In training mode it would update the running statistics of its batch norm.
        with evaluating(net):
            logits: Tensor = net(images)
        return logits
