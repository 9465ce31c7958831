"""Fidelity and variety told by neighbours in the space of features: who lies in whose ball, and who is a copy."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rivals.base.errors import UserError
from rivals.metrics.distances import Pairs, nearest_between, nearest_within
from rivals.metrics.features import Features, alike, checked, count


class PrecisionRecall(NamedTuple):
    """Shares: of the generated images that look real, and of the real ones that could have been generated."""

    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    """Density, 1 on average where the distributions are the same; and the share of real images that are met."""

    density: float
    coverage: float


class Neighbours(NamedTuple):
    """Of each image its k nearest, nearest first: which they are, and how far, in the unit of the features."""

    indices: Tensor
    distances: Tensor


def precision_recall(real: Features, fake: Features, k: int = 3) -> PrecisionRecall:
    """Improved precision and recall (Kynkaanniemi et al. 2019, eq. 1 and 2).

    Precision is the share of generated images that lie in the ball of some real one, whose radius is the distance to
    its k-th nearest real neighbour, the rim included; recall is the same with the sets exchanged.

    Args:
        real: Features (n, d); the paper's are VGG-16's second fully connected layer, of 50,000 images.
        fake: Features (m, d).
        k: Of the k-th neighbour.

    Raises:
        UserError: no more images than k, or different dimensions.
    """
    x, y = _sets(real, fake, k)
    pairs, real_radii, fake_radii = Pairs(x, y), _radii(x, k), _radii(y, k)
    precise, recalled = _none(y), _none(x)
    for rows, columns in pairs.blocks():
        squared, bound = pairs.quick(rows, columns)
        precise[columns] |= pairs.inside(rows, columns, squared, bound, real_radii[rows, None], rim=True).any(0)
        recalled[rows] |= pairs.inside(rows, columns, squared, bound, fake_radii[None, columns], rim=True).any(1)
    return PrecisionRecall(_share(precise), _share(recalled))


def density_coverage(real: Features, fake: Features, k: int = 5) -> DensityCoverage:
    """Density and coverage (Naeem et al. 2020, eq. 5 and 6).

    Density is the mean number of real images' balls that a generated one lies in, over k; coverage the share of real
    images with a generated one in their ball. A ball reaches to the k-th nearest real neighbour, the rim not included,
    as in the authors' code: so two sets of the very same images have a density of 1.

    Args:
        real: Features (n, d).
        fake: Features (m, d).
        k: Of the k-th neighbour.

    Raises:
        UserError: no more real images than k, or different dimensions.
    """
    x, y = _sets(real, fake, k, 1)
    pairs, radii = Pairs(x, y), _radii(x, k)
    balls, covered = torch.zeros(len(y), dtype=torch.long, device=x.device), _none(x)
    for rows, columns in pairs.blocks():
        inside = pairs.inside(rows, columns, *pairs.quick(rows, columns), radii[rows, None], rim=False)
        balls[columns] += inside.sum(0)
        covered[rows] |= inside.any(1)
    return DensityCoverage(int(balls.sum()) / (k * len(y)), _share(covered))


def authenticity(train: Features, fake: Features) -> float:
    """The share of generated images that are no copies (Alaa et al. 2022, sec. 4.3); AuthPct is 100 times that.

    A generated image is authentic if its nearest training image is nearer to another training image than to it. Of
    memorised images none is; of fresh draws from the data's own distribution not all are either (of normal ones 38 %
    in 2 dimensions, 83 % in 64), so compare it with that of held-out images.

    Args:
        train: Features (n, d) of what the generator was trained on, all of it.
        fake: Features (m, d).

    Raises:
        UserError: fewer than 2 training images, or different dimensions.
    """
    x, y = alike(checked(train, "training", 2), checked(fake, "fake"), ("training", "fake"))
    who, squared = nearest_between(y, x, 1)
    closest, place = torch.unique(who[:, 0], return_inverse=True)
    # Its two nearest in the whole set: itself, or a twin, and the nearest other.
    others, apart = nearest_between(x[closest], x, 2)
    apart = torch.where((others[:, :1] == closest[:, None]).to(apart.device), apart[:, 1:], apart[:, :1])[:, 0]
    return _share(apart[place.to(apart.device)] < squared[:, 0])


def nearest(train: Features, fake: Features, k: int) -> Neighbours:
    """The k training images that are nearest to each generated one.

    Args:
        train: Features (n, d).
        fake: Features (m, d).
        k: How many.

    Returns:
        Indices into ``train`` (m, k) and distances (m, k) in double precision, exact. Of images that are equally far
        the one that comes first.

    Raises:
        UserError: fewer training images than k, or different dimensions.
    """
    if k < 1:
        raise UserError(f"{k} neighbours: ask for 1 or more")
    x = checked(train, "training", k, f"since {k} nearest are asked for")
    x, y = alike(x, checked(fake, "fake"), ("training", "fake"))
    who, squared = nearest_between(y, x, k)
    return Neighbours(who, squared.sqrt())


def nearest_images(train: Tensor, fake: Tensor, k: int) -> Neighbours:
    """The k training images that are nearest to each generated one by their pixels; all are searched, in blocks.

    Args:
        train: uint8 (n, C, H, W).
        fake: uint8 (m, C, H, W).
        k: How many.

    Returns:
        As by :func:`nearest`; distances are in grey levels of 255.

    Raises:
        UserError: another type, fewer training images than k, or images of another shape.
    """
    for name, images, least in (("training", train, k), ("fake", fake, 1)):
        if images.dtype != torch.uint8 or images.ndim != 4:
            shape = tuple(images.shape)
            raise UserError(f"{name} images of type {images.dtype} and shape {shape}: give uint8 (n, C, H, W)")
        if len(images) < max(1, least):
            raise UserError(f"the {name} set has {count(len(images))}: give {max(1, least)} or more")
    if k < 1:
        raise UserError(f"{k} neighbours: ask for 1 or more, of images")
    if train.shape[1:] != fake.shape[1:]:
        shapes = tuple(train.shape[1:]), tuple(fake.shape[1:])
        raise UserError(f"training images are {shapes[0]} and fake ones {shapes[1]}: bring them to one shape")
    # The training images stay bytes until their block comes: as numbers they would take four times the room.
    who, squared = nearest_between(fake.flatten(1).to(train.device).float(), train.flatten(1), k)
    return Neighbours(who, squared.sqrt())


def _sets(real: Features, fake: Features, k: int, least_fake: int | None = None) -> tuple[Tensor, Tensor]:
    if k < 1:
        raise UserError(f"k = {k} makes no ball: take the k-th nearest neighbour, k 1 or more")
    why = f"since each needs {count(k).replace('image', 'neighbour')}"
    return alike(checked(real, "real", k + 1, why), checked(fake, "fake", least_fake or k + 1, why))


def _radii(x: Tensor, k: int) -> Tensor:
    """The squared distance from each image to its k-th nearest other one (n,), float64."""
    return nearest_within(x, k)[1][:, -1]


def _none(x: Tensor) -> Tensor:
    return torch.zeros(len(x), dtype=torch.bool, device=x.device)


def _share(which: Tensor) -> float:
    return int(which.sum()) / len(which)
