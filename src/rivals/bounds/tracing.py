"""From a PyTorch module to a :class:`~rivals.bounds.network.Network`, by tracing its forward pass."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from rivals.base.errors import UserError
from rivals.base.private_tracer import PrivateTracer
from rivals.bounds.network import Network, Node
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


def trace(model: nn.Module, sample: Tensor) -> Network:
    """The network that a model computes. It shares the model's weights, and follows them.

    Args:
        model: Maps images (B, ...) to logits (B, classes).
        sample: An image or more, for the shapes.

    Raises:
        UserError: the model cannot be traced, or has a layer of another kind; or its trace computes something else.
    """
    if type(model) in _LAYERS:  # a tracer looks into its root, whatever that is
        model = nn.Sequential(model)
    try:
        graph, parts = PrivateTracer().trace_privately(model)
    except Exception as error:  # whatever the model's own forward raises when it is handed a proxy
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"the forward pass of {type(model).__name__} cannot be traced ({reason}): bounds need one without "
            "branches on values"
        ) from error
    return _Reader(parts, sample[:1].detach()).read(graph)


class _Reader:
    """Reads a graph node by node.

    Args:
        parts: The layers and tensors that the graph names.
        sample: An image (1, ...). Its values in the network give the shapes.
    """

    def __init__(self, parts: Mapping[str, Any], sample: Tensor) -> None:
        self.parts = parts
        self.nodes: list[Node] = []
        self.places: dict[fx.Node, int] = {}
        self.constants: dict[fx.Node, Any] = {}
        self.shapes = [sample.shape]
        self.sample = sample

    def read(self, graph: fx.Graph) -> Network:
        for node in graph.nodes:
            if node.op == "placeholder":
                self.places[node] = 0
            elif node.op == "get_attr":
                self.constants[node] = self.parts[str(node.target)]
            elif node.op == "output":
                result = node.args[0]
                if not isinstance(result, fx.Node) or result not in self.places:
                    raise UserError(f"the model returns {type(result).__name__}: bounds need one tensor of logits")
                return self._ending_in(self.places[result])
            else:
                self._read(node)
        raise AssertionError("a graph ends in its output")

    def _ending_in(self, place: int) -> Network:
        if place == 0:
            raise UserError("the model returns its input: there is nothing to bound")
        return Network(self.nodes[:place])

    def _read(self, node: fx.Node) -> None:
        sources = [each for each in node.all_input_nodes if each in self.places]
        if not sources:  # of constants or of properties, as a dtype: read where it is used
            return
        if node.op == "call_function" and node.target is getattr:
            return
        is_layer = node.op == "call_module"
        made = self._module(node, self.parts[str(node.target)]) if is_layer else self._function(node)
        if made is None:  # the identity
            self.places[node] = self.places[sources[0]]
            return
        self._append(made, tuple(self.places[each] for each in sources))
        self.places[node] = len(self.nodes)

    def _append(self, made: Operator, inputs: tuple[int, ...]) -> None:
        self.nodes.append(Node(made, inputs))
        with torch.no_grad():
            values = [self.sample.new_zeros(self.shapes[i]) for i in inputs]
            self.shapes.append(made(*values).shape)

    def _dims(self, node: fx.Node) -> int:
        return len(self.shapes[self.places[node.all_input_nodes[0]]])

    def _module(self, node: fx.Node, layer: nn.Module) -> Operator | None:
        name = str(node.target)
        kind = next((known for known in _LAYERS if isinstance(layer, known)), None)
        hooked = any(getattr(layer, hooks, None) for hooks in ("_forward_hooks", "_forward_pre_hooks"))
        if kind is None or hooked or type(layer).forward is not kind.forward:  # a subclass may compute something else
            raise unsupported(f"{name} ({type(layer).__name__})")
        return _LAYERS[kind](name, layer, self._dims(node))

    def _function(self, node: fx.Node) -> Operator | None:
        name = f"{node.name} ({getattr(node.target, '__name__', node.target)})"
        found = _FUNCTIONS.get(node.target)
        if found is None:
            raise unsupported(name)
        args = [self.constants.get(each, each) if isinstance(each, fx.Node) else each for each in node.args]
        return found(name, args, dict(node.kwargs), self._dims(node))


def unsupported(what: str) -> UserError:
    """The refusal of an operation."""
    return UserError(f"no bounds for the layer {what}: rebuild the model with {SUPPORTED}")


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[-1]))


def _linear(name: str, layer: Any, dims: int) -> Operator:
    if dims != 2:
        raise UserError(f"no bounds for the layer {name} (Linear) on {dims - 1}-dimensional features: flatten them")
    return Linear(name, layer.weight, layer.bias)


def _conv(name: str, layer: Any, dims: int) -> Operator:
    if layer.padding_mode != "zeros":
        raise unsupported(f"{name} (Conv2d with padding_mode='{layer.padding_mode}')")
    padding = layer.padding
    if isinstance(padding, str):
        spans = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        if padding == "same" and any(span % 2 for span in spans):
            raise unsupported(f"{name} (Conv2d with padding='same' and an even kernel)")
        padding = (spans[0] // 2, spans[1] // 2) if padding == "same" else (0, 0)
    return Conv2d(name, layer.weight, layer.bias, layer.stride, padding, layer.dilation, layer.groups)


def _norm(name: str, layer: Any, dims: int) -> Operator:
    if layer.running_mean is None or layer.momentum is None:
        raise unsupported(f"{name} ({type(layer).__name__} without running statistics and a momentum)")
    statistics = (layer.running_mean, layer.running_var, layer.eps, layer.momentum)
    return BatchNorm(name, layer.weight, layer.bias, *statistics, dims)


def _avg_pool(name: str, layer: Any, dims: int) -> Operator:
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


def _global_pool(name: str, layer: Any, dims: int) -> Operator:
    if layer.output_size not in (1, (1, 1)):
        raise unsupported(f"{name} (AdaptiveAvgPool2d to {layer.output_size})")
    return Average(name, lambda x: x.mean((-2, -1), keepdim=True), MEAN_TERMS)


def _max_pool(name: str, layer: Any, dims: int) -> Operator:
    if layer.return_indices or layer.ceil_mode:
        raise unsupported(f"{name} (MaxPool2d with return_indices or ceil_mode)")
    kernel, stride, padding, dilation = map(_pair, (layer.kernel_size, layer.stride, layer.padding, layer.dilation))
    return MaxPool2d(name, kernel, stride, padding, dilation)


def _relu(name: str, slope: float) -> Operator:
    if not 0 <= slope <= 1:
        raise unsupported(f"{name} with a slope of {slope:g}")
    return ReLU(name, slope)


MEAN_TERMS = 4096  # that a mean over all pixels has at most: 64 x 64

_LAYERS: dict[type[nn.Module], Callable[[str, Any, int], Operator | None]] = {
    nn.Linear: _linear,
    nn.Conv2d: _conv,
    nn.BatchNorm1d: _norm,
    nn.BatchNorm2d: _norm,
    nn.ReLU: lambda name, layer, dims: ReLU(name),
    nn.LeakyReLU: lambda name, layer, dims: _relu(name, layer.negative_slope),
    nn.AvgPool2d: _avg_pool,
    nn.AdaptiveAvgPool2d: _global_pool,
    nn.MaxPool2d: _max_pool,
    nn.Flatten: lambda name, layer, dims: _flatten(name, [None, layer.start_dim, layer.end_dim], {}, dims),
    nn.Identity: lambda name, layer, dims: None,
    nn.Dropout: lambda name, layer, dims: None,
    nn.Dropout2d: lambda name, layer, dims: None,
}


def _flatten(name: str, args: list[Any], kwargs: dict[str, Any], dims: int) -> Operator:
    start = kwargs.get("start_dim", args[1] if len(args) > 1 else 0)
    end = kwargs.get("end_dim", args[2] if len(args) > 2 else -1)
    if start != 1 or end not in (-1, dims - 1):
        raise UserError(f"no bounds for {name} over the dimensions {start} to {end}: flatten from 1 to the last")
    return Average(name, lambda x: x.flatten(1))


def _reshape(name: str, args: list[Any], kwargs: dict[str, Any], dims: int) -> Operator:
    shape = args[1:] if len(args) != 2 or isinstance(args[1], int) else list(args[1])
    if len(shape) == 2 and shape[1] == -1:  # x.view(x.size(0), -1)
        return Average(name, lambda x: x.flatten(1))
    if not all(isinstance(side, int) for side in shape[1:]):
        raise unsupported(f"{name} to a shape that is computed")
    return Average(name, lambda x: x.reshape(len(x), *shape[1:]))


def _mean(name: str, args: list[Any], kwargs: dict[str, Any], dims: int) -> Operator:
    axes = kwargs.get("dim", args[1] if len(args) > 1 else None)
    axes = (axes,) if isinstance(axes, int) else axes
    if axes is None or any(axis % dims == 0 for axis in axes):
        raise UserError(f"no bounds for {name} over the images of a batch: average over features only")
    return Average(name, lambda x: x.mean(tuple(axes), keepdim=kwargs.get("keepdim", False)), MEAN_TERMS)


def _flip(name: str, args: list[Any], kwargs: dict[str, Any], dims: int) -> Operator:
    axes = args[1:] if isinstance(args[1], int) else list(args[1])
    if any(axis % dims == 0 for axis in axes):
        raise UserError(f"no bounds for {name} over the images of a batch: flip features only")
    return Average(name, lambda x: x.flip(*axes))


def _constant(value: Any) -> Tensor:
    return value.detach() if isinstance(value, Tensor) else torch.tensor(float(value))


def _add(name: str, args: list[Any], kwargs: dict[str, Any], dims: int, sign: int = 1) -> Operator:
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


def _multiply(name: str, args: list[Any], kwargs: dict[str, Any], dims: int) -> Operator:
    factors = [each for each in args[:2] if not isinstance(each, fx.Node)]
    if len(factors) != 1:
        raise unsupported(f"{name} of two values")
    scale = _constant(factors[0])
    return Scale(name, scale, torch.zeros_like(scale), torch.zeros_like(scale))


def _divide(name: str, args: list[Any], kwargs: dict[str, Any], dims: int) -> Operator:
    if isinstance(args[1], fx.Node):
        raise unsupported(f"{name} by a value")
    divisor = _constant(args[1])
    return Scale(name, 1 / divisor, torch.zeros_like(divisor), torch.zeros_like(divisor))


def _leaky(name: str, args: list[Any], kwargs: dict[str, Any], dims: int) -> Operator:
    return _relu(name, float(kwargs.get("negative_slope", args[1] if len(args) > 1 else 0.01)))


_Function = Callable[[str, list[Any], dict[str, Any], int], Operator | None]
_FUNCTIONS: dict[Any, _Function] = {
    **dict.fromkeys((torch.flatten, "flatten"), _flatten),
    **dict.fromkeys((torch.reshape, "reshape", "view"), _reshape),
    **dict.fromkeys((torch.mean, "mean"), _mean),
    **dict.fromkeys((torch.flip, "flip"), _flip),
    **dict.fromkeys((operator.add, operator.iadd, torch.add, "add", "add_"), _add),
    **dict.fromkeys((operator.sub, operator.isub, torch.sub, "sub", "sub_"), partial(_add, sign=-1)),
    **dict.fromkeys((operator.mul, torch.mul, "mul"), _multiply),
    **dict.fromkeys((operator.truediv, torch.div, "div"), _divide),
    **dict.fromkeys((F.relu, torch.relu, "relu", "relu_"), lambda name, args, kwargs, dims: ReLU(name)),
    F.leaky_relu: _leaky,
    **dict.fromkeys(("contiguous", "to", "float", "clone"), lambda name, args, kwargs, dims: None),
}
