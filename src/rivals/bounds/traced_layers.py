"""From layers and functions of PyTorch, as a trace names them, to operations that have bounds."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from rivals.base.errors import UserError
from rivals.bounds.operators import (
    Average,
    BatchNorm,
    Conv2d,
    Linear,
    MaxPool2d,
    Operator,
    ReLU,
    Scale,
    Sum,
)

SUPPORTED = (
    "Linear, Conv2d, BatchNorm1d, BatchNorm2d, ReLU, LeakyReLU, AvgPool2d, AdaptiveAvgPool2d(1), MaxPool2d, Flatten, "
    "Identity, Dropout, sums, and constant scales and shifts"
)


def unsupported(what: str) -> UserError:
    """The refusal of an operation."""
    return UserError(f"no bounds for the layer {what}: rebuild the model with {SUPPORTED}")


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[-1]))


def _linear(name: str, layer: Any, shape: torch.Size) -> Operator:
    if len(shape) != 2:
        raise UserError(
            f"no bounds for the layer {name} (Linear) on {len(shape) - 1}-dimensional features: flatten them"
        )
    return Linear(name, layer.weight, layer.bias)


def _conv(name: str, layer: Any, shape: torch.Size) -> Operator:
    if layer.padding_mode != "zeros":
        raise unsupported(f"{name} (Conv2d with padding_mode='{layer.padding_mode}')")
    padding = layer.padding
    if isinstance(padding, str):
        spans = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        if padding == "same" and any(span % 2 for span in spans):
            raise unsupported(f"{name} (Conv2d with padding='same' and an even kernel)")
        padding = (spans[0] // 2, spans[1] // 2) if padding == "same" else (0, 0)
    return Conv2d(name, layer.weight, layer.bias, layer.stride, padding, layer.dilation, layer.groups)


def _norm(name: str, layer: Any, shape: torch.Size) -> Operator:
    if layer.running_mean is None or layer.momentum is None:
        raise unsupported(f"{name} ({type(layer).__name__} without running statistics and a momentum)")
    statistics = (layer.running_mean, layer.running_var, layer.eps, layer.momentum)
    return BatchNorm(name, layer.weight, layer.bias, *statistics, len(shape))


def _avg_pool(name: str, layer: Any, shape: torch.Size) -> Operator:
    if layer.divisor_override or layer.ceil_mode:
        raise unsupported(f"{name} (AvgPool2d with divisor_override or ceil_mode)")
    kernel = _pair(layer.kernel_size)
    terms = kernel[0] * kernel[1]
    pool = partial(
        F.avg_pool2d,
        kernel_size=kernel,
        stride=_pair(layer.stride),
        padding=_pair(layer.padding),
        count_include_pad=layer.count_include_pad,
    )
    return Average(name, pool, 0 if terms == 1 else terms)


def _global_pool(name: str, layer: Any, shape: torch.Size) -> Operator:
    if layer.output_size not in (1, (1, 1)):
        raise unsupported(f"{name} (AdaptiveAvgPool2d to {layer.output_size})")
    return Average(name, lambda x: x.mean((-2, -1), keepdim=True), math.prod(shape[-2:]))


def _max_pool(name: str, layer: Any, shape: torch.Size) -> Operator:
    if layer.return_indices or layer.ceil_mode:
        raise unsupported(f"{name} (MaxPool2d with return_indices or ceil_mode)")
    kernel, stride, padding, dilation = map(_pair, (layer.kernel_size, layer.stride, layer.padding, layer.dilation))
    return MaxPool2d(name, kernel, stride, padding, dilation)


def _relu(name: str, slope: float) -> Operator:
    if not 0 <= slope <= 1:
        raise unsupported(f"{name} with a slope of {slope:g}")
    return ReLU(name, slope)


LAYERS: dict[type[nn.Module], Callable[[str, Any, torch.Size], Operator | None]] = {
    nn.Linear: _linear,
    nn.Conv2d: _conv,
    nn.BatchNorm1d: _norm,
    nn.BatchNorm2d: _norm,
    nn.ReLU: lambda name, layer, shape: ReLU(name),
    nn.LeakyReLU: lambda name, layer, shape: _relu(name, layer.negative_slope),
    nn.AvgPool2d: _avg_pool,
    nn.AdaptiveAvgPool2d: _global_pool,
    nn.MaxPool2d: _max_pool,
    nn.Flatten: lambda name, layer, shape: _flatten(name, [None, layer.start_dim, layer.end_dim], {}, shape),
    nn.Identity: lambda name, layer, shape: None,
    nn.Dropout: lambda name, layer, shape: None,
    nn.Dropout2d: lambda name, layer, shape: None,
}


def _flatten(name: str, args: list[Any], kwargs: dict[str, Any], shape: torch.Size) -> Operator:
    start = kwargs.get("start_dim", args[1] if len(args) > 1 else 0)
    end = kwargs.get("end_dim", args[2] if len(args) > 2 else -1)
    if start != 1 or end not in (-1, len(shape) - 1):
        raise UserError(f"no bounds for {name} over the dimensions {start} to {end}: flatten from 1 to the last")
    return Average(name, lambda x: x.flatten(1))


def _reshape(name: str, args: list[Any], kwargs: dict[str, Any], shape: torch.Size) -> Operator:
    sides = args[1:] if len(args) != 2 or isinstance(args[1], int) else list(args[1])
    if len(sides) == 2 and sides[1] == -1:  # x.view(x.size(0), -1)
        return Average(name, lambda x: x.flatten(1))
    if not all(isinstance(side, int) for side in sides[1:]):
        raise unsupported(f"{name} to a shape that is computed")
    return Average(name, lambda x: x.reshape(len(x), *sides[1:]))


def _mean(name: str, args: list[Any], kwargs: dict[str, Any], shape: torch.Size) -> Operator:
    axes = kwargs.get("dim", args[1] if len(args) > 1 else None)
    axes = (axes,) if isinstance(axes, int) else axes
    if axes is None or any(axis % len(shape) == 0 for axis in axes):
        raise UserError(f"no bounds for {name} over the images of a batch: average over features only")
    keep = kwargs.get("keepdim", args[2] if len(args) > 2 else False)
    return Average(name, lambda x: x.mean(tuple(axes), keepdim=keep), math.prod(shape[axis] for axis in axes))


def _flip(name: str, args: list[Any], kwargs: dict[str, Any], shape: torch.Size) -> Operator:
    named = kwargs.get("dims", args[1] if len(args) > 1 else ())
    axes = (
        args[1:]
        if isinstance(named, int) and "dims" not in kwargs
        else [named]
        if isinstance(named, int)
        else list(named)
    )
    if any(axis % len(shape) == 0 for axis in axes):
        raise UserError(f"no bounds for {name} over the images of a batch: flip features only")
    return Average(name, lambda x: x.flip(*axes))


def _constant(value: Any) -> Tensor:
    # A number in float64, so that it is rounded once, to the precision of the network.
    return value.detach() if isinstance(value, Tensor) else torch.tensor(float(value), dtype=torch.float64)


def _add(name: str, args: list[Any], kwargs: dict[str, Any], shape: torch.Size, sign: int = 1) -> Operator:
    first, second = args[0], args[1]
    if kwargs.get("alpha", 1) != 1:
        raise unsupported(f"{name} with alpha")
    if isinstance(first, fx.Node) and isinstance(second, fx.Node):
        return Sum(name, sign)
    if isinstance(first, fx.Node):
        shift = _constant(second)
        return Scale(name, torch.ones_like(shift), sign * shift, shift.abs())
    shift = _constant(first)
    return Scale(name, torch.full_like(shift, sign), shift, shift.abs())


def _multiply(name: str, args: list[Any], kwargs: dict[str, Any], shape: torch.Size) -> Operator:
    factors = [each for each in args[:2] if not isinstance(each, fx.Node)]
    if len(factors) != 1:
        raise unsupported(f"{name} of two values")
    scale = _constant(factors[0])
    return Scale(name, scale, torch.zeros_like(scale), torch.zeros_like(scale))


def _divide(name: str, args: list[Any], kwargs: dict[str, Any], shape: torch.Size) -> Operator:
    if isinstance(args[1], fx.Node):
        raise unsupported(f"{name} by a value")
    divisor = _constant(args[1])
    return Scale(name, 1 / divisor, torch.zeros_like(divisor), torch.zeros_like(divisor))


def _leaky(name: str, args: list[Any], kwargs: dict[str, Any], shape: torch.Size) -> Operator:
    return _relu(name, float(kwargs.get("negative_slope", args[1] if len(args) > 1 else 0.01)))


def _plain_relu(name: str, args: list[Any], kwargs: dict[str, Any], shape: torch.Size) -> Operator:
    return ReLU(name)


def _identity(name: str, args: list[Any], kwargs: dict[str, Any], shape: torch.Size) -> None:
    return None


def _copy(name: str, args: list[Any], kwargs: dict[str, Any], shape: torch.Size) -> Operator:
    return Average(name, torch.clone)


_Function = Callable[[str, list[Any], dict[str, Any], torch.Size], Operator | None]
_KNOWN: tuple[tuple[tuple[Any, ...], _Function, tuple[str, ...]], ...] = (  # what, how it is read, its keywords
    ((torch.flatten, "flatten"), _flatten, ("start_dim", "end_dim")),
    ((torch.reshape, "reshape", "view"), _reshape, ()),
    ((torch.mean, "mean"), _mean, ("dim", "keepdim")),
    ((torch.flip, "flip"), _flip, ("dims",)),
    ((operator.add, operator.iadd, torch.add, "add", "add_"), _add, ("alpha",)),
    ((operator.sub, operator.isub, torch.sub, "sub", "sub_"), partial(_add, sign=-1), ("alpha",)),
    ((operator.mul, operator.imul, torch.mul, "mul", "mul_"), _multiply, ()),
    ((operator.truediv, operator.itruediv, torch.div, "div", "div_"), _divide, ()),
    ((F.relu, torch.relu, "relu", "relu_"), _plain_relu, ("inplace",)),
    ((F.leaky_relu,), _leaky, ("negative_slope", "inplace")),
    (("contiguous",), _identity, ("memory_format",)),
    (("to", "float"), _identity, ("dtype", "device", "non_blocking", "copy")),
    (("clone",), _copy, ("memory_format",)),
)
FUNCTIONS: dict[Any, tuple[_Function, tuple[str, ...]]] = {
    target: (read, keywords) for targets, read, keywords in _KNOWN for target in targets
}
