"""From a PyTorch module to a :class:`~rivals.bounds.network.Network`, by tracing its forward pass."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from rivals.base.errors import UserError
from rivals.base.private_tracer import PrivateTracer
from rivals.bounds.network import Network, Node
from rivals.bounds.operators import Average, Operator, Scale, Sum
from rivals.bounds.traced_layers import FUNCTIONS, LAYERS, unsupported

IN_PLACE = (operator.iadd, operator.isub, operator.imul, operator.itruediv)
PROPERTIES = ("dtype", "device", "shape", "ndim")  # of a value, which are the same for all images


def trace(model: nn.Module, sample: Tensor) -> Network:
    """The network that a model computes. It shares the model's weights, and follows them.

    Args:
        model: Maps images (B, ...) to logits (B, classes).
        sample: An image or more, for the shapes.

    Raises:
        UserError: the model cannot be traced, or has a layer of another kind; or its trace computes something else.
    """
    if type(model) in LAYERS:  # a tracer looks into its root, whatever that is
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
            made = Scale(made.name, *(each.to(self.sample) for each in (made.scale, made.shift, made.shift_size)))
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
        kind = next((known for known in LAYERS if isinstance(layer, known)), None)
        hooked = any(getattr(layer, hooks, None) for hooks in ("_forward_hooks", "_forward_pre_hooks"))
        if kind is None or hooked or type(layer).forward is not kind.forward:  # a subclass may compute something else
            raise unsupported(f"{name} ({type(layer).__name__})")
        return LAYERS[kind](name, layer, shape)

    def _function(self, node: fx.Node, shape: torch.Size) -> Operator | None:
        name = f"{node.name} ({getattr(node.target, '__name__', node.target)})"
        if node.target not in FUNCTIONS:
            raise unsupported(name)
        read, known = FUNCTIONS[node.target]
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
    return node.target in IN_PLACE or (isinstance(node.target, str) and node.target.endswith("_"))
