"""Traces the forward pass of a model into a graph, without patching anything that other threads use."""

from __future__ import annotations

import copy
from operator import attrgetter
from typing import Any

from torch import Tensor, fx, nn


class PrivateTracer(fx.Tracer):
    """Traces a model without a trace of its own: ``fx.symbolic_trace`` patches ``nn.Module`` while it runs, for all
    threads of the process.

    Here the layers of a private copy, which shares all tensors, record that they are called.
    """

    def trace_privately(self, model: nn.Module) -> tuple[fx.Graph, dict[str, Any]]:
        """The model's forward pass for one argument as a graph, and the layers and tensors that it names."""
        attributes = (value for module in model.modules() for value in vars(module).values())
        tensors = [*model.parameters(), *model.buffers(), *(each for each in attributes if isinstance(each, Tensor))]
        self.root = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
        self.graph = fx.Graph()
        self.tensor_attrs = {}
        for name, module in self.root.named_modules():
            if name and self.is_leaf_module(module, name):
                module.__class__ = self._recording(type(module), name)
        output = self.root(self.create_proxy("placeholder", "x", (), {}))
        self.create_node("output", "output", (self.create_arg(output),), {})
        layers = dict(model.named_modules())
        parts = {
            str(node.target): layers[node.target] if node.op == "call_module" else attrgetter(node.target)(self.root)
            for node in self.graph.nodes
            if node.op in ("call_module", "get_attr")
        }
        return self.graph, parts

    def _recording(self, layer: type[nn.Module], name: str) -> type[nn.Module]:
        """A class like ``layer`` whose calls with values of the graph become nodes of it."""

        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if any(isinstance(value, fx.Proxy) for value in (*args, *kwargs.values())):
                return self.create_proxy("call_module", name, args, kwargs)
            return layer.__call__(module, *args, **kwargs)

        return type(layer.__name__, (layer,), {"__call__": call})
