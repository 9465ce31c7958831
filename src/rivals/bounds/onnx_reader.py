"""From an ONNX file to a :class:`~rivals.bounds.network.Network`: a small reader of the operators that have bounds."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from rivals.base.errors import UserError
from rivals.bounds.network import Network, Node
from rivals.bounds.onnx_operators import ATTRIBUTES, INPUTS, OPERATORS, Attributes, check_range, refuse, sides_of
from rivals.bounds.operators import Scale

DTYPES = {1: torch.float32, 11: torch.float64}
"""Of values and weights, by ONNX's number. Bounds cover the rounding errors of these two, of no shorter type."""
INT64 = 7
DOMAINS = ("", "ai.onnx")  # of the operators
OLDEST = 7  # opset; before, sums broadcast in another way and dropout drops


def read_onnx(content: bytes, name: str) -> tuple[Network, tuple[int, ...]]:
    """The network of an ONNX file, and the shape of one input, without the batch.

    Args:
        content: The file's bytes.
        name: What it is called, for messages.

    Raises:
        UserError: the package onnx is missing; or the file is damaged, keeps weights in other files, has several inputs
            or outputs, another type than float32 and float64, or an operator without bounds.
    """
    try:
        import onnx
    except ImportError:
        raise UserError("reading ONNX files needs the package onnx: pip install 'rivals[export]'") from None
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.ModelProto.FromString(content)
    except DecodeError:
        raise UserError(f"'{name}' is not an ONNX file, or damaged: give a complete one") from None
    graph = model.graph
    for opset in model.opset_import:
        if opset.domain in DOMAINS and opset.version < OLDEST:
            raise UserError(f"'{name}' is of opset {opset.version}: export it with opset {OLDEST} or later")
    names = {each.name for each in graph.initializer}
    inputs = [each for each in graph.input if each.name not in names]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise UserError(f"'{name}' has {len(inputs)} inputs and {len(graph.output)} outputs: bounds need one of each")
    dtype = DTYPES.get(inputs[0].type.tensor_type.elem_type)
    for kind, each in (("input", inputs[0]), ("output", graph.output[0])):
        found = each.type.tensor_type.elem_type
        if dtype is None or DTYPES.get(found) != dtype:
            raise _wrong_type(f"{kind} {each.name}", found, name, dtype)
    assert dtype is not None
    weights = {each.name: _array(each, name, dtype) for each in graph.initializer}
    dims = inputs[0].type.tensor_type.shape.dim
    sides = [dim.dim_value for dim in dims]
    if len(sides) < 2 or sides[0] > 1 or any(side < 1 for side in sides[1:]):
        shown = " x ".join(str(side or "?") for side in sides)
        raise UserError(f"'{name}' takes an input of {shown}: export it for 1 x C x H x W or 1 x features")
    shape = tuple(sides[1:])
    reader = _Reader(name, inputs[0].name, shape, dtype, weights)
    for node in graph.node:
        reader.read(node)
    nodes = reader.nodes[: reader.place(graph.output[0].name)]
    if not nodes:
        raise UserError(f"'{name}' gives back its input: there is nothing to bound")
    return Network(nodes), shape


def _wrong_type(what: str, found: int, file: str, wanted: torch.dtype | None) -> UserError:
    import onnx

    known = {number: kind for kind, number in onnx.TensorProto.DataType.items()}
    kinds = "float32 or float64" if wanted is None else f"{wanted}".removeprefix("torch.") + ", as its input is"
    return UserError(
        f"the {what} of '{file}' is of type {known.get(found, str(found))}: export the whole network in {kinds}"
    )


def _array(tensor: Any, file: str, dtype: torch.dtype) -> Tensor:
    """A constant: of the network's type, or integers for a shape."""
    import onnx

    if tensor.data_type != INT64 and DTYPES.get(tensor.data_type) != dtype:
        raise _wrong_type(f"constant {tensor.name}", tensor.data_type, file, dtype)
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise UserError(f"'{file}' keeps the weight {tensor.name} in another file: export it with all weights inside")
    try:
        values = onnx.numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        raise UserError(f"the weight {tensor.name} of '{file}' is damaged ({error}): give a complete file") from None
    return torch.from_numpy(np.array(values))


class _Reader:
    """Reads a graph node by node.

    Args:
        file: Its name.
        source: The name of the input.
        shape: Of one input.
        dtype: Of all values.
        constants: Weights and other constants by name.
    """

    def __init__(
        self, file: str, source: str, shape: tuple[int, ...], dtype: torch.dtype, constants: dict[str, Tensor]
    ) -> None:
        self.file, self.dtype = file, dtype
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

        result = node.output[0] if node.output else ""
        name = f"{node.name or result} ({node.op_type})"
        if result in self.places or result in self.constants:
            raise UserError(f"'{self.file}' computes the value {result} a second time, by {name}: give a valid file")
        try:
            attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
            if node.domain not in DOMAINS:
                raise refuse(name, f"of the domain {node.domain}")
            if node.op_type == "Constant" and set(attributes) == {"value"}:
                attributes["value"].name = result
                self.constants[result] = _array(attributes["value"], self.file, self.dtype)
            elif node.op_type == "Identity" and node.input[0] in self.constants:
                self.constants[result] = self.constants[node.input[0]]
            elif node.op_type == "Identity" or (node.op_type == "Dropout" and not any(node.input[2:])):
                self.places[result] = self.place(node.input[0])
            else:
                self._append(node, name, attributes)
        except (
            ArithmeticError,
            AttributeError,
            LookupError,
            MemoryError,
            RuntimeError,
            TypeError,
            ValueError,
        ) as error:
            said = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"the operator {name} of '{self.file}' does not fit its input: {said}") from None

    def _append(self, node: Any, name: str, attributes: Attributes) -> None:
        make = OPERATORS.get(node.op_type)
        if make is None:
            raise UserError(
                f"no bounds for the operator {node.op_type} in '{self.file}': rebuild the network with "
                f"{', '.join(OPERATORS)}"
            )
        if unknown := set(attributes) - set(ATTRIBUTES.get(node.op_type, "").split()):
            raise refuse(name, f"with the attribute {min(unknown)}")
        if len(node.input) > INPUTS.get(node.op_type, 1):
            raise refuse(name, f"with {len(node.input)} inputs")
        values = [each for each in node.input if each and each not in self.constants]
        given = [self.constants.get(each) if each else None for each in node.input]
        inputs = tuple(self.place(each) for each in values)
        if not inputs:
            raise UserError(f"'{self.file}' computes with constants alone ({node.op_type}): simplify it first")
        for i, constant in enumerate(given):
            is_shape = node.op_type == "Reshape" and i == 1
            if constant is not None and constant.is_floating_point() == is_shape:
                kind = "INT64" if is_shape else f"{self.dtype}".removeprefix("torch.")
                raise UserError(f"the constant {node.input[i]} of {name} in '{self.file}' is not {kind}: convert it")
        shapes = [self.shapes[i] for i in inputs]
        operator = make(name, given, attributes, shapes[0])
        check_range(operator, name)
        if any(shape != shapes[0] for shape in shapes):
            raise refuse(name, f"of values of different shapes, {sides_of(shapes[0])} and {sides_of(shapes[1])}")
        with torch.no_grad():
            made = operator(*(torch.zeros(shape, dtype=self.dtype) for shape in shapes)).shape
        if made[0] != 1 or (isinstance(operator, Scale) and made != shapes[0]):
            raise refuse(name, f"that makes {sides_of(made)} of {sides_of(shapes[0])}")
        self.nodes.append(Node(operator, inputs))
        self.places[node.output[0]] = len(self.nodes)
        self.shapes.append(made)
