"""A net in a state of which every part is odd, and that state, to be compared before and after an attack."""

from __future__ import annotations

import torch
from torch import nn

from rivals.base.rng import generator


class Residual(nn.Module):
    """Batch-norms that can be folded, one that cannot (before the convolution), and one in a branch."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.stem_norm = nn.BatchNorm2d(8)
        self.before = nn.BatchNorm2d(8)
        self.conv = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, 10)
        self.head_norm = nn.BatchNorm1d(10)

    def forward(self, x):
        x = torch.relu(self.stem_norm(self.stem(x)))
        x = x + self.norm(self.conv(torch.relu(self.before(x))))
        return self.head_norm(self.head(self.drop(x).mean((2, 3))))


def setting(dtype=torch.float32):
    """A net with running statistics that matter, in a state of which every part is odd."""
    model = Residual().to(dtype)
    rng = generator("frozen")
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=rng) + (0.5 if "var" in name else -0.5))
    model.train()
    model.norm.eval()
    model.stem.weight.requires_grad_(False)
    x = torch.rand(9, 3, 8, 8, generator=rng).to(dtype)
    y = torch.randint(10, (9,), generator=rng)
    model(x).sum().backward()
    return model, x, y


def state(model):
    """All that an attack might have changed."""
    return {
        "modes": [module.training for module in model.modules()],
        "wanted": [parameter.requires_grad for parameter in model.parameters()],
        "gradients": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "values": [value.clone() for value in model.state_dict().values()],
        "random": torch.get_rng_state(),
        "switches": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
    }


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, (list, dict)):
        pairs = zip(a.values(), b.values(), strict=True) if isinstance(a, dict) else zip(a, b, strict=True)
        return all(same(one, other) for one, other in pairs)
    return a == b
