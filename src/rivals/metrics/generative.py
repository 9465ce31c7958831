"""Metrics of generated images, by name.

A name states its protocol: ``FID``, ``KID`` and ``IS`` are values with Inception's published weights only. With another
extractor they are ``FD-lite0``, ``KID-lite0`` and so on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch

from rivals.base.errors import UserError
from rivals.base.registry import Registry, unknown
from rivals.metrics.feature_set import FOLDS, FeatureSet, frechet_of_moments
from rivals.metrics.fid_infinity import frechet_infinity
from rivals.metrics.inception import inception_score
from rivals.metrics.mmd import cmmd, kid
from rivals.metrics.prdc import DensityCoverage, PrecisionRecall, authenticity, density_coverage, precision_recall
from rivals.metrics.results import Value

# As published: Binkowski et al. 2018, Salimans et al. 2016, Chong & Forsyth 2020, Jayasumana et al. 2024,
# Kynkaanniemi et al. 2019, Naeem et al. 2020.
KID_SUBSETS, KID_SUBSET_SIZE = 100, 1000  # smaller subsets where there are fewer images
IS_SPLITS = 10
FD_INFINITY_SIZES = 15
CMMD_SIGMA = 10.0
K_PRECISION_RECALL, K_DENSITY_COVERAGE = 3, 5


class NamedExtractor(Protocol):
    """The attributes of an extractor that name a value."""

    name: str
    official: bool
    dim: int
    classes: int


@dataclass(frozen=True, eq=False)
class MetricInput:
    """Real and generated images as one extractor sees them.

    Attributes:
        real: Features of the real ones.
        fake: Features of the generated ones.
        extractor: The extractor.
        seed: Seed of subsets and splits.
        real_of: How many real images there are, of which ``real`` may be a part; None if those are all.
    """

    real: FeatureSet
    fake: FeatureSet
    extractor: NamedExtractor
    seed: int
    real_of: int | None = None

    @property
    def left_out(self) -> int:
        """How many real images were not looked at."""
        return 0 if self.real_of is None else self.real_of - self.real.n

    @cached_property
    def precision_recall(self) -> PrecisionRecall:
        """Precision and recall."""
        return precision_recall(self.real.features, self.fake.features, k=K_PRECISION_RECALL)

    @cached_property
    def density_coverage(self) -> DensityCoverage:
        """Density and coverage."""
        return density_coverage(self.real.features, self.fake.features, k=K_DENSITY_COVERAGE)


@dataclass(frozen=True)
class Metric:
    """A metric of features.

    Attributes:
        description: What it measures, in a table's words.
        measure: The value, still without its display name.
        extractor: The only extractor it is defined for; None for any.
        logits: Whether it needs a classifier's logits of the generated images.
    """

    description: str
    measure: Callable[[MetricInput], Value]
    extractor: str | None = None
    logits: bool = False


def display_name(metric: str, extractor: NamedExtractor) -> str:
    """The name of a value: ``FID`` with Inception's published weights, else ``FD-lite0``, ``FD-inception`` etc."""
    plain = DISPLAY_NAMES[metric]
    if metric == "cmmd" or plain.islower():
        return plain
    published = extractor.name == "inception" and extractor.official
    head, _, tail = plain.partition("-")
    suffix = f"-{tail}" if tail else ""
    return f"{'FID' if head == 'FD' else head}{suffix}" if published else f"{head}-{extractor.name}{suffix}"


def _frechet(images: MetricInput) -> Value:
    real, fake, dim = images.real, images.fake, images.extractor.dim
    value = frechet_of_moments(real.moments, fake.moments)
    # Jackknife over the folds (Efron & Stein 1981). The real images are the reference, so only generated ones vary.
    folds = [index for index, fold in enumerate(fake.folds) if fold.n]
    error = None
    if len(folds) == FOLDS and fake.n >= 2 * FOLDS:
        left_out = [frechet_of_moments(real.moments, fake.without(fold)) for fold in folds]
        variance = torch.tensor(left_out, dtype=torch.float64).var(correction=0)
        error = float(((len(folds) - 1) * variance).sqrt())
    few = [f"{each.n} {kind}" for kind, each in (("real", real), ("generated", fake)) if each.n <= dim]
    notes = (f"strongly biased upward: {' and '.join(few)} images for {dim} dimensions; give more",) if few else ()
    return Value("fd", "", value, error, notes=notes)


def _kid(images: MetricInput) -> Value:
    size = min(KID_SUBSET_SIZE, images.real.n, images.fake.n)
    found = kid(images.real.features, images.fake.features, KID_SUBSETS, size, images.seed)
    return Value("kid", "", found.value, found.error, settings={"subsets": KID_SUBSETS, "size": size})


def _inception_score(images: MetricInput) -> Value:
    logits = images.fake.logits
    if logits is None:
        raise UserError(f"is: the extractor {images.extractor.name} has no classes: take inception or lite0")
    found = inception_score(logits, IS_SPLITS, logits=True, seed=images.seed)
    n, classes = len(logits), logits.shape[1]
    few = n < IS_SPLITS * classes
    note = f"strongly biased downward: {n:,} images in {IS_SPLITS} splits for {classes:,} classes; give 50,000"
    settings = {"splits": IS_SPLITS, "classes": classes}
    return Value("is", "", found.value, found.error, settings=settings, notes=(note,) if few else ())


def _cmmd(images: MetricInput) -> Value:
    value = cmmd(images.real.features, images.fake.features, CMMD_SIGMA)
    return Value("cmmd", "", value, settings={"sigma": CMMD_SIGMA, "times": 1000})


def _frechet_infinity(images: MetricInput) -> Value:
    found = frechet_infinity(images.real.moments, images.fake.features, FD_INFINITY_SIZES, images.seed)
    notes = []
    if images.real.n <= images.extractor.dim:
        few = f"{images.real.n:,} real images for {images.extractor.dim:,} dimensions"
        notes.append(f"strongly biased upward: {few}; give more")
    elif images.left_out:
        notes.append(f"without the bias of few generated images alone: {_part(images)}")
    settings = {"sizes": FD_INFINITY_SIZES}
    return Value("fd-infinity", "", found.value, found.error, settings=settings, notes=tuple(notes))


def _part(images: MetricInput) -> str:
    """That not all real images were taken, and how to take them."""
    return f"of {images.real_of:,} real images {images.real.n:,} were taken; give --n-real {images.real_of}"


def _authenticity(images: MetricInput) -> Value:
    share = authenticity(images.real.features, images.fake.features)
    notes = (f"copies of the others go unseen: {_part(images)}",) if images.left_out else ()
    return Value("authenticity", "", share, _standard_error(share, images.fake.n), notes=notes)


def _precision(images: MetricInput) -> Value:
    share, settings = images.precision_recall.precision, {"k": K_PRECISION_RECALL}
    return Value("precision", "", share, _standard_error(share, images.fake.n), settings=settings)


def _recall(images: MetricInput) -> Value:
    share, settings = images.precision_recall.recall, {"k": K_PRECISION_RECALL}
    return Value("recall", "", share, _standard_error(share, images.real.n), settings=settings)


def _density(images: MetricInput) -> Value:
    return Value("density", "", images.density_coverage.density, settings={"k": K_DENSITY_COVERAGE})


def _coverage(images: MetricInput) -> Value:
    share, settings = images.density_coverage.coverage, {"k": K_DENSITY_COVERAGE}
    return Value("coverage", "", share, _standard_error(share, images.real.n), settings=settings)


def _standard_error(share: float, n: int) -> float:
    """Standard error of a share of n images with the other set fixed; never 0 (Agresti & Coull 1998)."""
    adjusted = (share * n + 2) / (n + 4)
    return float((adjusted * (1 - adjusted) / (n + 4)) ** 0.5)


METRICS: Registry[Metric] = Registry(
    "metric",
    {
        "fd": Metric("Fréchet distance of Gaussian fits to the features; 0 if they are the same", _frechet),
        "fid": Metric("the same with Inception, as published", _frechet, "inception"),
        "kid": Metric("squared MMD, unbiased for few images; 0 if the distributions are the same", _kid),
        "is": Metric(
            "Inception Score: certain predictions over many classes; higher is better", _inception_score, logits=True
        ),
        "precision": Metric("fidelity: share of generated images on the manifold of real ones", _precision),
        "recall": Metric("diversity: share of real images on the manifold of generated ones", _recall),
        "density": Metric("fidelity: how densely real images surround generated ones; 1 for real images", _density),
        "coverage": Metric("diversity: share of real images with a generated one in their neighborhood", _coverage),
        "fd-infinity": Metric("Fréchet distance extrapolated to infinitely many generated images", _frechet_infinity),
        "fid-infinity": Metric("the same with Inception", _frechet_infinity, "inception"),
        "cmmd": Metric("MMD of CLIP embeddings, without a Gaussian fit; 0 if they are the same", _cmmd, "clip"),
        "authenticity": Metric("share of generated images that are not near-copies of real ones", _authenticity),
    },
)
DISPLAY_NAMES = {"fd": "FD", "fid": "FD", "kid": "KID", "is": "IS", "cmmd": "CMMD"}
DISPLAY_NAMES |= {"fd-infinity": "FD-infinity", "fid-infinity": "FD-infinity"}
DISPLAY_NAMES |= {name: name for name in ("precision", "recall", "density", "coverage", "authenticity")}
GROUPS = {"prdc": ("precision", "recall", "density", "coverage")}


def parse_metrics(text: str) -> list[str]:
    """The metrics of a list as ``fid,kid,prdc``, in order, without duplicates.

    Raises:
        UserError: a name is unknown, or there is none.
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
