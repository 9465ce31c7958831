"""Images kept aside, that nothing learns from."""

from __future__ import annotations

import dataclasses

import numpy as np

from rivals.base.seeds import derive
from rivals.data.imageset import ImageSet


def hold_out(images: ImageSet, count: int, seed: int) -> tuple[ImageSet, ImageSet]:
    """A set without ``count`` of its images, and those, both in an order drawn by ``seed``.

    Args:
        images: The set, of more than ``count`` images.
        count: How many to keep aside.
        seed: Which ones.
    """
    order = np.random.default_rng(derive(seed, "hold out")).permutation(len(images))
    return chosen(images, np.sort(order[count:])), chosen(images, order[:count])


def chosen(images: ImageSet, places: np.ndarray) -> ImageSet:
    """The images at some places, int64 (n,), in that order, in memory."""
    labels = None if images.labels is None else images.labels[places]
    return dataclasses.replace(images, images=images.images[places], labels=labels)
