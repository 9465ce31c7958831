"""Classifiers for the benchmark of the alarms: honest ones of many kinds, trained briefly, and masks to put on them."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from benchmarks.harness import load
from rivals.attacks import pgd
from rivals.base.norm_balls import Linf
from rivals.nets.factory import build_classifier

SPLITS = {
    "mnist5k": ("train", 3900),
    "fashion-mnist": ("test", 6000),
    "cifar10": ("test", 6000),
}  # the rest is attacked


@functools.cache
def images_of(data: str) -> tuple[Tensor, Tensor]:
    """All images (n, C, H, W) in [0, 1] and labels (n,) of the split that is used, in one fixed order."""
    found = load(data, split=SPLITS[data][0])
    assert found.labels is not None
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(0))
    return torch.from_numpy(found.images)[order].float() / 255, torch.from_numpy(found.labels)[order].long()


@dataclass(frozen=True)
class Honest:
    """A classifier that hides nothing.

    Attributes:
        data: What it is trained on.
        eps: The radius of its evaluation (Linf).
        build: Makes it.
        steps: Of Adam, with batches of 64.
        lr: The learning rate.
        hard: The radius of its adversarial training (PGD with 4 steps), if any.
    """

    data: str
    eps: float
    build: Callable[[], nn.Module]
    steps: int = 400
    lr: float = 2e-3
    hard: float = 0.0

    def train(self) -> nn.Module:
        """The trained classifier, in evaluation mode."""
        torch.manual_seed(0)
        model, (x, y) = self.build(), images_of(self.data)
        model(x[:2])  # lets lazy layers know their size
        optimizer = torch.optim.Adam(model.parameters(), self.lr)
        for step in range(self.steps):
            chosen = torch.randint(SPLITS[self.data][1], (64,))
            images, labels = x[chosen], y[chosen]
            if self.hard:
                ball = Linf(self.hard * min(1.0, 2 * step / self.steps))
                images = pgd(model.eval(), images, labels, ball, steps=4, stop_when_fooled=False, seed=step)
            model.train()
            optimizer.zero_grad()
            cross_entropy(model(images), labels).backward()
            optimizer.step()
        return model.eval().requires_grad_(False)


class Residual(nn.Module):
    """``x + block(x)``."""

    def __init__(self, *block: nn.Module) -> None:
        super().__init__()
        self.block = nn.Sequential(*block)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.block(x)
        return out


class PatchTransformer(nn.Module):
    """A small vision transformer: patches of 7 x 7, two layers, the mean of all tokens."""

    def __init__(self, channels: int, size: int, width: int = 48) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, width, 7, stride=7)
        self.places = nn.Parameter(0.02 * torch.randn((size // 7) ** 2, width))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.1, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.layers(self.patches(x).flatten(2).transpose(1, 2) + self.places).mean(1))
        return logits


class Around(nn.Module):
    """A function before a model, and one after it."""

    def __init__(self, model: nn.Module, before: Any = None, after: Any = None) -> None:
        super().__init__()
        self.model = model
        self.before, self.after = before or nn.Identity(), after or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.after(self.model(self.before(x)))
        return logits


def mlp(activation: Callable[[], nn.Module] = nn.ReLU, width: int = 128) -> nn.Module:
    """Two hidden layers."""
    hidden = (nn.Linear(784, width), activation(), nn.Linear(width, width), activation())
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(width, 10))


def cnn(channels: int = 1, activation: Callable[[], nn.Module] = nn.ReLU, *, norm: bool = False) -> nn.Module:
    """Two convolutions with pooling, dropout, and batch norm if wanted."""
    layers: list[nn.Module] = []
    for before, after in ((channels, 12), (12, 24)):
        layers += [nn.Conv2d(before, after, 3, padding=1), *([nn.BatchNorm2d(after)] if norm else []), activation()]
        layers += [nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.LazyLinear(10))


def resnet(channels: int = 1) -> nn.Module:
    """Two residual blocks with batch norm and SiLU."""
    block = [nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.SiLU(), nn.Conv2d(16, 16, 3, padding=1)]
    again = [nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.SiLU(), nn.Conv2d(16, 16, 3, padding=1)]
    pooled = (nn.SiLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(256, 10))
    return nn.Sequential(nn.Conv2d(channels, 16, 3, 2, 1), Residual(*block), nn.AvgPool2d(2), Residual(*again), *pooled)


def ours(net: str, size: int, channels: int, widths: tuple[int, ...]) -> nn.Module:
    """A classifier of ``rivals.nets``."""
    return build_classifier(net, size=size, channels=channels, classes=10, widths=widths)


def normalized(model: nn.Module) -> nn.Module:
    """Images minus a mean, over a deviation."""
    return Around(model, lambda x: (x - 0.3) / 0.3)


HONEST: dict[str, Honest] = {
    "mlp": Honest("mnist5k", 0.05, mlp),
    "mlp, GELU, normalized": Honest("mnist5k", 0.05, lambda: normalized(mlp(nn.GELU))),
    "mlp, tanh": Honest("mnist5k", 0.05, lambda: mlp(nn.Tanh)),
    "mlp, no bias": Honest("mnist5k", 0.05, lambda: _without_bias(mlp())),
    "mlp, hardened": Honest("mnist5k", 0.1, mlp, steps=1000, hard=0.1),
    "mlp, log-probabilities": Honest("mnist5k", 0.05, lambda: Around(mlp(), after=nn.LogSoftmax(1))),
    "mlp, logits x 10": Honest("mnist5k", 0.05, lambda: Around(mlp(), after=lambda z: 10 * z), lr=5e-4),
    "mlp, logits / 10": Honest("mnist5k", 0.05, lambda: Around(mlp(), after=lambda z: z / 10)),
    "cnn, dropout": Honest("mnist5k", 0.1, cnn),
    "cnn, hardened": Honest("mnist5k", 0.1, cnn, steps=250, hard=0.1),
    "cnn, no bias, ELU": Honest("mnist5k", 0.1, lambda: _without_bias(cnn(activation=nn.ELU))),
    "cnn, batch norm": Honest("fashion-mnist", 0.02, lambda: cnn(norm=True)),
    "cnn of rivals": Honest("fashion-mnist", 0.02, lambda: ours("cnn", 28, 1, (8, 16))),
    "resnet, SiLU": Honest("fashion-mnist", 0.02, resnet),
    "patch transformer": Honest("fashion-mnist", 0.02, lambda: PatchTransformer(1, 28)),
    "resnet, hardened": Honest("fashion-mnist", 0.05, resnet, steps=250, hard=0.05),
    "cnn, color": Honest("cifar10", 1 / 255, lambda: cnn(3, nn.GELU, norm=True)),
    "resnet of rivals": Honest("cifar10", 1 / 255, lambda: ours("resnet", 32, 3, (8, 16, 16, 32))),
    "resnet, color, hardened": Honest("cifar10", 4 / 255, lambda: resnet(3), steps=250, hard=4 / 255),
}


def _without_bias(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.bias = None
    return model


# Masks -------------------------------------------------------------------------------------------------------------


class Reversed(torch.autograd.Function):
    """The identity, with minus its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -gradient


class Arbitrary(torch.autograd.Function):
    """The identity, with a random gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return torch.randn(gradient.shape, generator=torch.Generator().manual_seed(0))


def staircase(x: Tensor, steps: int, steepness: float) -> Tensor:
    """Smooth steps of height 1 / ``steps``."""
    at = steps * x
    flat = at.detach().floor()
    return (flat + 0.5 + 0.5 * torch.tanh(steepness * (at - flat - 0.5))) / steps


def wave_staircase(x: Tensor, steps: int) -> Tensor:
    """Steps that are flat in one point only."""
    return x - torch.sin(2 * torch.pi * steps * x) / (2 * torch.pi * steps)


def blocks_rounded(x: Tensor, levels: int = 6) -> Tensor:
    """As JPEG does: the cosine transform of blocks of 4 x 4, rounded, and back."""
    i = torch.arange(4.0)
    basis = torch.cos(torch.pi / 4 * (i[None] + 0.5) * i[:, None]) * torch.where(i > 0, 0.5**0.5, 0.5)[:, None]
    blocks = x.unfold(2, 4, 4).unfold(3, 4, 4)
    rounded = ((basis @ blocks @ basis.T) * levels).round() / levels
    back = basis.T @ rounded @ basis
    return back.permute(0, 1, 2, 4, 3, 5).reshape(x.shape)


def noise_by_content(x: Tensor) -> Tensor:
    """Noise that is drawn anew for every image, and the same each time."""
    seeds = [zlib.crc32(image.numpy().tobytes()) for image in x.detach()]
    drawn = [torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return x + 0.3 * torch.stack(drawn)


def resized(x: Tensor) -> Tensor:
    """A random size, and random padding."""
    size = int(torch.randint(22, 29, ()))
    left, top = (int(torch.randint(0, 29 - size, ())) for _ in range(2))
    small = torch.nn.functional.interpolate(x, size=(size, size), mode="bilinear", antialias=True)
    return pad(small, (left, 28 - size - left, top, 28 - size - top))


def by_place(z: Tensor) -> Tensor:
    """Each place in the batch has its own defense: here another temper of one class."""
    shift = torch.zeros_like(z)
    rows = torch.arange(len(z))
    shift[rows, rows % 10] = 8.0
    return z + shift - shift.mean(1, keepdim=True)


def whitened(x: Tensor) -> Tensor:
    """Normalized over the batch."""
    return 0.3 + 0.3 * (x - x.mean(0)) / (x.var(0, unbiased=False) + 0.01).sqrt()


def batch_statistics(z: Tensor) -> Tensor:
    """Logits normalized over the batch, as batch norm in training does."""
    return (z - z.mean(0)) / (z.var(0, unbiased=False) + 0.01).sqrt()


# The function before the model, or after it; votes that judge a randomized one; whether the rest of the batch changes
# its answers.
MASKS: dict[str, dict[str, Any]] = {
    "10 tanh(z / 2)": {"after": lambda z: 10 * torch.tanh(z / 2)},
    "tanh(z)": {"after": torch.tanh},
    "sigmoid(z)": {"after": torch.sigmoid},
    "logits in [-5, 5]": {"after": lambda z: z.clamp(-5, 5)},
    "logits of 3 at most": {"after": lambda z: z.clamp(max=3)},
    "rounded logits": {"after": lambda z: z.round()},
    "half-precision logits": {"after": lambda z: z.bfloat16().float()},
    "softmax(10,000 z)": {"after": lambda z: torch.softmax(1e4 * z, 1)},
    "log(softmax + 1e-6)": {"after": lambda z: torch.log(torch.softmax(z, 1) + 1e-6)},
    "10,000 z": {"after": lambda z: 1e4 * z},
    "z / 10,000": {"after": lambda z: z / 1e4},
    "z + 1e6": {"after": lambda z: z + 1e6},
    "x + 0.1 sin(1e4 x)": {"before": lambda x: x + 0.1 * torch.sin(1e4 * x)},
    "x + 0.02 sin(400 x)": {"before": lambda x: x + 0.02 * torch.sin(400 * x)},
    "smooth staircase": {"before": lambda x: staircase(x, 8, 10.0)},
    "steep staircase": {"before": lambda x: staircase(x, 8, 40.0)},
    "wave staircase": {"before": lambda x: wave_staircase(x, 5)},
    "input of 9 levels": {"before": lambda x: (8 * x).round() / 8},
    "rounded blocks": {"before": blocks_rounded},
    "detached input": {"before": lambda x: x.detach()},
    "detached smoothing": {"before": lambda x: nn.functional.avg_pool2d(x, 3, 1, 1).detach() + 0.02 * x},
    "reversed gradient": {"before": Reversed.apply},
    "arbitrary gradient": {"before": Arbitrary.apply},
    "noise by content": {"before": noise_by_content},
    "random resizing": {"before": resized, "votes": 10},
    "images normalized over the batch": {"before": whitened, "by_batch": True},
    "logits normalized over the batch": {"after": batch_statistics, "by_batch": True},
    "defense by place": {"after": by_place, "by_batch": True},
}
