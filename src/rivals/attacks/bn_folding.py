"""Batch-norm folded into the layer before it: in evaluation mode both are affine, and one is cheaper than two."""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def fold_batch_norm(model: nn.Module, probe: Tensor, answer: Tensor) -> nn.Module | None:
    """A module that answers like ``model`` in evaluation mode, with its batch-norms folded; None if there is no such.

    It shares the parameters it does not change. There is none where the model has no batch-norm to fold, carries
    hooks (tracing would lose them), cannot be traced, or answers otherwise than ``answer`` once folded, as
    a randomised model does whose draws tracing would turn into constants.

    Args:
        model: In evaluation mode.
        probe: A few images.
        answer: The model's logits for them.
    """
    modules = list(model.modules())
    if not any(type(module) in _NORMS for module in modules) or any(_hooked(module) for module in modules):
        return None
    try:
        traced = fx.symbolic_trace(model)
    except Exception:  # whatever the model's own forward raises when it is handed a proxy
        return None
    if not _fold(traced):
        return None
    folded: Tensor = traced(probe)
    slack = torch.finfo(answer.dtype).eps ** 0.5 * (1 + answer.abs().amax())
    return traced if bool(((folded - answer).abs() <= slack).all()) else None


def _hooked(module: nn.Module) -> bool:
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, name, None) for name in hooks)


def _fold(traced: fx.GraphModule) -> int:
    """Fold in place, and count how many were. Each pair gets a module of its own, so shared layers stay right."""
    modules = dict(traced.named_modules())
    count = 0
    for node in list(traced.graph.nodes):
        source = node.args[0] if node.args else None
        if node.op != "call_module" or not isinstance(source, fx.Node):
            continue
        if source.op != "call_module" or len(source.users) != 1:
            continue
        fused = _fuse(modules[str(source.target)], modules[str(node.target)])
        if fused is None:
            continue
        name = f"folded_{count}"
        traced.add_module(name, fused)
        modules[name] = fused
        source.target = name
        node.replace_all_uses_with(source)
        traced.graph.erase_node(node)
        count += 1
    traced.delete_all_unused_submodules()
    traced.recompile()
    return count


def _fuse(layer: nn.Module, norm: nn.Module) -> nn.Module | None:
    # Exact types only: a subclass or a parametrised layer may compute something else.
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
