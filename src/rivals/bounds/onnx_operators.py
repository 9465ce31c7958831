"""From a node of an ONNX graph to an operation that has bounds."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.base.errors import UserError
from rivals.bounds.operators import Average, Conv2d, Linear, MaxPool2d, Operator, ReLU, Scale, Sum

Attributes = dict[str, Any]


def sides_of(shape: torch.Size) -> str:
    """A shape, for messages."""
    return " x ".join(map(str, shape))


def check_range(operator: Operator, name: str) -> None:
    """Refuse weights that are not finite, or of float64 and not among the normal numbers of float32, as for bounds."""
    for value in vars(operator).values():
        if not isinstance(value, Tensor):
            continue
        size, single = value.abs(), torch.finfo(torch.float32)
        good = size.isfinite()
        if value.dtype == torch.float64:
            good &= (size == 0) | ((size >= single.tiny) & (size <= single.max))
        if not bool(good.all()):
            raise refuse(name, f"with the weight {value[~good][0].item():g}, beyond the range of float32")


def refuse(name: str, what: str) -> UserError:
    """The error of an operator that has no bounds as it is."""
    return UserError(f"no bounds for the operator {name} {what}: export the network without it")


def _weight(name: str, given: list[Tensor | None], i: int) -> Tensor:
    weight = given[i] if i < len(given) else None
    if weight is None:
        raise refuse(name, f"whose input {i} is computed")
    return weight


def _gemm(name: str, given: list[Tensor | None], attributes: Attributes, shape: torch.Size) -> Operator:
    if attributes.get("transA") or given[0] is not None or len(shape) != 2:
        raise refuse(name, "of a transposed or constant first matrix")
    weight = attributes.get("alpha", 1.0) * _weight(name, given, 1)
    if weight.ndim != 2:
        raise refuse(name, "with other than a matrix")
    weight = weight if attributes.get("transB") else weight.T
    offset = given[2] if len(given) > 2 else None
    if offset is not None:
        if offset.ndim > 2 or (offset.ndim == 2 and len(offset) != 1):
            raise refuse(name, f"that adds {sides_of(offset.shape)}")
        offset = (attributes.get("beta", 1.0) * offset).flatten().expand(len(weight))
    return Linear(name, weight.contiguous(), offset)


def _matmul(name: str, given: list[Tensor | None], attributes: Attributes, shape: torch.Size) -> Operator:
    if given[0] is not None or len(shape) != 2:
        raise refuse(name, "of other than a batch of vectors and a matrix")
    weight = _weight(name, given, 1)
    if weight.ndim != 2:
        raise refuse(name, "with other than a matrix")
    return Linear(name, weight.T.contiguous())


def _conv(name: str, given: list[Tensor | None], attributes: Attributes, shape: torch.Size) -> Operator:
    weight = _weight(name, given, 1)
    _check_planes(name, shape)
    if weight.ndim != 4 or list(attributes.get("kernel_shape", weight.shape[2:])) != list(weight.shape[2:]):
        raise refuse(name, f"with a weight of {sides_of(weight.shape)}")
    stride, padding, dilation = _window(name, attributes)
    offset = given[2] if len(given) > 2 else None
    return Conv2d(name, weight, offset, stride, padding, dilation, attributes.get("group", 1))


def _check_planes(name: str, shape: torch.Size) -> None:
    if len(shape) != 4:
        raise refuse(name, f"on {sides_of(shape)}, which is not 1 x C x H x W")


def _window(name: str, attributes: Attributes) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Stride, padding and dilation."""
    pads = list(attributes.get("pads", (0, 0, 0, 0)))
    if attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise refuse(name, f"with auto_pad {attributes['auto_pad'].decode()}")
    if attributes.get("auto_pad") == b"VALID" and any(pads):
        raise refuse(name, "with both auto_pad and pads")
    if len(pads) != 4 or pads[:2] != pads[2:]:
        raise refuse(name, f"with pads {pads}, which differ from side to side")
    stride, dilation = attributes.get("strides", (1, 1)), attributes.get("dilations", (1, 1))
    kernel = attributes.get("kernel_shape", (1, 1))
    if not len(stride) == len(dilation) == len(kernel) == 2:
        raise refuse(name, "in other than two dimensions")
    return (stride[0], stride[1]), (pads[0], pads[1]), (dilation[0], dilation[1])


def _max_pool(name: str, given: list[Tensor | None], attributes: Attributes, shape: torch.Size) -> Operator:
    if attributes.get("ceil_mode") or attributes.get("storage_order"):
        raise refuse(name, "with ceil_mode or storage_order")
    _check_planes(name, shape)
    stride, padding, dilation = _window(name, attributes)
    kernel = attributes["kernel_shape"]
    return MaxPool2d(name, (kernel[0], kernel[1]), stride, padding, dilation)


def _average_pool(name: str, given: list[Tensor | None], attributes: Attributes, shape: torch.Size) -> Operator:
    _check_planes(name, shape)
    stride, padding, dilation = _window(name, attributes)
    if attributes.get("ceil_mode") or dilation != (1, 1):
        raise refuse(name, "with ceil_mode or dilations")
    kernel = tuple(attributes["kernel_shape"])
    counted = bool(attributes.get("count_include_pad", 0))
    pool = partial(F.avg_pool2d, kernel_size=kernel, stride=stride, padding=padding, count_include_pad=counted)
    return Average(name, pool, kernel[0] * kernel[1])


def _global_pool(name: str, given: list[Tensor | None], attributes: Attributes, shape: torch.Size) -> Operator:
    _check_planes(name, shape)
    return Average(name, lambda x: x.mean((2, 3), keepdim=True), shape[2:].numel())


def _norm(name: str, given: list[Tensor | None], attributes: Attributes, shape: torch.Size) -> Operator:
    weight, offset, mean, variance = (_weight(name, given, i) for i in range(1, 5))
    if any(each.shape != shape[1:2] for each in (weight, offset, mean, variance)):
        raise refuse(name, f"on {sides_of(shape)}, whose channels are not as many as its weights")
    if attributes.get("training_mode") or not attributes.get("spatial", 1):
        raise refuse(name, "in training mode, or with statistics of each entry")
    scale = weight / torch.sqrt(variance + attributes.get("epsilon", 1e-5))
    sides = (-1, *[1] * (len(shape) - 2))
    shift, size = offset - mean * scale, offset.abs() + (mean * scale).abs()
    return Scale(name, scale.view(sides), shift.view(sides), size.view(sides))


def _sum(name: str, given: list[Tensor | None], attributes: Attributes, shape: torch.Size, sign: int = 1) -> Operator:
    first, second = given[:2]
    if first is None and second is None:
        return Sum(name, sign)
    if second is not None:
        return Scale(name, torch.ones_like(second), sign * second, second.abs())
    assert first is not None
    return Scale(name, torch.full_like(first, sign), first, first.abs())


def _product(
    name: str, given: list[Tensor | None], attributes: Attributes, shape: torch.Size, inverse: bool = False
) -> Operator:
    constant = given[1] if given[0] is None else given[0]
    if constant is None or (inverse and given[0] is not None):
        raise refuse(name, "of two computed values, or by one")
    zero = torch.zeros_like(constant)
    return Scale(name, 1 / constant if inverse else constant, zero, zero)


def _relu(name: str, given: list[Tensor | None], attributes: Attributes, shape: torch.Size) -> Operator:
    return ReLU(name)


def _leaky(name: str, given: list[Tensor | None], attributes: Attributes, shape: torch.Size) -> Operator:
    slope = attributes.get("alpha", 0.01)
    if not 0 <= slope <= 1:
        raise refuse(name, f"with a slope of {slope:g}")
    return ReLU(name, slope)


def _flatten(name: str, given: list[Tensor | None], attributes: Attributes, shape: torch.Size) -> Operator:
    if attributes.get("axis", 1) != 1:
        raise refuse(name, "from another axis than 1")
    return Average(name, lambda x: x.flatten(1))


def _reshape(name: str, given: list[Tensor | None], attributes: Attributes, shape: torch.Size) -> Operator:
    sides = _weight(name, given, 1).flatten().tolist()
    if not sides or (attributes.get("allowzero") and 0 in sides):
        raise refuse(name, f"to {sides}")
    sides = [shape[i] if side == 0 and i < len(shape) else side for i, side in enumerate(sides)]
    if sides[0] not in (1, -1):
        raise refuse(name, "of the batch")
    inside = sides[1:]
    if sides[0] == -1 and -1 in inside:
        raise refuse(name, f"to {sides}")
    return Average(name, lambda x: x.reshape(len(x), *inside))


def _transpose(name: str, given: list[Tensor | None], attributes: Attributes, shape: torch.Size) -> Operator:
    order = list(attributes.get("perm", range(len(shape) - 1, -1, -1)))
    if order[0] != 0:
        raise refuse(name, "of the batch")
    return Average(name, lambda x: x.permute(order))


ATTRIBUTES = {
    "Gemm": "alpha beta transA transB",
    "Conv": "auto_pad dilations group kernel_shape pads strides",
    "BatchNormalization": "epsilon momentum training_mode spatial",
    "LeakyRelu": "alpha",
    "MaxPool": "auto_pad ceil_mode dilations kernel_shape pads storage_order strides",
    "AveragePool": "auto_pad ceil_mode count_include_pad dilations kernel_shape pads strides",
    "Flatten": "axis",
    "Reshape": "allowzero",
    "Transpose": "perm",
}
"""Those that are read; any other would mean something else."""
INPUTS = {"Gemm": 3, "MatMul": 2, "Conv": 3, "BatchNormalization": 5, "Reshape": 2} | dict.fromkeys(
    ("Add", "Sub", "Mul", "Div"), 2
)
"""The most that an operator has; 1 where it is not named."""

OPERATORS: dict[str, Callable[[str, list[Tensor | None], Attributes, torch.Size], Operator]] = {
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Conv": _conv,
    "BatchNormalization": _norm,
    "Add": _sum,
    "Sub": partial(_sum, sign=-1),
    "Mul": _product,
    "Div": partial(_product, inverse=True),
    "Relu": _relu,
    "LeakyRelu": _leaky,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_pool,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Transpose": _transpose,
}
