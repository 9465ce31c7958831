"""Precision, recall, density, coverage and authenticity: metrics of nearest neighbors in feature space."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rivals.base.errors import UserError
from rivals.metrics.feature_checks import Features, checked, count, same_dtype
from rivals.metrics.pairwise import Pairs, nearest_between, nearest_within


class PrecisionRecall(NamedTuple):
    """Precision (fidelity) and recall (diversity), each a share of images."""

    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    """Density, 1 in expectation for equal distributions; coverage, a share of the real images."""

    density: float
    coverage: float


class Neighbors(NamedTuple):
    """Indices and distances of the k nearest neighbors of each image, nearest first."""

    indices: Tensor
    distances: Tensor


def precision_recall(real: Features, fake: Features, k: int = 3) -> PrecisionRecall:
    """Improved precision and recall (Kynkaanniemi et al. 2019, eq. 1 and 2).

    The manifold of a set is the union of closed balls around its images, each with the distance to the k-th nearest
    other image of the set as radius. Precision is the share of generated images on the manifold of the real ones;
    recall is the same with the sets exchanged.

    Args:
        real: Features (n, d); in the paper, the second fully connected layer of VGG-16 on 50,000 images.
        fake: Features (m, d).
        k: Which neighbor gives the radius.

    Raises:
        UserError: a set has k images or fewer, or the dimensions differ.
    """
    x, y = _sets(real, fake, k)
    pairs, real_radii, fake_radii = Pairs(x, y), _radii(x, k), _radii(y, k)
    on_real, on_fake = _no_image(y), _no_image(x)
    for rows, columns in pairs.blocks():
        squared, bound = pairs.fast(rows, columns)
        on_real[columns] |= pairs.inside(rows, columns, squared, bound, real_radii[rows, None], closed=True).any(0)
        on_fake[rows] |= pairs.inside(rows, columns, squared, bound, fake_radii[None, columns], closed=True).any(1)
    return PrecisionRecall(_share(on_real), _share(on_fake))


def density_coverage(real: Features, fake: Features, k: int = 5) -> DensityCoverage:
    """Density and coverage (Naeem et al. 2020, eq. 5 and 6).

    Density is the mean number of real images' balls that contain a generated image, divided by k; coverage is the share
    of real images whose ball contains one. Balls are those of :func:`precision_recall`, but open, as in the authors'
    code: so a set compared with itself has a density of 1.

    Args:
        real: Features (n, d).
        fake: Features (m, d).
        k: Which neighbor gives the radius.

    Raises:
        UserError: k real images or fewer, or the dimensions differ.
    """
    x, y = _sets(real, fake, k, 1)
    pairs, radii = Pairs(x, y), _radii(x, k)
    balls, covered = torch.zeros(len(y), dtype=torch.long, device=x.device), _no_image(x)
    for rows, columns in pairs.blocks():
        inside = pairs.inside(rows, columns, *pairs.fast(rows, columns), radii[rows, None], closed=False)
        balls[columns] += inside.sum(0)
        covered[rows] |= inside.any(1)
    return DensityCoverage(int(balls.sum()) / (k * len(y)), _share(covered))


def authenticity(train: Features, fake: Features) -> float:
    """The share of generated images that are not copies (Alaa et al. 2022, sec. 4.3); AuthPct is 100 times that.

    A generated image is authentic if its nearest training image is closer to another training image than to it. No
    memorized image is authentic, nor are all fresh samples of the data's distribution (of a Gaussian 38% in 2
    dimensions, 83% in 64), so compare with held-out images.

    Args:
        train: Features (n, d) of all training images of the generator.
        fake: Features (m, d).

    Raises:
        UserError: fewer than 2 training images, or the dimensions differ.
    """
    x, y = same_dtype(checked(train, "training", 2), checked(fake, "fake"), ("training", "fake"))
    indices, squared = nearest_between(y, x, 1)
    closest, inverse = torch.unique(indices[:, 0], return_inverse=True)
    # The two nearest in the whole set are the image itself (or an exact copy) and its nearest other image.
    others, within = nearest_between(x[closest], x, 2)
    within = torch.where((others[:, :1] == closest[:, None]).to(within.device), within[:, 1:], within[:, :1])[:, 0]
    return _share(within[inverse.to(within.device)] < squared[:, 0])


def nearest(train: Features, fake: Features, k: int) -> Neighbors:
    """The k nearest training images of each generated one, by features.

    Args:
        train: Features (n, d).
        fake: Features (m, d).
        k: How many.

    Returns:
        Indices into ``train`` (m, k), and exact distances (m, k), float64. Ties go to the lower index.

    Raises:
        UserError: fewer training images than k, or the dimensions differ.
    """
    if k < 1:
        raise UserError(f"{k} neighbors: ask for 1 or more")
    x = checked(train, "training", k, f"since {k} nearest are asked for")
    x, y = same_dtype(x, checked(fake, "fake"), ("training", "fake"))
    indices, squared = nearest_between(y, x, k)
    return Neighbors(indices, squared.sqrt())


def nearest_images(train: Tensor, fake: Tensor, k: int) -> Neighbors:
    """The k nearest training images of each generated one, by pixels, among all of them.

    Args:
        train: uint8 (n, C, H, W).
        fake: uint8 (m, C, H, W).
        k: How many.

    Returns:
        As :func:`nearest`; distances are in gray levels, 0 to 255.

    Raises:
        UserError: not uint8 (n, C, H, W), fewer training images than k, or the shapes differ.
    """
    for name, images, least in (("training", train, k), ("fake", fake, 1)):
        if images.dtype != torch.uint8 or images.ndim != 4:
            shape = tuple(images.shape)
            raise UserError(f"{name} images of type {images.dtype} and shape {shape}: give uint8 (n, C, H, W)")
        if len(images) < max(1, least):
            raise UserError(f"the {name} set has {count(len(images))}: give {max(1, least)} or more")
    if k < 1:
        raise UserError(f"{k} neighbors: ask for 1 or more, of images")
    if train.shape[1:] != fake.shape[1:]:
        shapes = tuple(train.shape[1:]), tuple(fake.shape[1:])
        raise UserError(f"training images are {shapes[0]} and fake ones {shapes[1]}: bring them to one shape")
    # Training images stay uint8 and are converted block by block: as float32 they would take four times the memory.
    indices, squared = nearest_between(fake.flatten(1).to(train.device).float(), train.flatten(1), k)
    return Neighbors(indices, squared.sqrt())


def _sets(real: Features, fake: Features, k: int, least_fake: int | None = None) -> tuple[Tensor, Tensor]:
    if k < 1:
        raise UserError(f"k = {k} gives no radius: take the k-th nearest neighbor, k of 1 or more")
    why = f"since each needs {count(k).replace('image', 'neighbor')}"
    return same_dtype(checked(real, "real", k + 1, why), checked(fake, "fake", least_fake or k + 1, why))


def _radii(x: Tensor, k: int) -> Tensor:
    """Squared distance from each image to the k-th nearest other one (n,), float64."""
    return nearest_within(x, k)[1][:, -1]


def _no_image(x: Tensor) -> Tensor:
    """A mask (n,) that is false for every image."""
    return torch.zeros(len(x), dtype=torch.bool, device=x.device)


def _share(which: Tensor) -> float:
    return int(which.sum()) / len(which)
