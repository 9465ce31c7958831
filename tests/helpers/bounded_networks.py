"""Small networks to bound, and points of the sets that bounds are over."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rivals.base.norm_balls import Ball
from rivals.base.rng import generator


class Residual(nn.Module):
    """Every supported layer: a scale, strided and padded convolutions, batch norm, a residual sum, both poolings."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, 2, 1)
        self.conv2 = nn.Conv2d(4, 4, 3, 1, 1, groups=2)
        self.norm = nn.BatchNorm2d(4)
        self.leaky = nn.LeakyReLU(0.1)
        self.max_pool = nn.MaxPool2d(3, 2, 1)
        self.avg_pool = nn.AvgPool2d(2)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.conv1((x - 0.2) / 0.3))
        h = self.max_pool(self.leaky(self.norm(self.conv2(h)) + h))
        h = self.avg_pool(torch.relu(0.1 - h)).flatten(1)
        logits: Tensor = self.head(h)
        return logits


def randomized(model: nn.Module, seed: str, scale: float = 1.0) -> nn.Module:
    """The model in evaluation mode with random weights and statistics, of the usual size times ``scale``."""
    source = generator(seed)
    with torch.no_grad():
        for weight in model.parameters():
            fan_in = max(1, weight[0].numel())
            weight.copy_(scale * torch.randn(weight.shape, generator=source) / fan_in**0.5)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(torch.randn(buffer.shape, generator=source))
            if name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=source))
    return model.eval()


def points(x: Tensor, ball: Ball, count: int) -> Tensor:
    """Random points of the ball around each image, in float64: (count, B, ...). Half are on its boundary."""
    source = generator("points")
    eps = float(ball.eps)
    noise = torch.randn(count, *x.shape, generator=source, dtype=torch.float64)
    if ball.p == 2:
        moves = eps * noise / noise.flatten(2).norm(dim=2).view(count, -1, *[1] * (x.ndim - 1))
    else:
        moves = eps * torch.where(
            torch.arange(count).view(-1, *[1] * x.ndim) % 2 == 0, noise.sign(), noise.clamp(-1, 1)
        )
    return (x.double() + moves).clamp(0, 1)


def smallest_margins(model: nn.Module, inputs: Tensor, y: Tensor) -> Tensor:
    """The smallest ``z_y - z_k`` over inputs (count, B, ...), (B, classes)."""
    with torch.no_grad():
        logits = model(inputs.flatten(0, 1)).view(*inputs.shape[:2], -1)
    own = logits.gather(2, y.expand(len(inputs), -1)[..., None])
    return (own - logits).amin(0)
