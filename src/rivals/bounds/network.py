"""A network as a list of operations, each of which reads the values of earlier ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rivals.bounds.operators import Affine, BatchNorm, Conv2d, Linear, Operator, Scale


@dataclass(frozen=True, eq=False)
class Node:
    """An operation, and the numbers of the values that it reads; value 0 is the input, value k that of node k."""

    operator: Operator
    inputs: tuple[int, ...]


class Network:
    """A network whose last value is its output.

    Args:
        nodes: In an order in which every value is there before it is read.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = list(nodes)
        self._largest: dict[torch.Size, int] = {}

    def numbered(self) -> list[tuple[int, Node]]:
        """The nodes, counted from 1."""
        return list(enumerate(self.nodes, 1))

    def values(self, x: Tensor, statistics: dict[int, Scale] | None = None) -> list[Tensor]:
        """All values for a batch of inputs, the input first.

        Args:
            x: The inputs (B, ...).
            statistics: Given, batch norm takes the statistics of the batch, as in training, updates the running ones,
                and leaves here the affine map that it was, by the number of its node.
        """
        values = [x]
        for number, node in self.numbered():
            operator = node.operator
            if statistics is not None and isinstance(operator, BatchNorm):
                operator = statistics[number] = operator.of_batch(values[node.inputs[0]])
            values.append(operator(*(values[i] for i in node.inputs)))
        return values

    def __call__(self, x: Tensor) -> Tensor:
        """The outputs for a batch of inputs."""
        return self.values(x)[-1]

    @torch.no_grad()
    def largest_value(self, x: Tensor) -> int:
        """How many entries the largest value has for one input like those of ``x`` (B, ...)."""
        if x.shape[1:] not in self._largest:
            self._largest[x.shape[1:]] = max(value.numel() for value in self.values(x[:1]))
        return self._largest[x.shape[1:]]

    def fixed(self, statistics: Mapping[int, Scale]) -> Network:
        """The network with the affine maps that :meth:`values` left in place of batch norm, folded."""
        nodes = [Node(statistics.get(number, node.operator), node.inputs) for number, node in self.numbered()]
        return Network(nodes).folded()

    def readers(self) -> list[int]:
        """How many nodes read each value."""
        counts = [0] * (len(self.nodes) + 1)
        for node in self.nodes:
            for i in node.inputs:
                counts[i] += 1
        return counts

    def folded(self) -> Network:
        """The network with each scale of channels multiplied into the layer before it, if only that scale reads it."""
        readers, nodes, place, full = self.readers(), list[Node](), [0], set[int]()
        for node in self.nodes:
            inputs = tuple(place[i] for i in node.inputs)
            before = nodes[inputs[0] - 1] if inputs[0] else None
            # One alone: the roundings of more would not be covered by those that are added to a layer's sum.
            may = readers[node.inputs[0]] == 1 and inputs[0] not in full
            folded = _folded(node.operator, before) if may else None
            if folded is not None and before is not None:
                nodes[inputs[0] - 1] = Node(folded, before.inputs)
                full.add(inputs[0])
                place.append(inputs[0])
                continue
            nodes.append(Node(node.operator, inputs))
            place.append(len(nodes))
        return Network(nodes)

    @torch.no_grad()
    def frozen(self, dtype: torch.dtype | None = None) -> Network:
        """A copy for evaluation: batch norm folded into the layer before it, ``|W|`` at hand, no graph.

        Args:
            dtype: Of its weights; that of the model by default.
        """
        nodes = Network([Node(_as(node.operator, dtype), node.inputs) for node in self.nodes]).folded().nodes
        ready = [n.operator.frozen() if isinstance(n.operator, Linear | Conv2d) else n.operator for n in nodes]
        return Network([Node(operator, node.inputs) for operator, node in zip(ready, nodes, strict=True)])


def _folded(scale: Operator, before: Node | None) -> Operator | None:
    """A layer that does what ``before`` and then ``scale`` do, if that has one number for each channel."""
    if not isinstance(scale, Scale) or before is None or not isinstance(before.operator, Linear | Conv2d):
        return None
    channels = (len(before.operator.weight), *([1, 1] if isinstance(before.operator, Conv2d) else []))
    if not scale.scale.shape == scale.shift.shape == channels:
        return None
    return before.operator.scaled(scale.scale, scale.shift, scale.shift_size)


def _as(operator: Operator, dtype: torch.dtype | None) -> Operator:
    """The operation without a graph, in another dtype; batch norm as the affine map that it is in evaluation."""
    if isinstance(operator, BatchNorm):
        operator = operator.running
    if not isinstance(operator, Affine):
        return operator
    tensors = {name: value.detach() for name, value in vars(operator).items() if isinstance(value, Tensor)}
    tensors = {name: value if dtype is None else value.to(dtype) for name, value in tensors.items()}
    copied = type(operator).__new__(type(operator))
    vars(copied).update(vars(operator) | tensors)
    return copied


class NetworkModule(nn.Module):
    """A network as a module, to be attacked."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """The outputs for a batch of inputs."""
        return self.network(x)
