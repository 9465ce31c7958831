"""From an ONNX file to a :class:`~rivals.bounds.network.Network`: a small reader of the operators that have bounds."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.base.errors import UserError
from rivals.bounds.network import Network, Node
from rivals.bounds.operators import Average, Conv2d, Linear, MaxPool2d, Operator, ReLU, Scale, Sum

Attributes = dict[str, Any]


def read_onnx(content: bytes, name: str) -> tuple[Network, tuple[int, ...]]:
    """The network of an ONNX file, and the shape of one input, without the batch.

    Args:
        content: The file's bytes.
        name: What it is called, for messages.

    Raises:
        UserError: the package onnx is missing; or the file is damaged, keeps weights in other files, has several inputs
            or outputs, or an operator without bounds.
    """
    try:
        import onnx
    except ImportError:
        raise UserError("reading ONNX files needs the package onnx: pip install 'rivals[export]'") from None
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        graph = onnx.ModelProto.FromString(content).graph
    except DecodeError:
        raise UserError(f"'{name}' is not an ONNX file, or damaged: give a complete one") from None
    weights = {each.name: _array(each, name) for each in graph.initializer}
    inputs = [each for each in graph.input if each.name not in weights]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise UserError(f"'{name}' has {len(inputs)} inputs and {len(graph.output)} outputs: bounds need one of each")
    dims = inputs[0].type.tensor_type.shape.dim
    sides = [dim.dim_value for dim in dims]
    if len(sides) < 2 or sides[0] > 1 or any(side < 1 for side in sides[1:]):
        shown = " x ".join(str(side or "?") for side in sides)
        raise UserError(f"'{name}' takes an input of {shown}: export it for 1 x C x H x W or 1 x features")
    shape = tuple(sides[1:])
    reader = _Reader(name, inputs[0].name, shape, weights)
    for node in graph.node:
        reader.read(node)
    return Network(reader.nodes[: reader.place(graph.output[0].name)]), shape


def _array(tensor: Any, file: str) -> Tensor:
    import onnx

    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise UserError(f"'{file}' keeps the weight {tensor.name} in another file: export it with all weights inside")
    try:
        values = onnx.numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        raise UserError(f"the weight {tensor.name} of '{file}' is damaged ({error}): give a complete file") from None
    if values.dtype.kind == "f":
        return torch.from_numpy(np.array(values, np.float32))
    return torch.from_numpy(np.array(values, np.int64))


class _Reader:
    """Reads a graph node by node.

    Args:
        file: Its name.
        source: The name of the input.
        shape: Of one input.
        constants: Weights and other constants by name.
    """

    def __init__(self, file: str, source: str, shape: tuple[int, ...], constants: dict[str, Tensor]) -> None:
        self.file = file
        self.constants = constants
        self.nodes: list[Node] = []
        self.places = {source: 0}
        self.shapes = [torch.Size((1, *shape))]

    def place(self, name: str) -> int:
        """The number of a value."""
        if name not in self.places:
            raise UserError(f"'{self.file}' reads the value {name}, which nothing computed: give a complete file")
        return self.places[name]

    def read(self, node: Any) -> None:
        """Append the operation of a node."""
        import onnx

        attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        result = node.output[0]
        if node.op_type == "Constant" and "value" in attributes:
            self.constants[result] = _array(attributes["value"], self.file)
            return
        if node.op_type in ("Identity", "Dropout") and node.input[0] in self.places:
            self.places[result] = self.places[node.input[0]]
            return
        make = _OPERATORS.get(node.op_type)
        if make is None or node.domain not in ("", "ai.onnx"):
            raise UserError(
                f"no bounds for the operator {node.op_type} in '{self.file}': rebuild the network with "
                f"{', '.join(_OPERATORS)}"
            )
        values = [name for name in node.input if name and name not in self.constants]
        given = [self.constants.get(name) if name else None for name in node.input]
        inputs = tuple(self.place(name) for name in values)
        if not inputs:
            raise UserError(f"'{self.file}' computes with constants alone ({node.op_type}): simplify it first")
        name = f"{node.name or result} ({node.op_type})"
        operator = make(name, given, attributes, self.shapes[inputs[0]])
        self.nodes.append(Node(operator, inputs))
        self.places[result] = len(self.nodes)
        try:
            with torch.no_grad():
                made = operator(*(torch.zeros(self.shapes[i]) for i in inputs))
        except (RuntimeError, TypeError) as error:
            raise UserError(
                f"the operator {name} of '{self.file}' does not fit its input: {str(error).splitlines()[0]}"
            ) from None
        self.shapes.append(made.shape)


def _refuse(name: str, what: str) -> UserError:
    return UserError(f"no bounds for the operator {name} {what}: export the network without it")


def _weight(name: str, given: list[Tensor | None], i: int) -> Tensor:
    weight = given[i] if i < len(given) else None
    if weight is None:
        raise _refuse(name, f"whose input {i} is computed")
    return weight


def _gemm(name: str, given: list[Tensor | None], attributes: Attributes, shape: torch.Size) -> Operator:
    if attributes.get("transA") or given[0] is not None or len(shape) != 2:
        raise _refuse(name, "of a transposed or constant first matrix")
    weight = attributes.get("alpha", 1.0) * _weight(name, given, 1)
    weight = weight if attributes.get("transB") else weight.T
    offset = given[2] if len(given) > 2 else None
    if offset is not None:
        offset = (attributes.get("beta", 1.0) * offset).flatten().expand(len(weight))
    return Linear(name, weight.contiguous(), offset)


def _matmul(name: str, given: list[Tensor | None], attributes: Attributes, shape: torch.Size) -> Operator:
    if given[0] is not None or len(shape) != 2:
        raise _refuse(name, "of other than a batch of vectors and a matrix")
    weight = _weight(name, given, 1)
    if weight.ndim != 2:
        raise _refuse(name, "with other than a matrix")
    return Linear(name, weight.T.contiguous())


def _conv(name: str, given: list[Tensor | None], attributes: Attributes, shape: torch.Size) -> Operator:
    weight = _weight(name, given, 1)
    if weight.ndim != 4:
        raise _refuse(name, "in other than two dimensions")
    stride, padding, dilation = _window(name, attributes)
    offset = given[2] if len(given) > 2 else None
    return Conv2d(name, weight, offset, stride, padding, dilation, attributes.get("group", 1))


def _window(name: str, attributes: Attributes) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Stride, padding and dilation."""
    pads = list(attributes.get("pads", (0, 0, 0, 0)))
    if attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise _refuse(name, f"with auto_pad {attributes['auto_pad'].decode()}")
    if len(pads) != 4 or pads[:2] != pads[2:]:
        raise _refuse(name, f"with pads {pads}, which differ from side to side")
    stride, dilation = attributes.get("strides", (1, 1)), attributes.get("dilations", (1, 1))
    return (stride[0], stride[1]), (pads[0], pads[1]), (dilation[0], dilation[1])


def _max_pool(name: str, given: list[Tensor | None], attributes: Attributes, shape: torch.Size) -> Operator:
    if attributes.get("ceil_mode") or attributes.get("storage_order"):
        raise _refuse(name, "with ceil_mode or storage_order")
    stride, padding, dilation = _window(name, attributes)
    kernel = attributes["kernel_shape"]
    return MaxPool2d(name, (kernel[0], kernel[1]), stride, padding, dilation)


def _average_pool(name: str, given: list[Tensor | None], attributes: Attributes, shape: torch.Size) -> Operator:
    stride, padding, dilation = _window(name, attributes)
    if attributes.get("ceil_mode") or dilation != (1, 1):
        raise _refuse(name, "with ceil_mode or dilations")
    kernel = tuple(attributes["kernel_shape"])
    counted = bool(attributes.get("count_include_pad", 0))
    pool = partial(F.avg_pool2d, kernel_size=kernel, stride=stride, padding=padding, count_include_pad=counted)
    return Average(name, pool, kernel[0] * kernel[1])


def _global_pool(name: str, given: list[Tensor | None], attributes: Attributes, shape: torch.Size) -> Operator:
    return Average(name, lambda x: x.mean((2, 3), keepdim=True), shape[2:].numel())


def _norm(name: str, given: list[Tensor | None], attributes: Attributes, shape: torch.Size) -> Operator:
    weight, offset, mean, variance = (_weight(name, given, i) for i in range(1, 5))
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
        raise _refuse(name, "of two computed values, or by one")
    zero = torch.zeros_like(constant)
    return Scale(name, 1 / constant if inverse else constant, zero, zero)


def _relu(name: str, given: list[Tensor | None], attributes: Attributes, shape: torch.Size) -> Operator:
    return ReLU(name)


def _leaky(name: str, given: list[Tensor | None], attributes: Attributes, shape: torch.Size) -> Operator:
    slope = attributes.get("alpha", 0.01)
    if not 0 <= slope <= 1:
        raise _refuse(name, f"with a slope of {slope:g}")
    return ReLU(name, slope)


def _flatten(name: str, given: list[Tensor | None], attributes: Attributes, shape: torch.Size) -> Operator:
    if attributes.get("axis", 1) != 1:
        raise _refuse(name, "from another axis than 1")
    return Average(name, lambda x: x.flatten(1))


def _reshape(name: str, given: list[Tensor | None], attributes: Attributes, shape: torch.Size) -> Operator:
    sides = _weight(name, given, 1).tolist()
    sides = [shape[i] if side == 0 and i < len(shape) else side for i, side in enumerate(sides)]
    if sides[0] not in (1, -1):
        raise _refuse(name, "of the batch")
    inside = sides[1:]
    if sides[0] == -1 and -1 in inside:
        raise _refuse(name, f"to {sides}")
    return Average(name, lambda x: x.reshape(len(x), *inside))


def _transpose(name: str, given: list[Tensor | None], attributes: Attributes, shape: torch.Size) -> Operator:
    order = list(attributes.get("perm", range(len(shape) - 1, -1, -1)))
    if order[0] != 0:
        raise _refuse(name, "of the batch")
    return Average(name, lambda x: x.permute(order))


_OPERATORS: dict[str, Callable[[str, list[Tensor | None], Attributes, torch.Size], Operator]] = {
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
