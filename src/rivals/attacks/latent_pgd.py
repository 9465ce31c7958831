"""Latent-space attack on a defense that projects onto a generator's range (Athalye et al. 2018, sec. 5.4.2)."""

from __future__ import annotations

from typing import Any, Unpack

import torch
from torch import Tensor, nn

from rivals.attacks.attack_losses import margin
from rivals.attacks.attack_state import AttackState, CommonOptions, Model, check_at_least, image_range, prepare
from rivals.base.errors import UserError
from rivals.base.norm_balls import Ball
from rivals.base.rng import draw_per_image

BETA1, BETA2, TINY = 0.9, 0.99, 1e-8  # Adam
CHECKS = 4  # how often an image is shown to the model under attack in a trial


def latent_pgd(
    model: Model,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    generator: nn.Module,
    classifier: nn.Module | None = None,
    steps: int = 100,
    restarts: int = 1,
    lr: float = 0.05,
    weight: float = 30.0,
    clean: Tensor | None = None,
    **options: Unpack[CommonOptions],
) -> Tensor:
    """Search the latent space for an image that is misclassified and lies in the ball.

    What a generator can make is left alone by a projection onto its range. So z is moved, by Adam from random starts,
    to raise the margin of ``G(z)``, minus ``weight`` times the mean squared distance by which it lies outside of ball
    and box. Its projection onto both is the candidate.

    Args:
        model: An ``nn.Module`` from images (n, ...) to logits (n, K), or a :class:`FrozenModel`: what is to be fooled.
        x: Images (n, C, H, W) in [0, 1].
        y: Labels (n,).
        ball: The threat model.
        generator: Latents (m, latent_dim) and labels (m,) or None to images (m, C, H, W) in [-1, 1], with
            ``latent_dim`` and ``classes``.
        classifier: The classifier behind the defense, whose gradient is followed; by default ``model`` itself.
        steps: Steps per start.
        restarts: Starts; a conditional generator gets the wrong classes in turn.
        lr: Step size in the latent space.
        weight: Of the distance from the ball, in margins per mean squared error.
        clean: The model's logits for ``x``, if they are known: saves a pass.
        options: See :class:`CommonOptions`.

    Returns:
        The best candidate of each image.

    Raises:
        UserError: bad input, in one line.
    """
    check_at_least(steps, 1, "steps")
    check_at_least(restarts, 1, "restarts")
    facts: Any = generator
    if not hasattr(generator, "latent_dim"):
        raise UserError(f"a latent attack takes a generator of images from latents, not a {type(generator).__name__}")
    with prepare(model, x, y, ball, **options) as state:
        state.clean_logits(clean)
        for some in state.batches():
            for trial in range(restarts):
                indices = some[~state.finished(some)] if state.stop else some
                if len(indices):
                    _search(state, ball, facts, classifier, indices, trial, (steps, lr, weight))
        return state.best


def _search(
    state: AttackState,
    ball: Ball,
    generator: Any,
    classifier: nn.Module | None,
    indices: Tensor,
    trial: int,
    numbers: tuple[int, float, float],
) -> None:
    """One start for some images (m,)."""
    steps, lr, weight = numbers
    x, y, targets = state.x[indices], state.y[indices], state.target(indices)
    own = ball.with_eps(ball.radii(state.x)[indices])
    like, (low, high) = next(generator.parameters()), image_range(ball)
    streams = state.generators(indices, torch.full_like(indices, trial), "latent")
    z = draw_per_image(torch.randn, x, streams, size=(generator.latent_dim,)).to(like)
    labels = None
    if generator.classes:
        labels = targets if targets is not None else (y + 1 + trial % (generator.classes - 1)) % generator.classes
    first, second = torch.zeros_like(z), torch.zeros_like(z)
    for step in range(steps + 1):
        z = z.detach().requires_grad_()
        with torch.enable_grad():
            images = generator(z, labels).add(1).div(2).to(x) * (high - low) + low
            inside = own.project(images.detach(), x)
            outside = (images - inside).flatten(1).square().mean(1)
            logits = state.frozen.run(images) if classifier is None else classifier(images)
            if classifier is not None:  # FrozenModel counts its own passes
                state.frozen.forwards += len(indices)
            gain = margin(logits, y, targets) - weight * outside
        if step == steps or (step and step % max(1, steps // CHECKS) == 0):
            state.keep_best(indices, inside, state.frozen.logits(inside))
        if step == steps:
            return
        (gradient,) = torch.autograd.grad(gain, z, torch.ones_like(gain))
        state.frozen.backwards += len(indices)
        first = BETA1 * first + (1 - BETA1) * gradient
        second = BETA2 * second + (1 - BETA2) * gradient.square()
        size = (second / (1 - BETA2 ** (step + 1))).sqrt() + TINY
        z = z + lr * first / (1 - BETA1 ** (step + 1)) / size
