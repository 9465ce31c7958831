"""What metrics need of a set of images: features, their moments, and logits where a metric takes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, reduce

import torch
from torch import Tensor

from rivals.metrics.frechet import Moments, frechet_distance

FOLDS = 10  # parts of the generated images, for the jackknife
_ROWS = 2560  # features that are added to the folds at a time


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


class FeatureCollector:
    """Collects the features of images, a batch at a time.

    Args:
        folds: Into how many parts to divide the images; 1 is enough for real ones.
    """

    def __init__(self, folds: int = FOLDS) -> None:
        self._folds = [Moments() for _ in range(folds)]
        self._features: list[Tensor] = []
        self._logits: list[Tensor] = []
        self._folded = 0  # batches that the folds contain

    def add(self, features: Tensor, logits: Tensor | None = None) -> None:
        """Add a batch: features (b, d) and logits (b, K)."""
        self._features.append(features)
        if sum(map(len, self._features[self._folded :])) >= _ROWS:
            self._fold()
        if logits is not None:
            self._logits.append(logits)

    def _fold(self) -> None:
        """Deal the pending features to the folds in turn; many at once, as updating a (d, d) scatter is expensive."""
        pending = self._features[self._folded :]
        rows = torch.cat(pending) if pending else torch.zeros(0, 1)
        self._folded = len(self._features)
        for index, fold in enumerate(self._folds):
            if len(part := rows[index :: len(self._folds)]):
                fold.add(part)

    def result(self) -> FeatureSet:
        """The features of all batches."""
        self._fold()
        logits = torch.cat(self._logits) if self._logits else None
        return FeatureSet(torch.cat(self._features), logits, tuple(self._folds))


def frechet_of_moments(real: Moments, fake: Moments) -> float:
    """The Fréchet distance of two sets of features, from their moments."""
    return frechet_distance(real.mean, real.cov, fake.mean, fake.cov)
