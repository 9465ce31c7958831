"""The Frechet distance of two sets of features, each taken for a normal distribution.

``|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))`` (Dowson & Landau 1982, eq. 4; Heusel et al. 2017, eq. 6). The trace of
the root needs no root of a matrix: it is the sum of the roots of the eigenvalues of ``S1 S2``, and, with any factors
``F'F = S``, the nuclear norm of ``F1 F2'``.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rivals.base.errors import UserError
from rivals.metrics.features import Features, alike, blocks, checked, count, wide

_BLOCK = 4096


class Moments:
    """Mean and covariance of features that come in batches, in double precision.

    They do not depend on how the features are cut into batches, but for rounding.

    Attributes:
        n: How many there were.
        mean: (d,), float64.
        scatter: The sum of ``(x - mean)(x - mean)'``, (d, d), float64.
    """

    def __init__(self, n: int = 0, mean: Tensor | None = None, scatter: Tensor | None = None) -> None:
        self.n = n
        self.mean = torch.zeros(0, dtype=torch.float64) if mean is None else mean
        self.scatter = torch.zeros(0, 0, dtype=torch.float64) if scatter is None else scatter

    def add(self, features: Features) -> None:
        """Take in a batch (b, d) (Chan et al. 1983, eq. 1.5).

        Raises:
            UserError: not a matrix, values that are not finite, or another d than before.
        """
        batch = wide(checked(features, "batch"))
        self._open(batch.shape[1], batch.device)
        b, mean = len(batch), batch.mean(0)
        # The move of the mean adds n b / (n + b) times its outer product: one more row of the batch.
        move = (mean - self.mean) * (self.n * b / (self.n + b)) ** 0.5
        rows = torch.cat([batch - mean, move[None]])
        self.scatter.addmm_(rows.T, rows)
        self.mean = self.mean + (mean - self.mean) * (b / (self.n + b))
        self.n += b

    def merge(self, other: Moments) -> None:
        """Take in what another one has seen; it stays as it was."""
        if other.n == 0:
            return
        self._open(len(other.mean), other.mean.device)
        both = self.n + other.n
        move = other.mean.to(self.mean.device) - self.mean
        self.scatter.add_(other.scatter.to(move.device)).addr_(move, move, alpha=self.n * other.n / both)
        self.mean = self.mean + move * (other.n / both)
        self.n = both

    @property
    def cov(self) -> Tensor:
        """The unbiased covariance (d, d), float64: over n - 1.

        Raises:
            UserError: fewer than 2 images.
        """
        if self.n < 2:
            raise UserError(f"no covariance of {count(self.n)}: give 2 or more")
        return self.scatter / (self.n - 1)

    def arrays(self) -> dict[str, np.ndarray]:
        """All there is to keep, for ``numpy.savez``; :meth:`from_arrays` is the way back."""
        return {"n": np.array(self.n), "mean": self.mean.cpu().numpy(), "scatter": self.scatter.cpu().numpy()}

    @classmethod
    def from_arrays(cls, arrays: Any) -> Moments:
        """From what :meth:`arrays` gave, or from the open file it was saved to."""
        mean, scatter = (torch.from_numpy(np.array(arrays[name], dtype=np.float64)) for name in ("mean", "scatter"))
        return cls(int(arrays["n"]), mean, scatter)

    def _open(self, d: int, device: torch.device) -> None:
        if self.n == 0:
            self.mean = torch.zeros(d, dtype=torch.float64, device=device)
            self.scatter = torch.zeros(d, d, dtype=torch.float64, device=device)
        elif d != len(self.mean):
            raise UserError(f"features of {d} dimensions after features of {len(self.mean)}: take one layer throughout")


def moments_of(features: Features) -> Moments:
    """The moments of features (n, d) that are all there."""
    found, rows = Moments(), torch.as_tensor(features)
    for block in blocks(len(rows), _BLOCK):
        found.add(rows[block])
    return found


def frechet_distance(mean1: Features, cov1: Features, mean2: Features, cov2: Features) -> float:
    """The (squared) Frechet distance of two normal distributions; "FID" where the features are Inception's.

    Exact for singular covariances too. The eigenvalues of ``S1 S2``, which is not symmetric, are had as those of
    ``L' S1 L`` with ``S2 = L L'``, which is.

    Args:
        mean1: (d,), numpy or torch.
        cov1: (d, d), symmetric and positive semi-definite.
        mean2: (d,).
        cov2: (d, d).

    Returns:
        The distance, in the squared unit of the features, 0 or above.

    Raises:
        UserError: shapes that do not fit together, values that are not finite, or a negative variance.
    """
    means = [_array(mean, f"mean{i}", 1) for i, mean in ((1, mean1), (2, mean2))]
    covs = [_array(cov, f"cov{i}", 2) for i, cov in ((1, cov1), (2, cov2))]
    d = len(means[0])
    for name, array, shape in (("cov1", covs[0], (d, d)), ("mean2", means[1], (d,)), ("cov2", covs[1], (d, d))):
        if array.shape != shape:
            raise UserError(f"{name} has the shape {array.shape} and mean1 {(d,)}: {name} must have the shape {shape}")
    for name, cov in (("cov1", covs[0]), ("cov2", covs[1])):
        if cov.diagonal().min() < 0:
            raise UserError(f"{name} has the negative variance {cov.diagonal().min():g}: give a covariance")
    traces = covs[0].trace() + covs[1].trace()
    return _distance(means[0] - means[1], traces, _trace_of_root(covs[0], covs[1]))


def frechet_of(real: Features, fake: Features) -> float:
    """The Frechet distance of two sets of features (n, d) and (m, d).

    Where a set has fewer images than dimensions its covariance is singular: the formula by the nuclear norm of the
    centred features themselves is exact and quick there, but the distance it finds is biased upwards, and warned of.

    Raises:
        UserError: see :func:`frechet_distance`; fewer than 2 images.
    """
    why = "since one has no covariance"
    one, two = alike(checked(real, "real", 2, why), checked(fake, "fake", 2, why))
    few = [f"{len(x)} {name}" for name, x in (("real", one), ("fake", two)) if len(x) <= one.shape[1]]
    if not few:
        a, b = moments_of(one), moments_of(two)
        return frechet_distance(a.mean, a.cov, b.mean, b.cov)
    warnings.warn(
        f"{' and '.join(few)} images for {one.shape[1]} dimensions: the Frechet distance is biased upwards; "
        "compare it only with those of as many images, or give more",
        stacklevel=2,
    )
    factors = [_factor_of(x) for x in (one, two)]
    traces = sum(float(np.square(factor).sum()) for factor in factors)
    difference = wide(one).mean(0) - wide(two).mean(0)
    return _distance(difference.cpu().numpy(), traces, _nuclear_norm(*factors))


def _distance(difference: np.ndarray, traces: float, trace_of_root: float) -> float:
    return max(0.0, float(difference @ difference + traces - 2 * trace_of_root))


def _trace_of_root(cov1: np.ndarray, cov2: np.ndarray) -> float:
    """The trace of ``(S1 S2)^(1/2)``."""
    from scipy.linalg import LinAlgError, eigh

    try:
        squares = eigh(cov1, cov2, type=2, eigvals_only=True, driver="gv", check_finite=False)
    except LinAlgError:  # S2 is singular
        squares = np.zeros(1)
    # Where one of the two is singular, its eigenvalues of 0 come out as rounding, and the roots of that are not small:
    # factors of no more rows than the rank leave them out.
    return float(np.sqrt(squares).sum()) if _sound(squares) else _nuclear_norm(_factor(cov1), _factor(cov2))


def _nuclear_norm(factor1: np.ndarray, factor2: np.ndarray) -> float:
    """The sum of the singular values of ``F1 F2'``: by their squares where those are sound: three times as fast."""
    if len(factor1) == 0 or len(factor2) == 0:
        return 0.0
    short, long = sorted((factor1, factor2), key=len)
    product = short @ long.T
    squares = np.linalg.eigvalsh(product @ product.T)
    return float((np.sqrt(squares) if _sound(squares) else np.linalg.svd(product, compute_uv=False)).sum())


def _sound(squares: np.ndarray) -> bool:
    """Whether ascending eigenvalues are above rounding."""
    return bool(squares[0] > np.finfo(np.float64).eps * squares[-1])


def _factor(cov: np.ndarray) -> np.ndarray:
    """F (r, d) with ``F'F = S``, r its rank: a Cholesky factor that takes the largest variance left at each step."""
    from scipy.linalg.lapack import dpstrf

    lower, order, rank, _ = dpstrf(cov, lower=1)
    factor = np.zeros((rank, len(cov)))
    factor[:, order - 1] = np.tril(lower)[:, :rank].T
    return factor


def _factor_of(features: Tensor) -> np.ndarray:
    """F with ``F'F = S``, of features: themselves, centred, unless they are more than their dimensions."""
    n, d = features.shape
    if n > d:
        return _factor(moments_of(features).cov.cpu().numpy())
    rows = wide(features).cpu().numpy()
    factor: np.ndarray = (rows - rows.mean(0)) / (n - 1) ** 0.5
    return factor


def _array(values: Features, name: str, ndim: int) -> np.ndarray:
    found = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if found.ndim != ndim or found.size == 0:
        raise UserError(f"{name} has the shape {found.shape}: give {'a vector' if ndim == 1 else 'a square matrix'}")
    found = found.astype(np.float64, copy=False)
    if not np.isfinite(found).all():
        raise UserError(f"{name} has values that are not finite: look for NaN in images or extractor")
    return found
