"""What metrics need of a set of images: features, their moments, and logits where a metric takes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, reduce

import torch
from torch import Tensor

from rivals.base.process_group import ALONE, ProcessGroup
from rivals.metrics.frechet import Moments, frechet_distance

FOLDS = 10  # parts of the generated images, for the jackknife
_ROWS = 256  # features that are added to a part at a time


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """The features of a set of images.

    Attributes:
        features: (n, d), float32.
        logits: (n, K), or None if no metric takes them.
        folds: Moments of disjoint parts of the images.
    """

    features: Tensor
    logits: Tensor | None
    folds: tuple[Moments, ...]

    @property
    def n(self) -> int:
        """How many images."""
        return len(self.features)

    @cached_property
    def moments(self) -> Moments:
        """Moments of all images."""
        return _merged(self.folds)

    def without(self, fold: int) -> Moments:
        """Moments of all images but those of a fold."""
        return _merged(self.folds[:fold] + self.folds[fold + 1 :])

    def tensors(self) -> dict[str, Tensor]:
        """Features and moments, to be stored; :meth:`of` reads them."""
        moments = self.moments
        return {"features": self.features, "mean": moments.mean, "scatter": moments.scatter}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> FeatureSet:
        """The set stored by :meth:`tensors`, with all images in one fold.

        Raises:
            KeyError: a tensor is missing.
        """
        features = tensors["features"]
        return cls(features, None, (Moments(len(features), tensors["mean"], tensors["scatter"]),))


def _merged(folds: Iterable[Moments]) -> Moments:
    def merge(total: Moments, fold: Moments) -> Moments:
        total.merge(fold)
        return total

    return reduce(merge, folds, Moments())


def feature_set(features: Tensor, logits: Tensor | None = None, processes: ProcessGroup = ALONE) -> FeatureSet:
    """Features (n, d) and logits (n, K) with their moments in ``FOLDS`` parts.

    Image i is in part ``i mod FOLDS``. Several processes, which all hold the features, share the parts: sums of one
    part are always made by one process, in one order, so any number of processes gets the same bits. Only the first
    process has moments in the end.
    """

    def moments_of_fold(index: int) -> list[Tensor]:
        fold = Moments()
        for block in torch.split(features[index::FOLDS], _ROWS):
            fold.add(block)
        return [fold.mean, fold.scatter]

    present = min(FOLDS, len(features))  # a part without images has no moments
    parts = processes.compute(present, moments_of_fold, everywhere=False)
    counts = [len(range(index, len(features), FOLDS)) for index in range(present)]
    moments = [Moments(n, mean, scatter) for n, (mean, scatter) in zip(counts, parts, strict=False)]
    return FeatureSet(features, logits, tuple(moments + [Moments() for _ in range(FOLDS - present)]))


def frechet_of_moments(real: Moments, fake: Moments) -> float:
    """The Fréchet distance of two sets of features, from their moments."""
    return frechet_distance(real.mean, real.cov, fake.mean, fake.cov)
