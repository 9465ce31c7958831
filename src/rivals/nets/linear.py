"""A linear layer whose matrix products are oneDNN's on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Linear(nn.Linear):
    """x W^T + b.

    torch multiplies float32 matrices by MKL, which on AMD's processors takes up to a quarter longer than oneDNN for
    matrices as large as an image's first layer. Only in training: elsewhere, as for export, the layer is torch's own.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_features) to (B, out_features)."""
        return linear(x, self.weight, self.bias) if self.training and _usable(x) else super().forward(x)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b of float32 matrices on a CPU, by oneDNN; differentiable any number of times.

    Args:
        x: (B, n).
        weight: (m, n).
        bias: (m,).
    """
    y: Tensor = _Linear.apply(x, weight, bias)
    return y


def _usable(x: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.ndim == 2
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()  # which chooses its own kernels
    )


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        (g,) = gradients
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        return (
            linear(g, weight.T) if for_x else None,
            linear(g.T, x.T) if for_weight else None,
            g.sum(0) if for_bias else None,
        )
