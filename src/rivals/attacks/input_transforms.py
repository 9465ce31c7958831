"""Transforms of the input that make gradients of a surrogate transfer: DI, SI, Admix; and TI, of the gradient.

A transform takes iterates (b, C, H, W) and returns copies of them, each (b, C, H, W), differentiably; the gradient is
the mean over the copies. It draws from one random stream per image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn.functional import conv2d

from rivals.base.registry import Registry
from rivals.base.rng import draw_per_image
from rivals.base.tensors import batch_view

DI_RATE = 0.9  # the smallest size that images are resized to, as a share of their own
DI_PROBABILITY = 1.0  # how often; the paper has 0.5, and later comparisons 1
SI_COPIES = 5
ADMIX_SHARE, ADMIX_IMAGES = 0.2, 3
TI_SIZE, TI_SIGMA = 7, 3.0  # of the Gaussian kernel, in pixels


@dataclass(frozen=True)
class Draw:
    """What a transform may draw from.

    Attributes:
        generators: A random stream for each image of the batch.
        others: All clean images of the call (n, ...).
        different: For each image of the batch and each of the call, whether their labels differ (b, n).
    """

    generators: Sequence[Generator]
    others: Tensor
    different: Tensor


Transform = Callable[[Tensor, Draw], list[Tensor]]


def diverse_inputs(x: Tensor, draw: Draw) -> list[Tensor]:
    """DI (Xie et al. 2019): resized to a random size, 0.9 of its own at least, at a random place, black around it.

    As theirs, by the nearest pixel: interpolation would smooth the gradient as well.
    """
    u = draw_per_image(torch.rand, x.detach(), draw.generators, size=(4,))
    resized = u[:, 1] < DI_PROBABILITY
    for dim, place in ((2, 3), (3, 2)):
        x = _shrunk(x, dim, u[:, 0], u[:, place], resized)
    return [x]


def _shrunk(x: Tensor, dim: int, u: Tensor, place: Tensor, resized: Tensor) -> Tensor:
    """One side of the images (b, C, H, W) shrunk to a size and moved to a place, each by a number in [0, 1) (b,)."""
    side = x.shape[dim]
    least = max(math.floor(DI_RATE * side), 1)
    size = least + (u * max(side - least, 1)).long()  # never its own size, but where that is the least one
    size = torch.where(resized, size, side)
    first = (place * (side - size + 1)).long()
    position = torch.arange(side, device=x.device) - first[:, None]
    inside = (position >= 0) & (position < size[:, None])
    source = (position * side // size[:, None]).clamp(0, side - 1)
    shape = [len(x), 1, 1, 1]
    shape[dim] = side
    moved = x.gather(dim, source.view(shape).expand_as(x))
    return torch.where(inside.view(shape), moved, 0)


def scaled_inputs(x: Tensor, draw: Draw) -> list[Tensor]:
    """SI (Lin et al. 2020): x, x / 2, x / 4, ... five copies."""
    return [x / 2**i for i in range(SI_COPIES)]


def admix(x: Tensor, draw: Draw) -> list[Tensor]:
    """Admix (Wang et al. 2021): a fifth of another image, of another class if there is one, is added; then SI.

    The other images are those of the call: alone among all, this transform makes results depend on which there are.
    """
    copies = []
    weights = draw.different.float() + torch.finfo(torch.float32).eps  # all alike where no label differs
    shares = (weights / weights.sum(1, keepdim=True)).cumsum(1)
    for _ in range(ADMIX_IMAGES):
        u = draw_per_image(torch.rand, x.detach(), draw.generators, size=())
        other = (shares < u[:, None]).sum(1).clamp_max(len(draw.others) - 1)
        copies += scaled_inputs(x + ADMIX_SHARE * draw.others[other], draw)
    return copies


def translation_invariant(gradient: Tensor) -> Tensor:
    """TI (Dong et al. 2019): the gradient convolved with a Gaussian kernel, as if over shifted images (their eq. 7)."""
    place = torch.arange(TI_SIZE, dtype=gradient.dtype, device=gradient.device) - (TI_SIZE - 1) / 2
    kernel = (-(place**2) / (2 * TI_SIGMA**2)).exp()
    kernel = torch.outer(kernel, kernel) / kernel.sum() ** 2
    channels = gradient.shape[1]
    return conv2d(gradient, kernel.expand(channels, 1, -1, -1), padding=TI_SIZE // 2, groups=channels)


TRANSFORMS: Registry[Transform] = Registry("transform", {"di": diverse_inputs, "si": scaled_inputs, "admix": admix})


def compose(transforms: Sequence[Transform], x: Tensor, draw: Draw) -> list[Tensor]:
    """The copies of all transforms, one after the other."""
    copies = [x]
    for transform in transforms:
        copies = [made for copy in copies for made in transform(copy, draw)]
    return copies


def norm_per_image(gradient: Tensor) -> Tensor:
    """A gradient over the mean of its absolute values, image by image; 0 stays 0."""
    size = gradient.abs().flatten(1).mean(1).clamp_min(torch.finfo(gradient.dtype).tiny)
    return gradient / batch_view(size, gradient)
