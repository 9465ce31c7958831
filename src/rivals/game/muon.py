"""Muon: orthogonalized momentum for weight matrices (Jordan et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from rivals.game.adamw import AdamW

# Jordan et al. 2024: five iterations of a x + b x^3 + c x^5 map singular values in (0, 1] close to 1.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_ITERATIONS = 5


class Muon(AdamW):
    """Muon for the weights of hidden convolutions and linear layers, AdamW for all other parameters.

    The momentum of a weight, as a matrix with one row per output, is replaced by (nearly) the closest matrix with
    orthonormal rows or columns. Its update has the root mean square of AdamW's (Liu et al. 2025, eq. 4), so that both
    share one learning rate and one weight decay.

    Args:
        weights: All parameters, in the network's order. Those with two or more dimensions are matrices, except the
            first and the last of them (input and output layer), which AdamW updates.
        lr: Learning rate.
        betas: AdamW's betas; the first is also the momentum of the matrices.
        eps: AdamW's epsilon.
        weight_decay: Decoupled weight decay.
        fused: Whether AdamW uses its fused kernel.
    """

    def __init__(
        self,
        weights: Iterable[nn.Parameter],
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        fused: bool = False,
    ) -> None:
        super().__init__(weights, lr, betas, eps, weight_decay, fused)
        self.matrices = [weight for weight in self.weights if weight.ndim > 1][1:-1]
        self._others = [weight for weight in self.weights if not any(weight is matrix for matrix in self.matrices)]

    @torch.no_grad()
    def step(self) -> None:
        """Update the weights from their gradients."""
        for weight in self.matrices:
            if weight.grad is None:
                continue
            state = self.state[weight]
            if not state:
                state["momentum"] = torch.zeros_like(weight)
            momentum = state["momentum"].lerp_(weight.grad, 1 - self.betas[0])
            nesterov = weight.grad.lerp(momentum, self.betas[0])
            update = orthogonalize(nesterov.flatten(1))
            # An orthogonal m x n matrix has the RMS 1 / sqrt(max(m, n)); AdamW's updates have about 0.2.
            step_size = self.lr * 0.2 * max(update.shape) ** 0.5
            weight.mul_(1 - self.lr * self.weight_decay)
            weight.sub_(update.view(weight.shape), alpha=step_size)
        self.update(self._others)


def orthogonalize(matrix: Tensor) -> Tensor:
    """A matrix (m, n) with its singular values mapped close to 1 (about 0.7 to 1.2), by Newton-Schulz iteration."""
    wide = matrix.shape[0] <= matrix.shape[1]
    x = (matrix if wide else matrix.T).bfloat16()  # wide: the Gram matrix is the smaller of the two
    x = x / x.norm().clamp_min(1e-12)  # now no singular value is above 1
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return (x if wide else x.T).to(matrix.dtype)
