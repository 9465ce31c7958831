"""What the attacks are measured on: three models, three radii each, and a fixed random sample of test images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.attack_models import MODELS, RECIPES
from benchmarks.harness import load
from rivals.api.common.network_io import load as load_network
from rivals.data.splits import hold_out
from rivals.nets.classifier import Classifier


@dataclass(frozen=True)
class Case:
    """A model under attack in a ball of one radius (Linf)."""

    model: str
    eps: float

    @property
    def name(self) -> str:
        """As in the results; radii on CIFAR-10 in units of 1/255."""
        shown = f"{self.eps * 255:g}/255" if self.model.startswith("cifar10") else f"{self.eps:g}"
        return f"{self.model} {shown}"


RADII = {
    "mnist-plain": (0.05, 0.1, 0.15),
    "mnist-hard": (0.2, 0.3, 0.35),
    "cifar10-plain": (0.5 / 255, 1 / 255, 2 / 255),
}
CASES = tuple(Case(model, eps) for model, radii in RADII.items() for eps in radii)


def model_of(name: str) -> Classifier:
    """One of the saved models."""
    net: Classifier = load_network(MODELS / f"{name}.safetensors")
    return net


def images_of(name: str, n: int, split: str = "test") -> tuple[Tensor, Tensor]:
    """Images (n, C, H, W) in [0, 1] and labels (n,) for a model, sampled uniformly, contiguous for the peers.

    Those of ``test`` are reported; settings are chosen on those of ``train``.
    """
    chosen = hold_out(load(RECIPES[name].data, split=split), n, 0)[1]
    assert chosen.labels is not None
    return torch.from_numpy(chosen.images[:]).float() / 255, torch.from_numpy(chosen.labels)


def known(name: str, model: Classifier, n: int, split: str = "test") -> tuple[Tensor, Tensor]:
    """The first n of a sample of 2 n images that the model classifies correctly, and their labels."""
    x, y = images_of(name, 2 * n, split)
    chosen = right(model, x, y).nonzero()[:n, 0]
    return x[chosen], y[chosen]


def right(model: Classifier, x: Tensor, y: Tensor) -> Tensor:
    """Which images are classified correctly, (n,)."""
    with torch.no_grad():
        return torch.cat([model(block).argmax(1) for block in x.split(250)]) == y
