"""Small models for tests of the evaluation: an honest one, and some that hide their gradients."""

from __future__ import annotations

import torch
from torch import nn

from rivals.base.rng import generator
from rivals.data.imageset import ImageSet

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
        layers = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten()
        head = nn.Linear(8 * SIDE * SIDE, CLASSES)
    return trained(*layers, head)


def trained(*layers):
    """The layers in sequence, trained on the patterns; in evaluation mode."""
    model = nn.Sequential(*layers)
    x, y = patterns(512, "training")
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for i in range(40):
        some = slice(64 * (i % 8), 64 * (i % 8 + 1))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[some]), y[some]).backward()
        optimizer.step()
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


class FlatOnBytes(Around):
    """Has no gradient at images of 8 bits, and an honest one elsewhere."""

    def forward(self, x):
        on_grid = ((255 * x).round() - 255 * x).abs() < 1e-3
        return self.model(torch.where(on_grid, x.detach(), x))


class Small(Around):
    """Logits so small that the cross-entropy weighs all classes alike."""

    def forward(self, x):
        return self.model(x) / 100


class Squashed(Around):
    """Squashes its logits, which leaves no gradient where it is confident."""

    def forward(self, x):
        return torch.tanh(2 * self.model(x))


class Staircase(Around):
    """Smooth steps on the input: their gradient vanishes on the flat parts, and is exact."""

    def forward(self, x):
        flat = (8 * x).detach().floor()
        return self.model((flat + 0.5 + 0.5 * torch.tanh(40 * (8 * x - flat - 0.5))) / 8)


class Reversed(Around):
    """Gives minus its gradient."""

    def forward(self, x):
        return self.model(2 * x.detach() - x)


class BatchStatistics(Around):
    """Normalizes its logits over the batch."""

    def forward(self, x):
        logits = self.model(x)
        return (logits - logits.mean(0)) / (logits.var(0, unbiased=False) + 0.01).sqrt()


class ByPlace(Around):
    """Another defense for each place in the batch."""

    def forward(self, x):
        logits = self.model(x)
        return logits + 3 * torch.eye(CLASSES)[torch.arange(len(x)) % CLASSES]


class NeedsCompany(Around):
    """Fails on one image."""

    def forward(self, x):
        return self.model(nn.functional.batch_norm(x.flatten(1), None, None, training=True).view_as(x))


class Detached(Around):
    """Gives no gradient at all."""

    def forward(self, x):
        return self.model(x.detach())


class Rippled(Around):
    """A fast ripple on the input turns the gradient this way and that."""

    def forward(self, x):
        return self.model(x + 0.02 * torch.sin(400 * x))


class FinelyRippled(Around):
    """A ripple much finer than any step of an attack."""

    def forward(self, x):
        return self.model(x + 0.1 * torch.sin(1e4 * x))


class Noisy(Around):
    """Adds noise to its input, anew at each pass."""

    def forward(self, x):
        return self.model(x + 0.25 * torch.randn_like(x))


QUIET = {"quiet": True, "alarms": False}


def image_set(n=120, classes=CLASSES):
    """The patterns as a data set, sorted by class."""
    x, y = patterns(n)
    order = y.argsort(stable=True)
    pixels = (x[order] * 255).round().byte().numpy()
    return ImageSet("patterns", "test", pixels, y[order].numpy(), tuple(f"kind {i}" for i in range(classes)))
