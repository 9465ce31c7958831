"""Batch-norm folded into the layer before it: in evaluation mode both are affine, and one is cheaper than two."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from rivals.base.private_tracer import PrivateTracer

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def fold_batch_norm(model: nn.Module, probe: Tensor, logits: Tensor) -> nn.Module | None:
    """A module with the logits of ``model`` in evaluation mode and its batch norm folded, or None if it cannot be.

    It shares the parameters it does not change. There is none where the model has no batch-norm to fold, carries
    hooks (tracing would lose them), cannot be traced, or once folded gives other logits, as a
    randomized model does, whose random numbers tracing turns into constants.

    Args:
        model: In evaluation mode.
        probe: A few images.
        logits: The model's logits for them.
    """
    modules = list(model.modules())
    if not any(type(module) in _NORMS for module in modules) or any(_hooked(module) for module in modules):
        return None
    try:
        graph, parts = PrivateTracer().trace_privately(model)
    except Exception:  # whatever the model's own forward raises when it is handed a proxy
        return None
    if not _fold(graph, parts):
        return None
    traced = _Traced(graph, parts)
    folded: Tensor = traced(probe.clone())
    # A class that is masked has a logit of -inf in both.
    folded, logits = (each.nan_to_num(nan=torch.nan, neginf=0) for each in (folded, logits))
    tolerance = torch.finfo(logits.dtype).eps ** 0.5 * (1 + logits.abs().amax())
    return traced if bool(((folded - logits).abs() <= tolerance).all()) else None


class _Traced(nn.Module):
    """Runs a graph. It is gone once it is dropped, unlike an ``fx.GraphModule``: the source of each one's forward pass
    stays, for tracebacks, in a cache of the process that only grows.

    Args:
        graph: Of one argument. Its nodes are renamed.
        parts: The layers and tensors that it names.
    """

    def __init__(self, graph: fx.Graph, parts: Mapping[str, Any]) -> None:
        super().__init__()
        self.training = False
        for number, node in enumerate(graph.nodes):
            if node.op in ("call_module", "get_attr"):
                part = parts[str(node.target)]
                node.target = f"part_{number}"
                setattr(self, node.target, part)
        code = graph.python_code("self")
        namespace = dict(code.globals)
        exec(code.src, namespace)
        self.run: Callable[[nn.Module, Tensor], Tensor] = namespace["forward"]

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def _hooked(module: nn.Module) -> bool:
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, name, None) for name in hooks)


def _fold(graph: fx.Graph, parts: dict[str, Any]) -> int:
    """Fold in place, and count how many were. Each pair gets a module of its own, so shared layers stay right."""
    count = 0
    for node in list(graph.nodes):
        source = node.args[0] if node.args else None
        if node.op != "call_module" or not isinstance(source, fx.Node):
            continue
        if source.op != "call_module" or len(source.users) != 1:
            continue
        fused = _fuse(parts[str(source.target)], parts[str(node.target)])
        if fused is None:
            continue
        name = f".folded_{count}"  # a name that no layer has
        parts[name] = fused
        source.target = name
        node.replace_all_uses_with(source)
        graph.erase_node(node)
        count += 1
    return count


def _fuse(layer: nn.Module, norm: nn.Module) -> nn.Module | None:
    # Exact types only: a subclass or a parametrized layer may compute something else.
    if not isinstance(norm, _NORMS) or type(norm) not in _NORMS or norm.running_mean is None:
        return None
    fused: nn.Module
    if isinstance(layer, _CONVOLUTIONS) and type(layer) in _CONVOLUTIONS:
        fused = fuse_conv_bn_eval(layer, norm)
    elif isinstance(layer, nn.Linear) and type(layer) is nn.Linear:
        fused = fuse_linear_bn_eval(layer, norm)
    else:
        return None
    return fused.requires_grad_(False)
