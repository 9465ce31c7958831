"""The Fréchet distance of Gaussian fits to two sets of features.

``|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))`` (Dowson & Landau 1982, eq. 4; Heusel et al. 2017, eq. 6). The trace of
the matrix square root is computed without one: it is the sum of the square roots of the eigenvalues of ``S1 S2`` and,
for any factors ``F'F = S``, the nuclear norm of ``F1 F2'``.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rivals.base.errors import UserError
from rivals.metrics.feature_checks import Features, blocks, checked, count, same_dtype, to_double

_BLOCK = 4096


class Moments:
    """Mean and covariance of features, accumulated over batches in double precision.

    Up to rounding they do not depend on the batches.

    Attributes:
        n: Rows so far.
        mean: (d,), float64.
        scatter: The sum of ``(x - mean)(x - mean)'``, (d, d), float64.
    """

    def __init__(self, n: int = 0, mean: Tensor | None = None, scatter: Tensor | None = None) -> None:
        self.n = n
        self.mean = torch.zeros(0, dtype=torch.float64) if mean is None else mean
        self.scatter = torch.zeros(0, 0, dtype=torch.float64) if scatter is None else scatter

    def add(self, features: Features) -> None:
        """Add a batch (b, d) (Chan et al. 1983, eq. 1.5).

        Raises:
            UserError: not a matrix, values that are not finite, or another d than before.
        """
        batch = to_double(checked(features, "batch"))
        self._start(batch.shape[1], batch.device)
        b, mean = len(batch), batch.mean(0)
        # The shift of the mean adds n b / (n + b) times its outer product: append it as one more row of the batch.
        shift = (mean - self.mean) * (self.n * b / (self.n + b)) ** 0.5
        rows = torch.cat([batch - mean, shift[None]])
        self.scatter.addmm_(rows.T, rows)
        self.mean = self.mean + (mean - self.mean) * (b / (self.n + b))
        self.n += b

    def merge(self, other: Moments) -> None:
        """Add the rows of ``other``, which is not changed."""
        if other.n == 0:
            return
        self._start(len(other.mean), other.mean.device)
        both = self.n + other.n
        shift = other.mean.to(self.mean.device) - self.mean
        self.scatter.add_(other.scatter.to(shift.device)).addr_(shift, shift, alpha=self.n * other.n / both)
        self.mean = self.mean + shift * (other.n / both)
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
        """For ``numpy.savez``; :meth:`from_arrays` reads them."""
        return {"n": np.array(self.n), "mean": self.mean.cpu().numpy(), "scatter": self.scatter.cpu().numpy()}

    @classmethod
    def from_arrays(cls, arrays: Any) -> Moments:
        """From :meth:`arrays`, or from the open file that they were saved to."""
        mean, scatter = (torch.from_numpy(np.array(arrays[name], dtype=np.float64)) for name in ("mean", "scatter"))
        return cls(int(arrays["n"]), mean, scatter)

    def _start(self, d: int, device: torch.device) -> None:
        """Allocate the moments for the first batch; check the dimension of the others."""
        if self.n == 0:
            self.mean = torch.zeros(d, dtype=torch.float64, device=device)
            self.scatter = torch.zeros(d, d, dtype=torch.float64, device=device)
        elif d != len(self.mean):
            raise UserError(f"features of {d} dimensions after features of {len(self.mean)}: take one layer throughout")


def moments_of(features: Features) -> Moments:
    """The moments of features (n, d)."""
    found, rows = Moments(), torch.as_tensor(features)
    for block in blocks(len(rows), _BLOCK):
        found.add(rows[block])
    return found


def frechet_distance(mean1: Features, cov1: Features, mean2: Features, cov2: Features) -> float:
    """The (squared) Fréchet distance of two normal distributions; the FID if the features are Inception's.

    Exact for singular covariances too.

    Args:
        mean1: (d,), numpy or torch.
        cov1: (d, d), symmetric and positive semi-definite.
        mean2: (d,).
        cov2: (d, d).

    Returns:
        The distance, in the squared unit of the features, 0 or above.

    Raises:
        UserError: shapes that do not match, values that are not finite, or a negative variance.
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
    """The Fréchet distance of two sets of features (n, d) and (m, d).

    If a set has no more images than dimensions, its covariance is singular. The nuclear norm of the centered features
    is then exact and fast, but the distance is biased upward, and a warning is given.

    Raises:
        UserError: see :func:`frechet_distance`; fewer than 2 images.
    """
    why = "since one has no covariance"
    one, two = same_dtype(checked(real, "real", 2, why), checked(fake, "fake", 2, why))
    few = [f"{len(x)} {name}" for name, x in (("real", one), ("fake", two)) if len(x) <= one.shape[1]]
    if not few:
        a, b = moments_of(one), moments_of(two)
        return frechet_distance(a.mean, a.cov, b.mean, b.cov)
    warnings.warn(
        f"{' and '.join(few)} images for {one.shape[1]} dimensions: the Fréchet distance is biased upward; "
        "compare it only with those of as many images, or give more",
        stacklevel=2,
    )
    factors = [_factor_of(x) for x in (one, two)]
    traces = sum(float(np.square(factor).sum()) for factor in factors)
    difference = to_double(one).mean(0) - to_double(two).mean(0)
    return _distance(difference.cpu().numpy(), traces, _nuclear_norm(*factors))


def _distance(difference: np.ndarray, traces: float, trace_of_root: float) -> float:
    return max(0.0, float(difference @ difference + traces - 2 * trace_of_root))


def _trace_of_root(cov1: np.ndarray, cov2: np.ndarray) -> float:
    """The trace of ``(S1 S2)^(1/2)``."""
    from scipy.linalg import LinAlgError, eigh

    try:
        # The eigenvalues of S1 S2, which is not symmetric, are those of L' S1 L, which is, with S2 = L L'.
        squares = eigh(cov1, cov2, type=2, eigvals_only=True, driver="gv", check_finite=False)
    except LinAlgError:  # S2 is singular
        squares = np.zeros(1)
    # For a singular covariance, eigenvalues of 0 come out as rounding errors, whose square roots are not small. Factors
    # with as many rows as the rank leave them out.
    return float(np.sqrt(squares).sum()) if _accurate(squares) else _nuclear_norm(_factor(cov1), _factor(cov2))


def _nuclear_norm(factor1: np.ndarray, factor2: np.ndarray) -> float:
    """The sum of the singular values of ``F1 F2'``, from their squares where those are accurate (3 times as fast)."""
    if len(factor1) == 0 or len(factor2) == 0:
        return 0.0
    short, long = sorted((factor1, factor2), key=len)
    product = short @ long.T
    squares = np.linalg.eigvalsh(product @ product.T)
    return float((np.sqrt(squares) if _accurate(squares) else np.linalg.svd(product, compute_uv=False)).sum())


def _accurate(squares: np.ndarray) -> bool:
    """Whether ascending eigenvalues are all above rounding errors."""
    return bool(squares[0] > np.finfo(np.float64).eps * squares[-1])


def _factor(cov: np.ndarray) -> np.ndarray:
    """F (r, d) with ``F'F = S``, r the rank: Cholesky with complete pivoting."""
    from scipy.linalg.lapack import dpstrf

    lower, order, rank, _ = dpstrf(cov, lower=1)
    factor = np.zeros((rank, len(cov)))
    factor[:, order - 1] = np.tril(lower)[:, :rank].T
    return factor


def _factor_of(features: Tensor) -> np.ndarray:
    """F with ``F'F = S`` for features (n, d): the centered features, or a Cholesky factor if n is above d."""
    n, d = features.shape
    if n > d:
        return _factor(moments_of(features).cov.cpu().numpy())
    rows = to_double(features).cpu().numpy()
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
