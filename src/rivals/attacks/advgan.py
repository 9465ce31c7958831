"""The attack by a trained generator: one forward pass an image (AdvGAN, Xiao et al. 2018)."""

from __future__ import annotations

from typing import Any, Unpack

import torch
from torch import Tensor, nn

from rivals.attacks.attack_losses import strongest_others
from rivals.attacks.attack_state import AttackState, CommonOptions, Model, image_range, prepare
from rivals.base.errors import UserError
from rivals.base.norm_balls import Ball
from rivals.base.size import Size


def advgan(
    model: Model,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    generator: nn.Module,
    clean: Tensor | None = None,
    **options: Unpack[CommonOptions],
) -> Tensor:
    """Perturb each image by a generator that was trained before, and project onto ball and box.

    The model is asked only whether an image was fooled: two forward passes, and no gradient. So a generator trained
    against one model attacks any other. A generator is given what it is conditioned on: the labels; or the targets,
    which in an untargeted attack are the wrong classes with the largest logit.

    Args:
        model: An ``nn.Module`` from images (n, ...) to logits (n, K), or a :class:`FrozenModel`.
        x: Images (n, C, H, W) in the bounds of the ball.
        y: Labels (n,).
        ball: The threat model. It may differ from that of the generator: a smaller ball cuts its perturbations off, and
            a larger one leaves them as they are.
        generator: Images (b, C, H, W) in [0, 1], and labels or targets (b,) or None, to perturbed images; in evaluation
            mode, as :func:`rivals.load` gives a run of ``rivals train --against``. It has ``size``, ``channels``,
            ``condition`` ("none", "label" or "target"), the ``classes`` of that, and ``target`` (its only target class,
            or None).
        clean: The model's logits for ``x``, if they are known: saves a pass.
        options: See :class:`CommonOptions`.

    Returns:
        Images like ``x``, in ball and box; the image itself where it is misclassified as it is.

    Raises:
        UserError: bad input, in one line; the generator is for other images, classes or targets.
    """
    facts: Any = generator
    check_generator(facts, x)
    like = next(generator.parameters())
    low, high = image_range(ball)
    with prepare(model, x, y, ball, **options) as state:
        if len(state.x):
            check_classes(facts, state.frozen.classes)
            check_targets(facts, state.targets)
        clean = state.clean_logits(clean)
        for some in state.batches():
            indices = some[~state.finished(some)] if state.stop else some
            if not len(indices):
                continue
            images = state.x[indices]
            told = _told(facts, state, clean, indices)
            x_adv = generator((images.to(like) - low) / (high - low), told).to(images) * (high - low) + low
            x_adv = ball.with_eps(ball.radii(state.x)[indices]).project(x_adv, images)
            state.keep_best(indices, x_adv, state.frozen.logits(x_adv))
        return state.best


def _told(generator: Any, state: AttackState, clean: Tensor, indices: Tensor) -> Tensor | None:
    """The classes that a generator is told, (m,)."""
    if generator.condition == "none":
        return None
    if generator.condition == "label":
        return state.y[indices]
    given = state.target(indices)
    return strongest_others(clean[indices], state.y[indices], 1)[:, 0] if given is None else given


def check_generator(generator: Any, x: Tensor) -> None:
    """Refuse what is no generator of perturbations, or one for other images.

    Raises:
        UserError: it is.
    """
    if not isinstance(generator, nn.Module) or not hasattr(generator, "target"):
        raise UserError(
            f"the generator is a {type(generator).__name__} that perturbs no images: give one of a run of rivals "
            "train --against MODEL"
        )
    facts: Any = generator
    shape: tuple[int, ...] = (facts.channels, *Size.parse(facts.size))
    if isinstance(x, Tensor) and len(x) and tuple(x.shape[1:]) != shape:
        theirs, ours = (" x ".join(map(str, each)) for each in (shape, x.shape[1:]))
        raise UserError(f"the generator is for images of {theirs}, and these are {ours}: train one for such images")


def check_classes(generator: Any, classes: int) -> None:
    """Refuse a generator that is told classes for a model of another number of them.

    Raises:
        UserError: it is.
    """
    if generator.classes and generator.classes != classes:
        raise UserError(
            f"the generator is for {generator.classes} classes and the model has {classes}: train one against a model "
            f"of {classes} classes"
        )


def check_targets(generator: Any, targets: Tensor | None) -> None:
    """Refuse a generator that cannot reach the targets (n,) of an attack, if there are some.

    Raises:
        UserError: it cannot.
    """
    if targets is None or not len(targets) or generator.condition == "target":
        return
    wanted = sorted(set(torch.unique(targets).tolist()))
    if generator.target is None:
        raise UserError(
            "the generator fools into any class, and cannot be given a target: train it with --condition target or "
            "--target"
        )
    if wanted != [generator.target]:
        other = next(target for target in wanted if target != generator.target)
        raise UserError(f"the generator's only target is class {generator.target}, not {other}: train another one")
