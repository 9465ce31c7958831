"""Augmentations of the discriminator's real and generated images, against memorization of small data sets.

All are linear in the images, so that gradient penalties can differentiate through them twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rivals.base.schedules import Clock, Schedule
from rivals.base.tensors import at_least_float32
from rivals.data.affine import QUARTER, cutout, rotation, scaling, transform_colors, translation, warp


class InstanceNoise(nn.Module):
    """Gaussian noise on real and generated images alike (Sønderby et al. 2017; Arjovsky & Bottou 2017).

    It makes the supports of the two distributions overlap, so that no discriminator separates them perfectly.

    Args:
        sigma: Standard deviation over the run, for images in [-1, 1].
    """

    def __init__(self, sigma: Schedule) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, images: Tensor, clock: Clock) -> Tensor:
        """Images (B, C, H, W) with noise added, at a point of the run."""
        return images + self.sigma.at(clock) * torch.randn_like(images)


class Compose(nn.Module):
    """Several augmentations in order.

    Args:
        transforms: Modules ``(images, clock) -> images``.
    """

    def __init__(self, transforms: Sequence[nn.Module]) -> None:
        super().__init__()
        self.transforms = nn.ModuleList(transforms)

    def forward(self, images: Tensor, clock: Clock) -> Tensor:
        """Augmented images (B, C, H, W) in [-1, 1], at a point of the run."""
        for transform in self.transforms:
            images = transform(images, clock)
        return images


class DiffAugment(nn.Module):
    """Color, translation and cutout (Zhao et al. 2020, sec. 3.3), the published policy for small data sets.

    Brightness changes by up to 0.5, saturation by a factor of 0 to 2, contrast by one of 0.5 to 1.5; the translation is
    up to an eighth of each side; the cutout has half of each. What moves in and what is cut out is 0: mid-gray.
    """

    def forward(self, images: Tensor, clock: Clock) -> Tensor:
        """Augmented images (B, C, H, W) in [-1, 1], at a point of the run."""
        n, _, height, width = images.shape

        def uniform(low: float, high: float) -> Tensor:
            return low + (high - low) * torch.rand(n, dtype=images.dtype, device=images.device)

        def each(values: Tensor) -> Tensor:
            return values.view(n, 1, 1, 1)

        # Brightness; alpha, if any, is left alone.
        color = images[:, :3] + each(uniform(-0.5, 0.5))
        if color.shape[1] == 3:
            # Saturation: the distance from gray.
            gray = color.mean(1, keepdim=True)
            color = gray + (color - gray) * each(uniform(0, 2))
        # Contrast: the distance from the mean of the image.
        mean = color.mean((1, 2, 3), keepdim=True)
        color = mean + (color - mean) * each(uniform(0.5, 1.5))
        changed = torch.cat([color, images[:, 3:]], 1)
        changed = _translate(changed, *(_shifts(n, side, images.device) for side in (width, height)), reflect=False)
        # k = side / 2 pixels, rounded up as in the paper's code, around any pixel, or for an even k any corner of one,
        # each as likely; along both axes.
        k = ((width + 1) // 2, (height + 1) // 2)
        cx, cy = (
            (torch.randint(side + 1 - cut % 2, (n,), device=images.device) + cut % 2 / 2) / side
            for side, cut in zip((width, height), k, strict=True)
        )
        return cutout(changed, cx, cy, torch.full_like(cx, k[0] / width), torch.full_like(cy, k[1] / height))


class FlipAndShift(nn.Module):
    """A random flip and a translation by up to 1/8, for consistency regularization (Zhang et al. 2020, sec. 4).

    Borders are reflected, as in StudioGAN's implementation, so that no edge tells D of the translation.
    """

    def forward(self, images: Tensor, clock: Clock) -> Tensor:
        """Flipped and translated images (B, C, H, W) in [-1, 1]; ``clock`` is unused."""
        n, _, height, width = images.shape
        flipped = torch.where(torch.rand(n, 1, 1, 1, device=images.device) < 0.5, images.flip(3), images)
        return _translate(flipped, *(_shifts(n, side, images.device) for side in (width, height)), reflect=True)


def _shifts(n: int, side: int, device: torch.device) -> Tensor:
    """Whole pixels (n,), up to an eighth of the side to either side, each as likely."""
    most = (side + 4) // 8  # rounded, as the paper's code does
    return torch.randint(-most, most + 1, (n,), device=device)


def _translate(images: Tensor, dx: Tensor, dy: Tensor, *, reflect: bool) -> Tensor:
    """Images translated by whole pixels (B,), with reflected borders or padded with 0, which is mid-gray."""
    height, width = images.shape[2:]
    rows = torch.arange(height, device=images.device) - dy[:, None]
    columns = torch.arange(width, device=images.device) - dx[:, None]
    # Reflected without repeating the border pixel: -1 is 1, and n is n - 2.
    y, x = ((side - 1) - ((side - 1) - at.abs()).abs() for at, side in ((rows, height), (columns, width)))
    index = (y[:, :, None] * width + x[:, None]).flatten(1)
    found = images.flatten(2).gather(2, index[:, None].expand(-1, images.shape[1], -1)).view(images.shape)
    if reflect:
        return found
    inside = (rows == y)[:, :, None] & (columns == x)[:, None]
    return torch.where(inside[:, None], found, 0.0)


class ADA(nn.Module):
    """Adaptive augmentation (ADA, Karras et al. 2020, app. B): 13 transformations, each with probability p.

    In order: horizontal flip, 90 degree rotations, integer translation, isotropic scaling, rotation, anisotropic
    scaling, rotation, fractional translation; brightness, contrast, luma flip, hue, saturation; cutout. Geometry is
    one bilinear warp and color one matrix per image. Gray images have no hue or saturation; alpha is not changed.
    A rectangle keeps its frame when it is turned: what leaves it is cut off, and reflections fill the rest.

    p follows a schedule or, adaptively, the discriminator: it rises while ``r_t = E[sign D(real)]`` (eq. 1), a measure
    of overfitting, is above ``target``, and falls otherwise.

    Args:
        p: Probability of each transformation over the run. With ``target`` its start is the initial p.
        target: The r_t to hold; None for a scheduled p.
        pace: Images over which an adaptive p could go from 0 to 1.
        color: Factor of p for color transformations.
    """

    p: Tensor
    sign: Tensor

    def __init__(self, p: Schedule, target: float | None = None, pace: float = 500_000, color: float = 1.0) -> None:
        super().__init__()
        self.schedule, self.target, self.pace, self.color = p, target, pace, color
        # Buffers, so that checkpoints hold the adaptive p, and micro-batches share it.
        self.register_buffer("p", torch.tensor(float(p.start)))
        self.register_buffer("sign", torch.tensor(0.0 if target is None else target))

    def adjust(self, real: Tensor, batch_size: int) -> Tensor:
        """Update an adaptive p by the r_t of the step before, and keep that of this step of ``batch_size`` images.

        A step's r_t is known after its last micro-batch: the mean of the ``sign`` of all, as of any buffer.

        Args:
            real: The discriminator's logits of the real images of a micro-batch, (n,).
            batch_size: Images of a step.

        Returns:
            r_t of the micro-batch, a scalar.
        """
        if self.target is not None:
            self.p.add_(torch.sign(self.sign - self.target) * batch_size / self.pace).clamp_(0, 1)
        return self.sign.copy_(real.detach().sign().mean()).clone()

    def forward(self, images: Tensor, clock: Clock) -> Tensor:
        """Augmented images (B, C, H, W) in [-1, 1], at a point of the run."""
        scheduled = self.schedule.at(clock)
        if self.target is None and not scheduled:
            return images
        # In half precision pixel coordinates above 256 would be rounded.
        wide = at_least_float32(images)
        p = wide.new_tensor(scheduled) if self.target is None else self.p.to(wide)
        sampler = _Sampler(p, len(wide), wide)
        warped = warp(wide, _geometry(sampler, *wide.shape[2:]))
        color_sampler = _Sampler(self.color * p, len(wide), wide)
        colored = transform_colors(warped[:, :3], _colors(color_sampler, min(3, images.shape[1])))
        changed = torch.cat([colored, warped[:, 3:]], 1)
        cx, cy = sampler.uniform(0, 1), sampler.uniform(0, 1)
        share = sampler.with_probability(torch.full_like(sampler.ones, 0.5), 0.0)
        return cutout(changed, cx, cy, share, share).to(images.dtype)


class _Sampler:
    """Random numbers for a batch of images."""

    def __init__(self, p: Tensor, n: int, like: Tensor) -> None:
        self.p, self.ones = p, torch.ones(n, dtype=like.dtype, device=like.device)

    def uniform(self, low: float, high: float) -> Tensor:
        """Uniform numbers (n,)."""
        return low + (high - low) * torch.rand_like(self.ones)

    def normal(self, sigma: float) -> Tensor:
        """Normal numbers (n,)."""
        return sigma * torch.randn_like(self.ones)

    def with_probability(self, values: Tensor, otherwise: float, p: Tensor | None = None) -> Tensor:
        """Each value with probability p, else ``otherwise``, which changes nothing."""
        chosen = torch.rand_like(self.ones) < (self.p if p is None else p)
        return torch.where(chosen, values, otherwise)


def _geometry(sampler: _Sampler, height: int, width: int) -> Tensor:
    """Maps (n, 3, 3) from output to input coordinates: the product of the inverse transformations."""
    one = sampler.ones
    # Horizontal flip with probability 1/2, and rotation by a multiple of 90 degrees.
    maps = scaling(1 - 2 * sampler.with_probability(sampler.uniform(0, 2).floor(), 0.0), one)
    maps = maps @ rotation(-QUARTER * sampler.with_probability(sampler.uniform(0, 4).floor(), 0.0))
    # Integer translation by up to 1/8 of the side.
    dx, dy = ((sampler.uniform(-0.125, 0.125) * side).round() for side in (width, height))
    chosen = sampler.with_probability(one, 0.0)
    maps = maps @ translation(-dx * chosen, -dy * chosen)
    # Isotropic scaling by 2^N(0, 0.2^2).
    size = torch.exp2(sampler.with_probability(sampler.normal(0.2), 0.0))
    maps = maps @ scaling(1 / size, 1 / size)
    # Rotation before and after anisotropic scaling: each with p_rot, so that p of the images are rotated at all.
    p_rot = 1 - torch.sqrt(1 - sampler.p)
    maps = maps @ rotation(-sampler.with_probability(sampler.uniform(-math.pi, math.pi), 0.0, p_rot))
    # Anisotropic scaling by 2^N(0, 0.2^2).
    stretch = torch.exp2(sampler.with_probability(sampler.normal(0.2), 0.0))
    maps = maps @ scaling(1 / stretch, stretch)
    maps = maps @ rotation(-sampler.with_probability(sampler.uniform(-math.pi, math.pi), 0.0, p_rot))
    # Fractional translation by N(0, 1/8^2) of the side.
    chosen = sampler.with_probability(one, 0.0)
    return maps @ translation(-sampler.normal(0.125) * width * chosen, -sampler.normal(0.125) * height * chosen)


def _colors(sampler: _Sampler, channels: int) -> Tensor:
    """Affine maps (n, channels, channels + 1) of colors in [-1, 1]; hue rotates them about the gray axis."""
    n, like = len(sampler.ones), sampler.ones
    eye = torch.eye(channels + 1, dtype=like.dtype, device=like.device)
    gray = torch.full((channels,), channels**-0.5, dtype=like.dtype, device=like.device)
    luma = torch.zeros_like(eye)
    # Projections onto the gray axis (luma) and onto the plane orthogonal to it (color).
    luma[:channels, :channels] = torch.outer(gray, gray)
    color = torch.diag(torch.cat([like.new_ones(channels), like.new_zeros(1)])) - luma
    last = eye - luma - color  # the homogeneous coordinate

    def each(values: Tensor) -> Tensor:
        return values.view(n, 1, 1)

    offset = torch.zeros_like(eye)
    offset[:channels, -1] = 1
    # Brightness by N(0, 0.2^2).
    maps = eye + each(sampler.with_probability(sampler.normal(0.2), 0.0)) * offset
    # Contrast by 2^N(0, 0.5^2).
    maps = (each(torch.exp2(sampler.with_probability(sampler.normal(0.5), 0.0))) * (luma + color) + last) @ maps
    # Luma flip: a reflection along the gray axis (Householder).
    maps = (eye - 2 * each(sampler.with_probability(sampler.uniform(0, 2).floor(), 0.0)) * luma) @ maps
    if channels == 3:
        # Hue: a rotation about the gray axis by Rodrigues' formula.
        angle = sampler.with_probability(sampler.uniform(-math.pi, math.pi), 0.0)
        cross = torch.zeros_like(eye)  # v -> gray x v; filled in place, since a copy from the host makes a GPU wait
        for i, j in ((0, 1), (1, 2), (2, 0)):
            cross[i, j], cross[j, i] = -(channels**-0.5), channels**-0.5
        maps = (luma + last + each(torch.cos(angle)) * color + each(torch.sin(angle)) * cross) @ maps
        # Saturation by 2^N(0, 1).
        saturation = torch.exp2(sampler.with_probability(sampler.normal(1.0), 0.0))
        maps = (luma + last + each(saturation) * color) @ maps
    return maps[:, :channels]
