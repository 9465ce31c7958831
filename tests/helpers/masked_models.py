"""Small models for tests of the evaluation: an honest one, and some that hide their gradients."""

from __future__ import annotations

import torch
from torch import nn

from rivals.base.seeds import generator

SIDE, CLASSES = 8, 4


def patterns(n, seed="images"):
    """Images (n, 1, 8, 8) in [0, 1] of four patterns with noise on them, and their labels."""
    prototypes = torch.rand(CLASSES, 1, SIDE, SIDE, generator=generator("prototypes"))
    y = torch.arange(n) % CLASSES
    noise = torch.randn(n, 1, SIDE, SIDE, generator=generator(seed))
    return (0.25 + 0.5 * prototypes[y] + 0.12 * noise).clamp(0, 1), y


def honest():
    """A convolutional net with batch norm, trained in a blink; in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            *(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten()),
            nn.Linear(8 * SIDE * SIDE, CLASSES),
        )
    x, y = patterns(512, "training")
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for i in range(40):
        some = slice(64 * (i % 8), 64 * (i % 8 + 1))
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x[some]), y[some]).backward()
        optimiser.step()
    return model.eval()


class Around(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model


class Probabilities(Around):
    """Answers with probabilities, honest ones."""

    def forward(self, x):
        return torch.softmax(self.model(x), 1)


class Saturated(Around):
    """So sure that its probabilities round to 0 and 1."""

    def forward(self, x):
        return torch.softmax(self.model(x) * 1e4, 1)


class Rounded(Around):
    """Rounds its input to a few levels, which has a gradient of 0."""

    def forward(self, x):
        return self.model((x * 8).round() / 8)


class Detached(Around):
    """Gives no gradient at all."""

    def forward(self, x):
        return self.model(x.detach())


class Rippled(Around):
    """A fast ripple on the input turns the gradient this way and that."""

    def forward(self, x):
        return self.model(x + 0.02 * torch.sin(400 * x))


class Noisy(Around):
    """Adds noise to its input, anew at each pass."""

    def forward(self, x):
        return self.model(x + 0.25 * torch.randn_like(x))
