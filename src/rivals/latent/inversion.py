"""GAN inversion: the latent whose image is closest to a given one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from rivals.base import rng
from rivals.base.errors import UserError
from rivals.base.size import Size
from rivals.latent.protocol import LatentGenerator

ROUNDING = 1e-6  # by which values may overstep [0, 1]


@dataclass(frozen=True)
class Inversion:
    """The result of :func:`invert`.

    Attributes:
        latents: The best latent of each image, (n, latent_dim).
        errors: Root mean squared error of its pixels in [0, 1], (n,).
        start_errors: The error of every start, (n, starts).
    """

    latents: Tensor
    errors: Tensor
    start_errors: Tensor


def invert(
    generator: LatentGenerator,
    images: Tensor,
    *,
    labels: Tensor | None = None,
    starts: int = 8,
    steps: int = 300,
    lr: float = 0.1,
    seed: int = 0,
) -> Inversion:
    """Invert images by optimization of latents (Zhu et al. 2016, sec. 3).

    Adam minimizes, from several random starts, the squared error of pixels at every scale down to 4 px; the coarse
    scales give a gradient before details match. Latents are clipped to a length that training rarely exceeds. The best
    iterate of all starts is returned.

    Args:
        generator: In evaluation mode.
        images: (n, C, H, W) in [0, 1], of the generator's size and channels.
        labels: Their classes (n,), for a conditional generator.
        starts: Random starts per image.
        steps: Optimization steps per start, each a forward and a backward pass.
        lr: Initial learning rate of Adam, with cosine decay to 0.
        seed: Of the starts. The result for an image depends only on it and on the image's index.

    Raises:
        UserError: the images do not fit the generator, are none or out of range, or a number is below 1.
    """
    wanted = (generator.channels, *Size.parse(generator.size))
    if images.ndim != 4 or tuple(images.shape[1:]) != wanted:
        raise UserError(
            f"images of shape {tuple(images.shape)} do not fit a generator of {'x'.join(map(str, wanted))}: "
            "give (n, C, H, W)"
        )
    _check_values(images)
    if min(starts, steps) < 1 or not lr > 0:
        raise UserError(f"{starts} starts of {steps} steps at {lr:g} search nothing: take 1 or more, above 0")
    found = [
        _search(generator, image, None if labels is None else labels[i], i, starts, steps, lr, seed)
        for i, image in enumerate(images)
    ]
    latents, errors = (torch.stack(each) for each in zip(*found, strict=True))
    best = errors.argmin(1)
    rows = torch.arange(len(images), device=best.device)
    return Inversion(latents[rows, best], errors[rows, best], errors)


def _check_values(images: Tensor) -> None:
    """Refuse images by which no error can be measured.

    Raises:
        UserError: there are none, of whole numbers, or with values that are not in [0, 1].
    """
    if not len(images):
        raise UserError("there are no images to invert: give 1 or more")
    if not images.is_floating_point():
        kind = str(images.dtype).removeprefix("torch.")
        raise UserError(f"images of type {kind} cannot be inverted: give floats in [0, 1], as images.float() / 255")
    low, high = (float(end) for end in torch.aminmax(images.detach()))  # NaN if any value is
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):
        raise UserError(f"images from {low:.4g} to {high:.4g} cannot be inverted: give values in [0, 1]")


def _search(
    generator: LatentGenerator,
    image: Tensor,
    label: Tensor | None,
    index: int,
    starts: int,
    steps: int,
    lr: float,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """The best latent of each start (starts, latent_dim) and its error (starts,)."""
    first = generator.latents(starts, rng.derive(seed, "invert", index))
    z = first.clone().requires_grad_()
    classes = None if label is None else label.expand(starts)
    target = image.to(first).expand(starts, *image.shape)
    # About one in 1,000 standard normal latents is longer.
    max_norm = generator.latent_dim**0.5 + 2.2
    adam = torch.optim.Adam([z], lr=lr)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    best, best_error = first.clone(), torch.full((starts,), torch.inf, device=first.device, dtype=first.dtype)
    for step in range(steps + 1):
        with torch.enable_grad():
            generated = (generator(z, classes) + 1) / 2
            losses = _distance(generated, target)
        with torch.no_grad():
            errors = (generated - target).square().mean((1, 2, 3)).sqrt()
            # Keep the best iterate: the last one need not be the best.
            better = errors < best_error
            best_error = torch.where(better, errors, best_error)
            best[better] = z[better]
        if step == steps:
            break
        # Gradients of z only: the weights of the generator get none.
        (z.grad,) = torch.autograd.grad(losses.sum(), z)
        adam.step()
        scheduler.step()
        with torch.no_grad():
            z.mul_((max_norm / z.norm(dim=1, keepdim=True)).clamp_max(1))
    return best, best_error


def _distance(generated: Tensor, target: Tensor) -> Tensor:
    """Squared error of each image (B,), summed over an image pyramid by average pooling."""
    total = (generated - target).square().mean((1, 2, 3))
    # Coarse scales have wider basins of attraction than single pixels.
    while min(generated.shape[2:]) >= 8:
        generated, target = avg_pool2d(generated, 2), avg_pool2d(target, 2)
        total = total + (generated - target).square().mean((1, 2, 3))
    return total
