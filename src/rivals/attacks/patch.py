"""An adversarial patch: a picture that decides the prediction wherever it is put (Brown et al. 2017)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Generator, Tensor
from torch.nn.functional import affine_grid, grid_sample

from rivals.attacks.adam import adam_moments
from rivals.attacks.attack_state import CommonOptions, Model, check_at_least, prepare
from rivals.base.errors import UserError
from rivals.base.rng import generator


@dataclass(frozen=True)
class Placement:
    """How a patch is put on an image, each at random and uniformly.

    Attributes:
        smallest: The least side of the patch, as a share of the image's shorter side.
        largest: The largest.
        turn: Up to this many degrees of rotation, either way.
    """

    smallest: float = 0.25
    largest: float = 0.4
    turn: float = 20.0

    def __post_init__(self) -> None:
        if not 0 < self.smallest <= self.largest <= 1:
            raise UserError(
                f"a patch of {self.smallest:g} to {self.largest:g} of the image's side cannot be: take shares above 0, "
                "at most 1, the smallest first"
            )
        if not 0 <= self.turn <= 180:
            raise UserError(f"a turn of {self.turn:g} cannot work: take 0 (none) to 180 degrees")

    def draw(self, n: int, random: Generator) -> Tensor:
        """Random numbers in [0, 1) for n images: (n, 4)."""
        return torch.rand(n, 4, generator=random)


def apply_patch(x: Tensor, patch: Tensor, placement: Placement, u: Tensor) -> Tensor:
    """Images with a round patch on each, differentiable by the patch.

    Args:
        x: Images (n, C, H, W).
        patch: (C, s, s).
        placement: Ranges of size and rotation; the patch lies inside the image.
        u: Where in them, (n, 4) in [0, 1): size, rotation, row, column.
    """
    n, height, width = len(x), *x.shape[2:]
    u = u.to(x)
    side = (placement.smallest + (placement.largest - placement.smallest) * u[:, 0]) * min(height, width)
    angle = (2 * u[:, 1] - 1) * math.radians(placement.turn)
    # The center, so that the circle stays inside; in coordinates from -1 to 1
    row = ((height - side) * (2 * u[:, 2] - 1)) / height
    column = ((width - side) * (2 * u[:, 3] - 1)) / width
    cos, sin = angle.cos() / side, angle.sin() / side
    # From a place in the image to one in the patch: moved, turned, scaled
    affine = torch.stack(
        [
            torch.stack([cos * width, sin * height, -(cos * width * column + sin * height * row)], 1),
            torch.stack([-sin * width, cos * height, -(-sin * width * column + cos * height * row)], 1),
        ],
        1,
    )
    grid = affine_grid(affine, [n, x.shape[1], height, width], align_corners=False)
    drawn = grid_sample(
        patch[None].expand(n, -1, -1, -1), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    inside = (grid.square().sum(3) <= 1)[:, None]
    return torch.where(inside, drawn, x)


@dataclass
class _Moments:
    mean: Tensor
    square: Tensor
    k: Tensor


def adversarial_patch(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    placement: Placement | None = None,
    side: int | None = None,
    steps: int = 200,
    step_size: float = 0.05,
    **options: Unpack[CommonOptions],
) -> Tensor:
    """A patch that fools at random places, sizes and rotations (Brown et al. 2017, eq. 1), by Adam on random batches.

    Args:
        model: An ``nn.Module`` from images (n, C, H, W) to logits (n, K), or a :class:`FrozenModel`.
        x: Images (n, C, H, W) in [0, 1], to learn it on. It should be evaluated on others.
        y: Labels (n,).
        placement: How it is put on images.
        side: Of the patch, in pixels; by default as large as it is shown at most.
        steps: Batches.
        step_size: Adam's learning rate.
        options: See :class:`CommonOptions`: with ``targets`` the patch is made to be seen as them; ``batch_size`` is
            that of a step.

    Returns:
        The patch (C, side, side) in [0, 1]; :func:`apply_patch` puts it on images, as a disk.

    Raises:
        UserError: bad input, in one line.
    """
    check_at_least(steps, 1, "steps")
    if not step_size > 0:
        raise UserError(f"a step size of {step_size:g} cannot work: take one above 0")
    placement = placement or Placement()
    with prepare(model, x, y, None, **options) as state:
        if x.ndim != 4:
            raise UserError(f"the images have the shape {tuple(x.shape)}: to hold a patch, they must be (n, C, H, W)")
        side = max(round(placement.largest * min(x.shape[2:])), 1) if side is None else side
        check_at_least(side, 1, "a side")
        random = generator(state.seed, "patch")
        patch = torch.full((x.shape[1], side, side), 0.5, dtype=x.dtype, device=x.device)
        if not len(state.x):
            return patch
        moments = _Moments(
            torch.zeros_like(patch)[None], torch.zeros_like(patch)[None], torch.zeros(1, device=x.device)
        )
        for _ in range(steps):
            count = min(state.batch_size, len(state.x))
            indices = torch.randint(len(state.x), (count,), generator=random).to(x.device)
            rows, u = state.rows(indices), placement.draw(count, random)
            with torch.enable_grad():
                leaf_patch = patch.detach().requires_grad_()
                patched = apply_patch(rows.x, leaf_patch, placement, u)
            leaf, logits = state.frozen.trace(patched)
            at_image = state.frozen.gradient(state.loss(logits, rows), leaf)
            gradient = torch.autograd.grad(patched, leaf_patch, at_image)[0][None] / count
            moments.k = moments.k + 1
            mean, root = adam_moments(moments, gradient)
            patch = (patch + step_size * (mean / root)[0]).clamp_(0, 1)
        return patch
