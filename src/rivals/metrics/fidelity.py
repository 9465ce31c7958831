"""How near generated images are to real ones, by what an extractor sees in them: the metrics by name.

A name states its protocol. ``FID``, ``KID`` and ``IS`` are those of Inception's published weights alone; of another
extractor they are ``FD-lite0``, ``KID-lite0`` and so on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Protocol

import torch
from torch import Tensor

from rivals.base.errors import UserError
from rivals.base.registry import Registry, unknown
from rivals.metrics.extrapolated import frechet_infinity
from rivals.metrics.frechet import Moments, frechet_distance
from rivals.metrics.kernel import cmmd, kid
from rivals.metrics.neighbours import (
    DensityCoverage,
    PrecisionRecall,
    authenticity,
    density_coverage,
    precision_recall,
)
from rivals.metrics.scorecard import Value
from rivals.metrics.scores import inception_score

WAITING = 2560  # rows that wait until they are taken into the parts
FOLDS = 10  # parts of the generated images; leaving out one at a time tells the standard error
SUBSETS, SIZE = 100, 1000  # of KID, as published; smaller where there are fewer images
SPLITS = 10  # of the Inception Score
SIZES = 15  # numbers of images that FD-infinity looks back from
SIGMA = 10.0  # of CMMD's kernel
K_MANIFOLD, K_DENSITY = 3, 5  # neighbours, as published


class Named(Protocol):
    """What of an extractor names a value."""

    name: str
    official: bool
    dim: int
    classes: int


@dataclass(frozen=True, eq=False)
class View:
    """What an extractor saw of images.

    Attributes:
        features: (n, d), float32.
        logits: (n, K), or None if they were not asked for.
        folds: The moments of ``FOLDS`` parts, in which every image is once.
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
        """Of all images."""
        return _merged(self.folds)

    def without(self, fold: int) -> Moments:
        """Of all images but those of a part."""
        return _merged(self.folds[:fold] + self.folds[fold + 1 :])

    def tensors(self) -> dict[str, Tensor]:
        """Features and moments, to be kept; :meth:`of` is the way back."""
        whole = self.moments
        return {"features": self.features, "mean": whole.mean, "scatter": whole.scatter}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> View:
        """From what :meth:`tensors` gave, all images in one part.

        Raises:
            KeyError: something is missing.
        """
        features = tensors["features"]
        return cls(features, None, (Moments(len(features), tensors["mean"], tensors["scatter"]),))


def _merged(parts: Iterable[Moments]) -> Moments:
    def join(whole: Moments, part: Moments) -> Moments:
        whole.merge(part)
        return whole

    return reduce(join, parts, Moments())


class Viewing:
    """Takes in what an extractor sees, a block at a time, and keeps what any metric needs of it.

    Args:
        folds: How many parts to keep the moments of; 1 will do for real images.
    """

    def __init__(self, folds: int = FOLDS) -> None:
        self._folds = [Moments() for _ in range(folds)]
        self._features: list[Tensor] = []
        self._logits: list[Tensor] = []
        self._folded = 0  # blocks that the parts have taken in

    def add(self, features: Tensor, logits: Tensor | None = None) -> None:
        """Take in a block: features (b, d) and logits (b, K)."""
        self._features.append(features)
        if sum(map(len, self._features[self._folded :])) >= WAITING:
            self._fold()
        if logits is not None:
            self._logits.append(logits)

    def _fold(self) -> None:
        """Move what waits into the parts, in turns: many rows at once, since each part's scatter is large."""
        waiting = self._features[self._folded :]
        rows = torch.cat(waiting) if waiting else torch.zeros(0, 1)
        self._folded = len(self._features)
        for place, fold in enumerate(self._folds):
            if len(some := rows[place :: len(self._folds)]):
                fold.add(some)

    def view(self) -> View:
        """All that was seen."""
        self._fold()
        logits = torch.cat(self._logits) if self._logits else None
        return View(torch.cat(self._features), logits, tuple(self._folds))


def distance(real: View, fake: View) -> float:
    """The Fréchet distance of two views."""
    return _distance(real.moments, fake.moments)


def _distance(real: Moments, fake: Moments) -> float:
    return frechet_distance(real.mean, real.cov, fake.mean, fake.cov)


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known of real and generated images through one extractor.

    Attributes:
        real: Of the real ones.
        fake: Of the generated ones.
        extractor: Whose eyes they were.
        seed: Of what is drawn at random in a metric.
    """

    real: View
    fake: View
    extractor: Named
    seed: int

    @cached_property
    def shares(self) -> PrecisionRecall:
        """Precision and recall."""
        return precision_recall(self.real.features, self.fake.features, k=K_MANIFOLD)

    @cached_property
    def densities(self) -> DensityCoverage:
        """Density and coverage."""
        return density_coverage(self.real.features, self.fake.features, k=K_DENSITY)


@dataclass(frozen=True)
class Metric:
    """A metric of features.

    Attributes:
        says: What it tells, for those who read a table.
        measure: The value; its name is put in by :func:`title`.
        extractor: The only one by which it is defined; None takes any.
        logits: Whether it needs what a classifier says of the generated images.
    """

    says: str
    measure: Callable[[Evidence], Value]
    extractor: str | None = None
    logits: bool = False


def title(metric: str, extractor: Named) -> str:
    """What a value is called, as ``FID``, ``FD-lite0`` or ``FD-inception`` where the weights are not the published."""
    plain = TITLES[metric]
    if metric == "cmmd" or plain.islower():
        return plain
    classic = extractor.name == "inception" and extractor.official
    head, _, tail = plain.partition("-")
    end = f"-{tail}" if tail else ""
    return f"{'FID' if head == 'FD' else head}{end}" if classic else f"{head}-{extractor.name}{end}"


def _frechet(evidence: Evidence) -> Value:
    real, fake = evidence.real, evidence.fake
    value, dim = distance(real, fake), evidence.extractor.dim
    # The jackknife over parts (Efron & Stein 1981): real images are the reference, so only drawn ones vary.
    parts = [fold for fold in range(len(fake.folds)) if fake.folds[fold].n]
    error = None
    if len(parts) == FOLDS and fake.n >= 2 * FOLDS:
        left = torch.tensor([_distance(real.moments, fake.without(fold)) for fold in parts], dtype=torch.float64)
        error = float(((len(parts) - 1) * left.var(correction=0)).sqrt())
    few = [f"{view.n} {kind}" for kind, view in (("real", real), ("generated", fake)) if view.n <= dim]
    notes = (f"too large by far: {' and '.join(few)} images for {dim} dimensions; give more than that",) if few else ()
    return Value("fd", "", value, error, notes=notes)


def _kernel(evidence: Evidence) -> Value:
    real, fake = evidence.real, evidence.fake
    size = min(SIZE, real.n, fake.n)
    found = kid(real.features, fake.features, SUBSETS, size, evidence.seed)
    return Value("kid", "", found.value, found.error, settings={"subsets": SUBSETS, "size": size})


def _score(evidence: Evidence) -> Value:
    logits = evidence.fake.logits
    if logits is None:
        raise UserError(f"is: the extractor {evidence.extractor.name} knows no classes: take inception or lite0")
    found = inception_score(logits, SPLITS, logits=True, seed=evidence.seed)
    return Value("is", "", found.value, found.error, settings={"splits": SPLITS, "classes": logits.shape[1]})


def _cmmd(evidence: Evidence) -> Value:
    return Value(
        "cmmd",
        "",
        cmmd(evidence.real.features, evidence.fake.features, SIGMA),
        settings={"sigma": SIGMA, "times": 1000},
    )


def _infinity(evidence: Evidence) -> Value:
    found = frechet_infinity(evidence.real.moments, evidence.fake.features, SIZES, evidence.seed)
    return Value("fd-infinity", "", found.value, found.error, settings={"sizes": SIZES})


def _authenticity(evidence: Evidence) -> Value:
    share = authenticity(evidence.real.features, evidence.fake.features)
    return Value("authenticity", "", share, _binomial(share, evidence.fake.n))


def _precision(evidence: Evidence) -> Value:
    share = evidence.shares.precision
    return Value("precision", "", share, _binomial(share, evidence.fake.n), settings={"k": K_MANIFOLD})


def _recall(evidence: Evidence) -> Value:
    share = evidence.shares.recall
    return Value("recall", "", share, _binomial(share, evidence.real.n), settings={"k": K_MANIFOLD})


def _density(evidence: Evidence) -> Value:
    return Value("density", "", evidence.densities.density, settings={"k": K_DENSITY})


def _coverage(evidence: Evidence) -> Value:
    share = evidence.densities.coverage
    return Value("coverage", "", share, _binomial(share, evidence.real.n), settings={"k": K_DENSITY})


def _binomial(share: float, n: int) -> float:
    """The standard error of a share of n images, the other set being held: never 0 (Agresti & Coull 1998)."""
    guarded = (share * n + 2) / (n + 4)
    return float((guarded * (1 - guarded) / (n + 4)) ** 0.5)


METRICS: Registry[Metric] = Registry(
    "metric",
    {
        "fd": Metric("how far apart the two sets are, as two clouds of one shape; 0 is the same", _frechet),
        "fid": Metric("the same, by Inception, as published", _frechet, "inception"),
        "kid": Metric("how far apart, without a bias for few images; 0 is the same", _kernel),
        "is": Metric("how sure a classifier is, and of how many classes; higher is better", _score, logits=True),
        "precision": Metric("share of generated images that lie among real ones: quality", _precision),
        "recall": Metric("share of real images that lie among generated ones: variety", _recall),
        "density": Metric("how densely generated images lie among real ones; 1 is as real ones", _density),
        "coverage": Metric("share of real images that have a generated one near", _coverage),
        "fd-infinity": Metric("the Fréchet distance, were there infinitely many images", _infinity),
        "fid-infinity": Metric("the same, by Inception", _infinity, "inception"),
        "cmmd": Metric("how far apart by CLIP, without the assumption of one shape; 0 is the same", _cmmd, "clip"),
        "authenticity": Metric("share of generated images that are no near copy of a real one", _authenticity),
    },
)
TITLES = {"fd": "FD", "fid": "FD", "kid": "KID", "is": "IS", "cmmd": "CMMD"}
TITLES |= {"fd-infinity": "FD-infinity", "fid-infinity": "FD-infinity"}
TITLES |= {name: name for name in ("precision", "recall", "density", "coverage", "authenticity")}
GROUPS = {"prdc": ("precision", "recall", "density", "coverage")}


def chosen(text: str) -> list[str]:
    """The metrics named in a list as ``fid,kid,prdc``, each once, in order.

    Raises:
        UserError: one is not known, or there are none.
    """
    words = [word.strip().lower() for word in text.split(",") if word.strip()]
    if not words:
        raise UserError(f"no metric is named in '{text}': choose from {', '.join([*METRICS, *GROUPS])}")
    found: list[str] = []
    for word in words:
        if word not in METRICS and word not in GROUPS:
            raise unknown("metric", word, [*METRICS, *GROUPS])
        found += [name for name in GROUPS.get(word, (word,)) if name not in found]
    return found
