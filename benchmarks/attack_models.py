"""The three classifiers that the attacks are measured on: plain and hardened on MNIST, plain on CIFAR-10.

They are kept in ``benchmarks/models/``, so that every attack's figure is of the same weights. A plain loop trains them,
since what matters here is that they are there and of use, not how they came to be.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks.harness import load
from rivals.api.common.network_io import save_network
from rivals.attacks import pgd
from rivals.base.norm_balls import Linf
from rivals.data.imageset import ImageSet
from rivals.nets.classifier import Classifier
from rivals.nets.factory import build_classifier

MODELS = Path(__file__).parent / "models"


@dataclass(frozen=True)
class Recipe:
    """How one of them is trained; ``eps`` is that of PGD with ``steps``, and grows over the first part of the run."""

    data: str
    net: str
    epochs: int
    lr: float
    flip: bool = False
    shift: int = 0
    eps: float = 0.0
    steps: int = 5
    batch_size: int = 128


RECIPES = {
    "mnist-plain": Recipe("mnist", "cnn", epochs=3, lr=1e-3),
    "mnist-hard": Recipe("mnist", "cnn", epochs=3, lr=1e-3, eps=0.3),
    "cifar10-plain": Recipe("cifar10", "resnet", epochs=7, lr=3e-3, flip=True, shift=4),
}


def train(recipe: Recipe, data: ImageSet) -> Classifier:
    """Train by Adam along half a cosine, with each batch's PGD examples in its place if the recipe has an eps."""
    torch.manual_seed(0)
    images, labels = torch.from_numpy(data.images), torch.from_numpy(data.labels)
    share = images[::10].float() / 255
    mean, std = share.mean((0, 2, 3)), share.std((0, 2, 3))
    net = build_classifier(
        recipe.net,
        **{"size": data.size, "channels": data.channels, "classes": len(data.classes)},
        **{"mean": tuple(mean.tolist()), "std": tuple(std.tolist())},
    )
    optimizer = torch.optim.AdamW(net.parameters(), lr=recipe.lr, weight_decay=1e-2, fused=True)
    total = recipe.epochs * len(images) // recipe.batch_size
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, total, pct_start=0.1)
    start, order = time.perf_counter(), torch.randperm(len(images))
    for step in range(total):
        place = step * recipe.batch_size % (len(images) - recipe.batch_size)
        if place < recipe.batch_size:
            order = torch.randperm(len(images))
        chosen = order[place : place + recipe.batch_size]
        x, y = random_augmentation(images[chosen], recipe).float() / 255, labels[chosen]
        if recipe.eps:
            ball = Linf(recipe.eps * min(1, 3 * step / total))
            x = pgd(net, x, y, ball, steps=recipe.steps, step_size=0.4, stop_when_fooled=False, seed=step)
        net.train()
        loss = cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(f"step {step + 1}/{total} loss {loss.item():.4f} {time.perf_counter() - start:.0f} s", flush=True)
    return net.eval()


def random_augmentation(images: Tensor, recipe: Recipe) -> Tensor:
    """A batch, flipped as a whole or not, and shifted by one random offset: cheap, and enough over many batches."""
    if recipe.flip and torch.rand(()) < 0.5:
        images = images.flip(3)
    if recipe.shift:
        down, across = torch.randint(2 * recipe.shift + 1, (2,)).tolist()
        padded = torch.nn.functional.pad(images, (recipe.shift,) * 4)
        images = padded[..., down : down + images.shape[2], across : across + images.shape[3]]
    return images


@torch.no_grad()
def accuracy(net: Classifier, data: ImageSet) -> float:
    """Accuracy on a data set."""
    images, labels = torch.from_numpy(data.images), torch.from_numpy(data.labels)
    said = torch.cat([net(block.float() / 255).argmax(1) for block in images.split(1000)])
    return (said == labels).float().mean().item()


def main() -> None:
    """Train the named ones, or all."""
    for name in sys.argv[1:] or RECIPES:
        recipe = RECIPES[name]
        data = load(recipe.data)
        net = train(recipe, data)
        test = accuracy(net, load(recipe.data, split="test"))
        facts = {"data": recipe.data, "classes": list(data.classes), "recipe": recipe.__dict__, "test_accuracy": test}
        save_network(net, MODELS / f"{name}.safetensors", facts)
        print(f"{name}: test accuracy {test:.4f}", flush=True)


if __name__ == "__main__":
    main()
