"""Differentiable changes to the images that a discriminator sees, real and generated alike, so that it cannot learn a
small data set by heart. All are linear in the images, so penalties may differentiate through them twice."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rivals.base.schedules import Schedule
from rivals.data.warp import QUARTER, cut_out, recoloured, scaled, shifted, turned, warp


class InstanceNoise(nn.Module):
    """Gaussian noise on real and generated images alike (Sønderby et al. 2017; Arjovsky & Bottou 2017).

    It lets the two distributions overlap, so that a discriminator cannot tell them apart without error.

    Args:
        sigma: Standard deviation by images seen, for images in [-1, 1].
    """

    def __init__(self, sigma: Schedule) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, images: Tensor, seen: int) -> Tensor:
        """Images (B, C, H, W) with noise added, after ``seen`` images of training."""
        return images + self.sigma.at(seen) * torch.randn_like(images)


class Views(nn.Module):
    """Several changes, one after the other.

    Args:
        views: Each a module ``(images, seen) -> images``.
    """

    def __init__(self, views: Sequence[nn.Module]) -> None:
        super().__init__()
        self.views = nn.ModuleList(views)

    def forward(self, images: Tensor, seen: int) -> Tensor:
        """Images (B, C, H, W) in [-1, 1], changed, after ``seen`` images of training."""
        for view in self.views:
            images = view(images, seen)
        return images


class DiffAugment(nn.Module):
    """Colour, a shift and a cut-out for every image (Zhao et al. 2020, sec. 3.3): the published policy for few images.

    Brightness moves by up to 0.5, saturation is multiplied by 0 to 2, contrast by 0.5 to 1.5; the shift is up to an
    eighth of the side, into black; the cut square has half the side.
    """

    def forward(self, images: Tensor, seen: int) -> Tensor:
        """Images (B, C, H, W) in [-1, 1], changed, after ``seen`` images of training."""
        n, _, height, width = images.shape

        def even(low: float, high: float) -> Tensor:
            return low + (high - low) * torch.rand(n, dtype=images.dtype, device=images.device)

        def each(values: Tensor) -> Tensor:
            return values.view(n, 1, 1, 1)

        colour = images[:, :3] + each(even(-0.5, 0.5))
        if colour.shape[1] == 3:
            grey = colour.mean(1, keepdim=True)
            colour = grey + (colour - grey) * each(even(0, 2))
        mean = colour.mean((1, 2, 3), keepdim=True)
        colour = mean + (colour - mean) * each(even(0.5, 1.5))
        changed = torch.cat([colour, images[:, 3:]], 1)
        across, down = ((even(-0.125, 0.125) * side).round() for side in (width, height))
        changed = _moved(changed, across.long(), down.long())
        half = torch.full_like(across, 0.5)
        return cut_out(changed, even(0, 1), even(0, 1), half)


class Moved(nn.Module):
    """A mirroring and a shift by up to an eighth, which leave an image what it is (Zhang et al. 2020, sec. 4)."""

    def forward(self, images: Tensor, seen: int) -> Tensor:
        """Images (B, C, H, W) in [-1, 1], moved, after ``seen`` images of training."""
        n, _, height, width = images.shape
        chance = torch.rand(3, n, device=images.device)
        mirrored = torch.where((chance[0] < 0.5).view(n, 1, 1, 1), images.flip(3), images)
        across, down = (
            ((each - 0.5) / 4 * side).round().long() for each, side in zip(chance[1:], (width, height), strict=True)
        )
        return _moved(mirrored, across, down)


def _moved(images: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """Images moved by whole pixels (B,); black, which is -1 where images lie in [-1, 1], comes in from outside."""
    height, width = images.shape[2:]
    rows = torch.arange(height, device=images.device) - down[:, None]
    columns = torch.arange(width, device=images.device) - across[:, None]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None]
    index = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None]
    flat = images.flatten(2)
    found = flat.gather(2, index.flatten(1)[:, None].expand(-1, images.shape[1], -1)).view(images.shape)
    return torch.where(inside[:, None], found, -1.0)


class Ada(nn.Module):
    """The 13 changes of adaptive discriminator augmentation (Karras et al. 2020, app. B), each with probability p.

    In order: mirror, quarter turns, whole-pixel shift, size, rotation, anisotropy, shift; brightness, contrast, luma
    flip, hue, saturation; a cut-out. Geometry is one bilinear look-up and colour one matrix for each image. Grey
    images have no hue or saturation; alpha keeps its values.

    p follows a schedule, or, adaptively, what the discriminator says of real images: while its sign is right on more
    than ``target`` of them net of those it is wrong on (eq. 1: ``r_t = E[sign D(real)]``), p rises, else it falls.

    Args:
        p: Probability of each change, by images seen. With ``target`` it is where p starts.
        target: The r_t to hold; None for a scheduled p.
        pace: Images over which an adaptive p could go from 0 to 1.
        colour: Share of p that changes of colour have.
    """

    p: Tensor

    def __init__(self, p: Schedule, target: float | None = None, pace: float = 500_000, colour: float = 1.0) -> None:
        super().__init__()
        self.schedule, self.target, self.pace, self.colour = p, target, pace, colour
        # A buffer: what p has come to is part of the game's state, and survives a kill.
        self.register_buffer("p", torch.tensor(float(p.start)))

    def heed(self, real: Tensor) -> Tensor:
        """Let an adaptive p follow the discriminator's logits of real images, (B,). Returns r_t, a scalar."""
        sign = real.detach().sign().mean()
        if self.target is not None:
            self.p.add_(torch.sign(sign - self.target) * len(real) / self.pace).clamp_(0, 1)
        return sign

    def forward(self, images: Tensor, seen: int) -> Tensor:
        """Images (B, C, H, W) in [-1, 1], changed, after ``seen`` images of training."""
        scheduled = self.schedule.at(seen)
        if self.target is None and not scheduled:
            return images
        p = images.new_tensor(scheduled) if self.target is None else self.p.to(images)
        dice = _Dice(p, len(images), images)
        moved = warp(images, _geometry(dice, *images.shape[2:]))
        paint = _Dice(self.colour * p, len(images), images)
        painted = recoloured(moved[:, :3], _colours(paint, min(3, images.shape[1])))
        changed = torch.cat([painted, moved[:, 3:]], 1)
        return cut_out(changed, dice.even(0, 1), dice.even(0, 1), dice.some(torch.full_like(dice.ones, 0.5), 0.0))


class _Dice:
    """Draws for a batch of images."""

    def __init__(self, p: Tensor, n: int, like: Tensor) -> None:
        self.p, self.ones = p, torch.ones(n, dtype=like.dtype, device=like.device)

    def even(self, low: float, high: float) -> Tensor:
        """(n,) evenly drawn."""
        return low + (high - low) * torch.rand_like(self.ones)

    def normal(self, sigma: float) -> Tensor:
        """(n,) normal."""
        return sigma * torch.randn_like(self.ones)

    def some(self, values: Tensor, otherwise: float, p: Tensor | None = None) -> Tensor:
        """Each value with probability p, and what changes nothing in place of the others."""
        chosen = torch.rand_like(self.ones) < (self.p if p is None else p)
        return torch.where(chosen, values, otherwise)


def _geometry(dice: _Dice, height: int, width: int) -> Tensor:
    """Maps (n, 3, 3) from places in the result to places in the image: each factor is a change undone."""
    one = dice.ones
    maps = scaled(1 - 2 * dice.some(dice.even(0, 2).floor(), 0.0), one)
    maps = maps @ turned(-QUARTER * dice.some(dice.even(0, 4).floor(), 0.0))
    across, down = ((dice.even(-0.125, 0.125) * side).round() for side in (width, height))
    chosen = dice.some(one, 0.0)
    maps = maps @ shifted(-across * chosen, -down * chosen)
    size = torch.exp2(dice.some(dice.normal(0.2), 0.0))
    maps = maps @ scaled(1 / size, 1 / size)
    # Rotation stands before and after the stretch, so that together they turn p of the images.
    once = 1 - torch.sqrt(1 - dice.p)
    maps = maps @ turned(-dice.some(dice.even(-math.pi, math.pi), 0.0, once))
    stretch = torch.exp2(dice.some(dice.normal(0.2), 0.0))
    maps = maps @ scaled(1 / stretch, stretch)
    maps = maps @ turned(-dice.some(dice.even(-math.pi, math.pi), 0.0, once))
    chosen = dice.some(one, 0.0)
    return maps @ shifted(-dice.normal(0.125) * width * chosen, -dice.normal(0.125) * height * chosen)


def _colours(dice: _Dice, channels: int) -> Tensor:
    """Maps (n, channels, channels + 1) of colours in [-1, 1], which turn about the axis of greys."""
    n, like = len(dice.ones), dice.ones
    eye = torch.eye(channels + 1, dtype=like.dtype, device=like.device)
    grey = torch.full((channels,), channels**-0.5, dtype=like.dtype, device=like.device)
    luma = torch.zeros_like(eye)
    luma[:channels, :channels] = torch.outer(grey, grey)
    colour = torch.diag(torch.cat([like.new_ones(channels), like.new_zeros(1)])) - luma
    last = eye - luma - colour  # the 1 that the offset is multiplied by

    def each(values: Tensor) -> Tensor:
        return values.view(n, 1, 1)

    offset = torch.zeros_like(eye)
    offset[:channels, -1] = 1
    maps = eye + each(dice.some(dice.normal(0.2), 0.0)) * offset
    maps = (each(torch.exp2(dice.some(dice.normal(0.5), 0.0))) * (luma + colour) + last) @ maps
    maps = (eye - 2 * each(dice.some(dice.even(0, 2).floor(), 0.0)) * luma) @ maps
    if channels == 3:
        angle = dice.some(dice.even(-math.pi, math.pi), 0.0)
        cross = torch.zeros_like(eye)  # v -> grey x v
        cross[:3, :3] = grey[0] * torch.tensor([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]).to(like)
        maps = (luma + last + each(torch.cos(angle)) * colour + each(torch.sin(angle)) * cross) @ maps
        saturation = torch.exp2(dice.some(dice.normal(1.0), 0.0))
        maps = (luma + last + each(saturation) * colour) @ maps
    return maps[:, :channels]
