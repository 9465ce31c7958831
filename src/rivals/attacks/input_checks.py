"""Checks of an attack's images, labels and model; each error is one line."""

from __future__ import annotations

import itertools
import math
import warnings

import torch
from torch import Tensor, nn

from rivals.base.errors import UserError
from rivals.base.norm_balls import check_broadcast
from rivals.base.projections import Bounds


class NoGradientError(UserError):
    """The model gives no gradient with respect to its images."""


class OneLogitWarning(UserWarning):
    """The model returns one logit per image, read as two classes."""


class ProbabilitiesWarning(UserWarning):
    """The model seems to return probabilities instead of logits."""


def check_images(x: Tensor, bounds: Bounds) -> Tensor:
    """The images without their graph, if they are a batch (n, ...) of floating-point ones within ``bounds``.

    Values that overstep by up to 1e-6, as rounding makes them, are set to the bound.

    Raises:
        UserError: no tensor, whole numbers, a single image, NaN or infinity, or values outside ``bounds``.
    """
    if not isinstance(x, Tensor):
        raise UserError(f"the images are a {type(x).__name__}: give a tensor (n, ...), as torch.as_tensor makes")
    low, high = bounds
    if not x.is_floating_point():
        fix = "divide by 255, as in x.float() / 255" if x.dtype == torch.uint8 else "give floating-point ones"
        raise UserError(f"the images are of type {_short(x.dtype)}: {fix}")
    if x.ndim < 2:
        raise UserError(f"the images have the shape {tuple(x.shape)}: give a batch (n, ...), of one image by x[None]")
    x = x.detach()
    if not x.numel():
        return x
    least, most = (float(value) for value in torch.aminmax(x))
    if not math.isfinite(least + most):
        bad = int((~x.isfinite().flatten(1).all(1)).sum())
        raise UserError(f"the images hold NaN or infinity, in {bad} of {len(x)}: fix them first")
    if isinstance(low, Tensor) and isinstance(high, Tensor):
        for bound in (low, high):
            check_broadcast("bounds", bound, x)
        if bool(((x >= low - 1e-6) & (x <= high + 1e-6)).all()):
            return x.clamp(low, high)
        outside = int(((x < low) | (x > high)).any(0).sum())
        raise UserError(f"the images leave the bounds in {outside} features: clip them, or widen the bounds")
    if low <= least and most <= high:
        return x
    if low - 1e-6 <= least and most <= high + 1e-6:
        return x.clamp(low, high)
    if (low, high) == (0, 1) and least >= 0 and most > 2:
        fix = "they look like 0..255: divide them by 255"
    elif (low, high) == (0, 1) and abs(least + 1) < 0.02 and most <= 1:
        fix = "they look like [-1, 1]: map them by (x + 1) / 2, and back inside the model"
    else:
        fix = "if they are normalized, put the mean and the deviation inside the model"
    raise UserError(f"the images run from {least:.4g} to {most:.4g}, not within [{low:g}, {high:g}]: {fix}")


def check_labels(y: Tensor, x: Tensor, name: str = "labels") -> Tensor:
    """The labels as int64, one for each image.

    Raises:
        UserError: no tensor, not whole numbers, not of shape (n,), or on another device than the images.
    """
    if not isinstance(y, Tensor):
        raise UserError(f"the {name} are a {type(y).__name__}: give a tensor (n,) of class numbers")
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise UserError(f"the {name} are of type {_short(y.dtype)}: give class numbers, torch.int64")
    if y.shape != (len(x),):
        raise UserError(
            f"the {name} have the shape {tuple(y.shape)} for {len(x)} images: give one class number an image"
        )
    if y.device != x.device:
        raise UserError(f"the {name} are on {y.device} and the images on {x.device}: move one of them by .to(device)")
    return y.long()


def check_classes(y: Tensor, classes: int, name: str = "labels") -> None:
    """Refuse class numbers that the model does not have.

    Raises:
        UserError: one is below 0 or not below ``classes``.
    """
    wrong = y[(y < 0) | (y >= classes)]
    if len(wrong):
        raise UserError(
            f"the {name} hold {int(wrong[0])}, but the model has {classes} classes: class numbers run from 0 to "
            f"{classes - 1}"
        )


def check_place(model: nn.Module, x: Tensor) -> None:
    """Refuse a model on another device, or of another floating-point type, than the images.

    Raises:
        UserError: as said.
    """
    for part in itertools.chain(model.parameters(), model.buffers()):
        if part.device != x.device:
            raise UserError(
                f"the model is on {part.device} and the images on {x.device}: move one of them by .to(device)"
            )
    first = next((p for p in model.parameters() if p.is_floating_point()), None)
    if first is not None and first.dtype != x.dtype:
        raise UserError(
            f"the model is of type {_short(first.dtype)} and the images of {_short(x.dtype)}: convert one of them, "
            f"as by x.to(torch.{_short(first.dtype)})"
        )


def check_logits(logits: Tensor, x: Tensor) -> None:
    """Refuse outputs that are not logits (n, K) with K of 2 or more, finite or -inf for classes that are masked.

    Raises:
        UserError: as said.
    """
    if logits.ndim != 2 or len(logits) != len(x) or logits.shape[1] < 2:
        raise UserError(
            f"the model returns the shape {tuple(logits.shape)} for {len(x)} images: it must be ({len(x)}, classes), "
            "with two classes or more"
        )
    if not logits.is_floating_point():
        raise UserError(f"the model returns {_short(logits.dtype)}: let it return logits, not class numbers")
    if not bool((logits < math.inf).all()):  # NaN is not below it
        raise UserError("the model's logits hold NaN or infinity for images in range: look at its weights")


def are_probabilities(logits: Tensor) -> bool:
    """Whether outputs look like probabilities: rows that are not negative and sum to 1."""
    return bool((logits >= 0).all()) and bool(((logits.sum(1) - 1).abs() < 1e-3).all())


ONE_LOGIT = (
    "the model returns one logit per image: above 0 it is read as class 1, below as class 0; if it is a probability, "
    "leave the model's last sigmoid out"
)


def warn_of_one_logit() -> None:
    """Tell how the output of a binary model is read."""
    warnings.warn(ONE_LOGIT, OneLogitWarning, stacklevel=2)


def warn_of_probabilities() -> None:
    """Warn of a model whose outputs look like probabilities."""
    warnings.warn(
        "the model returns probabilities, not logits: where it is confident, they round to 0 and 1 and their "
        "gradient vanishes, so attacks look weaker than they are; leave its last softmax out",
        ProbabilitiesWarning,
        stacklevel=2,
    )


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
