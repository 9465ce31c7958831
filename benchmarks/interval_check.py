"""Interval bounds of the network ``strided`` in float64, by numpy alone: a second opinion on certificates.

It shares no code with ``rivals.bounds``. Convolutions are sums over shifted windows, batch norm is not folded, and each
layer's bounds take positive and negative weights apart instead of center and radius.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from rivals.base.typed_json import read_json

Array = npt.NDArray[np.float64]
Bounds = tuple[Array, Array]


def convolve(x: Array, weight: Array, stride: int) -> Array:
    """A 3x3 convolution with padding 1 of (n, c, h, w) by (m, c, 3, 3)."""
    n, _, h, w = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    rows, columns = (h + stride - 1) // stride, (w + stride - 1) // stride
    total = np.zeros((n, rows, columns, len(weight)))
    for i in range(3):
        for j in range(3):
            window = padded[:, :, i : i + stride * rows : stride, j : j + stride * columns : stride]
            total += np.tensordot(window, weight[:, :, i, j], axes=(1, 1))
    return total.transpose(0, 3, 1, 2)


def signed(apply: Any, weight: Array, bounds: Bounds) -> Bounds:
    """Bounds of a linear map: positive weights take the same end, negative ones the other."""
    lower, upper = bounds
    positive, negative = np.maximum(weight, 0), np.minimum(weight, 0)
    return apply(lower, positive) + apply(upper, negative), apply(upper, positive) + apply(lower, negative)


def scaled(bounds: Bounds, scale: Array, shift: Array) -> Bounds:
    """Bounds of ``scale * x + shift``."""
    ends = scale * bounds[0] + shift, scale * bounds[1] + shift
    return np.minimum(*ends), np.maximum(*ends)


def normalized(bounds: Bounds, weights: dict[str, Array], name: str) -> Bounds:
    """Bounds of batch norm by its running statistics."""
    deviation = np.sqrt(weights[f"{name}.running_var"] + 1e-5)
    scale = weights[f"{name}.weight"] / deviation
    shift = weights[f"{name}.bias"] - weights[f"{name}.running_mean"] * scale
    sides = (-1, 1, 1) if bounds[0].ndim == 4 else (-1,)
    return scaled(bounds, scale.reshape(sides), shift.reshape(sides))


def rectified(bounds: Bounds) -> Bounds:
    """Bounds of a ReLU."""
    return np.maximum(bounds[0], 0), np.maximum(bounds[1], 0)


def worst_margins(file: Path, x: Array, y: npt.NDArray[np.int64], eps: float) -> Array:
    """For each image the smallest lower bound of ``z_y - z_k`` over the ball in Linf, (n,).

    Args:
        file: The ``.safetensors`` file of a classifier ``strided``; its ``.json`` is beside it.
        x: Images (n, c, h, w) in [0, 1].
        y: Their labels.
        eps: The radius.
    """
    weights = {name: values.astype(np.float64) for name, values in load_file(file).items()}
    spec = read_json(file.with_suffix(".json"), dict[str, Any], "restore it")["spec"]
    mean, std = (np.array(spec[name], np.float32).astype(np.float64).reshape(-1, 1, 1) for name in ("mean", "std"))
    bounds = scaled((np.maximum(x - eps, 0), np.minimum(x + eps, 1)), 1 / std, -mean / std)
    for stage in range(2 * len(spec["widths"])):
        weight, stride = weights[f"stages.{3 * stage}.weight"], 2 if stage % 2 == 0 else 1
        bounds = signed(lambda z, w, stride=stride: convolve(z, w, stride), weight, bounds)
        bounds = rectified(normalized(bounds, weights, f"stages.{3 * stage + 1}"))
    flat = bounds[0].reshape(len(x), -1), bounds[1].reshape(len(x), -1)
    hidden = signed(lambda z, w: z @ w.T, weights["head.0.weight"], flat)
    lower, upper = rectified(normalized(hidden, weights, "head.1"))
    last, offset = weights["head.3.weight"], weights["head.3.bias"]
    worst = np.full(len(x), np.inf)
    for k in range(len(last)):
        rows = last[y] - last[k]  # the last layer, merged with the difference
        margin = (np.maximum(rows, 0) * lower + np.minimum(rows, 0) * upper).sum(1) + offset[y] - offset[k]
        worst = np.where(y == k, worst, np.minimum(worst, margin))
    return worst
