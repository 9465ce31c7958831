"""The way back: a latent from which a generator draws a given image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from rivals.base import seeds
from rivals.base.errors import UserError
from rivals.latent.drawing import Drawing


@dataclass(frozen=True)
class Found:
    """Where images were found again.

    Attributes:
        latents: The best latent of each image, (n, latent).
        errors: The root of the mean squared error of its pixels, (n,), for pixels in [0, 1].
        starts: The same for every start, (n, starts), to see how far luck goes.
    """

    latents: Tensor
    errors: Tensor
    starts: Tensor


def invert(
    generator: Drawing,
    images: Tensor,
    *,
    labels: Tensor | None = None,
    starts: int = 8,
    steps: int = 300,
    lr: float = 0.1,
    seed: int = 0,
) -> Found:
    """Search the latents from which a generator draws these images (as Zhu et al. 2016, sec. 3, by descent alone).

    Adam descends, from several starts, the squared error of pixels at every scale down to 4 px, whose coarse terms pull
    before details fit. A latent longer than almost all that the generator was trained on is drawn back to that length.
    The best latent that any start passed through is kept.

    Args:
        generator: Searched; in evaluation mode.
        images: (n, C, H, W) in [0, 1], as the generator draws them in size and channels.
        labels: Their classes (n,), for a conditional generator.
        starts: Searches for each image.
        steps: Of each, a forward and a backward pass.
        lr: Adam's rate at the start; it falls to 0 along half a cosine.
        seed: Of the starts. A search for one image depends on nothing but this and the image's place.

    Raises:
        UserError: the images do not fit the generator, or a number is below 1.
    """
    wanted = (generator.channels, generator.size, generator.size)
    if images.ndim != 4 or tuple(images.shape[1:]) != wanted:
        raise UserError(
            f"images of shape {tuple(images.shape)} do not fit a generator of {'x'.join(map(str, wanted))}: "
            "give (n, C, H, W)"
        )
    if min(starts, steps) < 1 or not lr > 0:
        raise UserError(f"{starts} starts of {steps} steps at {lr:g} search nothing: take 1 or more, above 0")
    found = [
        _search(generator, image, None if labels is None else labels[place], place, starts, steps, lr, seed)
        for place, image in enumerate(images)
    ]
    latents, errors = (torch.stack(each) for each in zip(*found, strict=True))
    best = errors.argmin(1)
    rows = torch.arange(len(images), device=best.device)
    return Found(latents[rows, best], errors[rows, best], errors)


def _search(
    generator: Drawing, image: Tensor, label: Tensor | None, place: int, starts: int, steps: int, lr: float, seed: int
) -> tuple[Tensor, Tensor]:
    """The best latent of each start (starts, latent) and its error (starts,)."""
    first = generator.latents(starts, seeds.derive(seed, "invert", place))
    z = first.clone().requires_grad_()
    classes = None if label is None else label.expand(starts)
    target = image.to(first).expand(starts, *image.shape)
    # Of normal latents one in some 1,000 is longer than this.
    longest = generator.latent**0.5 + 2.2
    adam = torch.optim.Adam([z], lr=lr)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    best, least = first.clone(), torch.full((starts,), torch.inf, device=first.device, dtype=first.dtype)
    for step in range(steps + 1):
        with torch.enable_grad():
            drawn = (generator(z, classes) + 1) / 2
            losses = _distance(drawn, target)
        with torch.no_grad():
            errors = (drawn - target).square().mean((1, 2, 3)).sqrt()
            better = errors < least
            least = torch.where(better, errors, least)
            best[better] = z[better]
        if step == steps:
            break
        (z.grad,) = torch.autograd.grad(losses.sum(), z)
        adam.step()
        falling.step()
        with torch.no_grad():
            z.mul_((longest / z.norm(dim=1, keepdim=True)).clamp_max(1))
    return best, least


def _distance(drawn: Tensor, target: Tensor) -> Tensor:
    """Squared error of each image (B,), summed over scales, each half as wide as the one before."""
    total = (drawn - target).square().mean((1, 2, 3))
    while min(drawn.shape[2:]) >= 8:
        drawn, target = avg_pool2d(drawn, 2), avg_pool2d(target, 2)
        total = total + (drawn - target).square().mean((1, 2, 3))
    return total
