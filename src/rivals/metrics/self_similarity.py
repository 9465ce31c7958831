"""Whether two images have the same structure, whatever their colors: self-similarity of feature maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, normalize

MOST_PLACES = 14  # along a side: finer maps are averaged down, as their matrices grow with the fourth power of it
LEAST_SPREAD = 1e-4  # standard deviation of an image's similarities; below it all places are alike up to rounding


def self_similarity(maps: Tensor) -> Tensor:
    """The cosine of the features at any two places of an image, (B, P (P - 1) / 2), from feature maps (B, C, H, W).

    This is the self-similarity of Shechtman & Irani (2007) on the features of a network, as Kolkin et al. (2019) use
    it for the content of an image. It tells which places are alike, and not what they look like.
    """
    height, width = (min(MOST_PLACES, side) for side in maps.shape[2:])
    vectors = normalize(adaptive_avg_pool2d(maps.float(), (height, width)).flatten(2), dim=1)
    one, other = torch.triu_indices(height * width, height * width, 1, device=maps.device)
    return (vectors.transpose(1, 2) @ vectors)[:, one, other]


def structure(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """How well images keep the structure of others, (B,), in [-1, 1]: 1 if the same places are alike in both.

    The correlation of the two images' self-similarities over all pairs of places, and its mean over the feature maps.
    Centering them, unlike the cosine of Zheng et al. (2021), takes away what all images share: places are more
    alike than not. So it is near 0 for images that have nothing to do with each other, but for what most pictures have
    in common, such as an object in the middle. It does not change where features are rotated or scaled, nor does it
    ask whether the output is any good: the input itself has 1.

    Args:
        one: Feature maps (B, C, H, W) of images, for each layer.
        other: Of the others, with the same heights and widths.

    Returns:
        The values; a map in which all places of an image are alike, which is no structure, counts as 0.
    """
    layers = []
    for a, b in zip(one, other, strict=True):
        left, right = ((each - each.mean(1, keepdim=True)) for each in (self_similarity(a), self_similarity(b)))
        spreads = left.square().mean(1).sqrt(), right.square().mean(1).sqrt()
        correlation = (left * right).mean(1) / (spreads[0] * spreads[1]).clamp_min(LEAST_SPREAD**2)
        layers.append(correlation.where(torch.minimum(*spreads) > LEAST_SPREAD, 0.0))
    return torch.stack(layers).mean(0)
