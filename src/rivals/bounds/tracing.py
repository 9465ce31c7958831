"""From a PyTorch module to a :class:`~rivals.bounds.network.Network`, by tracing its forward pass."""

from __future__ import annotations

import math
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


PROPERTIES = ("dtype", "device", "shape", "ndim")  # of a value, which are the same for all images


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
        graph, parts = _Tracer().trace_privately(model)
    except Exception as error:  # whatever the model's own forward raises when it is handed a proxy
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"the forward pass of {type(model).__name__} cannot be traced ({reason}): bounds need one without "
            "branches on values"
        ) from error
    return _Reader(parts, sample[:1].detach()).read(graph)


class _Value(fx.Proxy):
    """A value of a graph; ``+=`` and the like are nodes of it, where a plain proxy makes them ``+``."""

    def _overwritten(self, function: Callable[..., Any], other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    def __iadd__(self, other: Any) -> fx.Proxy:
        return self._overwritten(operator.iadd, other)

    def __isub__(self, other: Any) -> fx.Proxy:
        return self._overwritten(operator.isub, other)

    def __imul__(self, other: Any) -> fx.Proxy:
        return self._overwritten(operator.imul, other)

    def __itruediv__(self, other: Any) -> fx.Proxy:
        return self._overwritten(operator.itruediv, other)


class _Tracer(PrivateTracer):
    """A tracer that notices what changes a value in place, and a precision of the model's own."""

    def __init__(self) -> None:
        super().__init__()
        self._autocast = _autocast()

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Value(node, self)

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        if _autocast() != self._autocast:
            raise UserError("it switches autocast")
        return super().create_node(*args, **kwargs)


def _autocast() -> list[bool]:
    return [torch.is_autocast_enabled(device) for device in ("cpu", "cuda")]


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
        self.memory: dict[fx.Node, fx.Node] = {}  # of which node a node's value may be a view
        self.constants: dict[fx.Node, Any] = {}
        self.shapes = [sample.shape]
        self.sample = sample

    def read(self, graph: fx.Graph) -> Network:
        for node in graph.nodes:
            if node.op == "placeholder":
                self.places[node], self.memory[node] = 0, node
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
        if node.target is getattr:
            of, name = node.args
            if of in self.places and name not in PROPERTIES:  # such as x.data: the entries of an image are no constant
                raise unsupported(f"{node.name} ({name} of a value)")
            self.constants[node] = getattr(self.sample if of in self.places else self._value(of), str(name), None)
            return
        if node.target is torch.promote_types:
            self.constants[node] = torch.promote_types(*map(self._value, node.args))
            return
        # Not all_input_nodes, which has the two inputs of x + x once.
        given = [each for each in (*node.args, *node.kwargs.values()) if isinstance(each, fx.Node)]
        sources = [each for each in given if each in self.places]
        if not sources:  # of constants or of properties, as a dtype: read where it is used
            return
        if node.target == "size":
            return
        source = sources[0]
        layer = self.parts[str(node.target)] if node.op == "call_module" else None
        shape = self.shapes[self.places[source]]
        made = self._function(node, shape) if layer is None else self._module(str(node.target), layer, shape)
        if made is None:  # the identity
            self.places[node] = self.places[source]
        else:
            self._append(made, tuple(self.places[each] for each in sources))
            self.places[node] = len(self.nodes)
        in_place = _in_place(node, layer)
        # What only moves entries may return a view of them.
        moves = made is None or (isinstance(made, Average) and not made.fan_in and made.function is not torch.clone)
        self.memory[node] = self.memory[source] if in_place or moves else node
        if in_place:
            self._check_views(node, source)
            self.places[source] = self.places[node]  # whoever reads it from now on

    def _check_views(self, changed: fx.Node, source: fx.Node) -> None:
        """Refuse to change a tensor in place that is read later as part of another one."""
        order = {node: number for number, node in enumerate(changed.graph.nodes)}
        for other, memory in self.memory.items():
            later = any(order[user] > order[changed] for user in other.users)
            if later and memory is self.memory[source] and other not in (changed, source):
                raise UserError(
                    f"no bounds for {changed.name}, which changes in place what {other.name} shares and what is read "
                    "later: use an operation that returns a new tensor"
                )

    def _append(self, made: Operator, inputs: tuple[int, ...]) -> None:
        if isinstance(made, Scale):
            made = Scale(made.name, *(each.to(self.sample.dtype) for each in (made.scale, made.shift, made.shift_size)))
        shapes = [self.shapes[i] for i in inputs]
        try:
            with torch.no_grad():
                shape = made(*(self.sample.new_zeros(each) for each in shapes)).shape
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            sizes = " and ".join(str(tuple(each[1:])) for each in shapes)
            raise UserError(
                f"no bounds for the layer {made.name} on values of the shape {sizes} ({str(error).splitlines()[0]}): "
                "give the model the images that it is made for"
            ) from error
        if isinstance(made, Sum | Scale) and any(each != shape for each in shapes):
            sizes = " and ".join(str(tuple(each[1:])) for each in shapes)
            raise UserError(
                f"no bounds for the layer {made.name}, which repeats values: {sizes} become {tuple(shape[1:])}; "
                "combine only values of one shape, or a value and a constant of fewer entries"
            )
        self.nodes.append(Node(made, inputs))
        self.shapes.append(shape)

    def _module(self, name: str, layer: nn.Module, shape: torch.Size) -> Operator | None:
        kind = next((known for known in _LAYERS if isinstance(layer, known)), None)
        hooked = any(getattr(layer, hooks, None) for hooks in ("_forward_hooks", "_forward_pre_hooks"))
        if kind is None or hooked or type(layer).forward is not kind.forward:  # a subclass may compute something else
            raise unsupported(f"{name} ({type(layer).__name__})")
        return _LAYERS[kind](name, layer, shape)

    def _function(self, node: fx.Node, shape: torch.Size) -> Operator | None:
        name = f"{node.name} ({getattr(node.target, '__name__', node.target)})"
        if node.target not in _FUNCTIONS:
            raise unsupported(name)
        read, known = _FUNCTIONS[node.target]
        given = {key: self._value(each) for key, each in node.kwargs.items()}
        first = [given.pop("input")] if "input" in given else []
        second = [given.pop("other")] if "other" in given else []
        for key, value in given.items():
            if key not in known and value is not None:
                raise unsupported(f"{name} with {key}")
        if node.target in ("to", "float"):
            self._check_precision(name, node)
        return read(name, [*first, *map(self._value, node.args), *second], given, shape)

    def _value(self, argument: Any) -> Any:
        """A constant that a node stands for, or the argument itself."""
        return self.constants.get(argument, argument) if isinstance(argument, fx.Node) else argument

    def _check_precision(self, name: str, node: fx.Node) -> None:
        """Refuse a conversion that is not the identity: bounds know the roundings of one precision alone."""
        wanted = torch.float32 if node.target == "float" else self.sample.dtype
        for value in map(self._value, (*node.args[1:], *node.kwargs.values())):
            if isinstance(value, torch.dtype):
                wanted = value
            elif not isinstance(value, (bool, str, torch.device)):
                raise unsupported(f"{name} like another tensor")
        if wanted != self.sample.dtype:
            raise unsupported(f"{name} {wanted}")


def _in_place(node: fx.Node, layer: nn.Module | None) -> bool:
    """Whether a node overwrites what it reads."""
    if layer is not None:
        return bool(getattr(layer, "inplace", False)) and not isinstance(layer, nn.Dropout | nn.Dropout2d)
    if node.target in (F.relu, F.leaky_relu):
        return any(each is True for each in (*node.args, *node.kwargs.values()))
    return node.target in _IN_PLACE or (isinstance(node.target, str) and node.target.endswith("_"))


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


_LAYERS: dict[type[nn.Module], Callable[[str, Any, torch.Size], Operator | None]] = {
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
_IN_PLACE = (operator.iadd, operator.isub, operator.imul, operator.itruediv)
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
_FUNCTIONS: dict[Any, tuple[_Function, tuple[str, ...]]] = {
    target: (read, keywords) for targets, read, keywords in _KNOWN for target in targets
}
