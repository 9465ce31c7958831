"""Muon: orthogonalized momentum for weight matrices (Jordan et al. 2024)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

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
        net: The network, with its layers in the order in which it calls them. AdamW updates the first and the last
            convolution or linear layer (input and output), and all that is no such layer: biases, scales, embeddings.
        lr: Learning rate.
        betas: AdamW's betas; the first is also the momentum of the matrices.
        eps: AdamW's epsilon.
        weight_decay: Decoupled weight decay.
        fused: Whether AdamW uses its fused kernel.
    """

    def __init__(
        self,
        net: nn.Module,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        fused: bool = False,
    ) -> None:
        super().__init__(net, lr, betas, eps, weight_decay, fused)
        self.matrices = _hidden(net)
        self._others = [weight for weight in self.weights if weight not in self.matrices]

    @torch.no_grad()
    def step(self) -> None:
        """Update the weights from their gradients."""
        for weight, layer in self.matrices.items():
            if weight.grad is None:
                continue
            state = self.state[weight]
            if not state:
                state["momentum"] = torch.zeros_like(weight)
            momentum = state["momentum"].lerp_(weight.grad, 1 - self.betas[0])
            nesterov = _outputs_first(weight.grad.lerp(momentum, self.betas[0]), layer)
            update = orthogonalize(nesterov.flatten(1))
            # An orthogonal m x n matrix has the RMS 1 / sqrt(max(m, n)); AdamW's updates have about 0.2.
            step_size = self.lr * 0.2 * max(update.shape) ** 0.5
            weight.mul_(1 - self.lr * self.weight_decay)
            _outputs_first(weight, layer).sub_(update.view(nesterov.shape), alpha=step_size)
        self.update(self._others)


def _hidden(net: nn.Module) -> dict[nn.Parameter, nn.Module]:
    """The weights of all convolutions and linear layers but the first and the last, each with its layer.

    A layer whose weight is computed, as under spectral normalization, has the parameter that it is computed from.
    """
    layers = [layer for layer in net.modules() if isinstance(layer, nn.Linear | _ConvNd)]
    found = {weight: layer for layer in layers for weight in layer.parameters() if weight.ndim > 1}
    return dict(list(found.items())[1:-1])


def _outputs_first(weight: Tensor, layer: nn.Module) -> Tensor:
    """A view with one row per output, which in a transposed convolution are the second dimension."""
    if not isinstance(layer, _ConvTransposeNd) or layer.groups > 1:  # by groups, no one dimension has all outputs
        return weight
    return weight.transpose(0, 1)


def orthogonalize(matrix: Tensor) -> Tensor:
    """A matrix (m, n) with its singular values mapped close to 1 (about 0.7 to 1.2), by Newton-Schulz iteration."""
    wide = matrix.shape[0] <= matrix.shape[1]
    x = (matrix if wide else matrix.T).bfloat16()  # wide: the Gram matrix is the smaller of the two
    x = x / x.norm().clamp_min(1e-12)  # now no singular value is above 1
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return (x if wide else x.T).to(matrix.dtype)
