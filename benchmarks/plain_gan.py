"""The GAN of introductory articles as they write it: torchvision's data set, a DataLoader, one loop.

``python -m benchmarks.plain_gan FOLDER STEPS WORKERS`` trains it on ``pixels.npy`` and ``labels.npy`` of a folder. It
imports nothing of Rivals.
"""

from __future__ import annotations

import itertools
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import CIFAR10
from torchvision.transforms import Compose, Normalize, ToTensor

BATCH = 100


def networks() -> tuple[nn.Module, nn.Module]:
    """The networks of the recipe ``mlp-classic``: the same layers and sizes, in torch's own modules."""
    generator = nn.Sequential(
        *(nn.Linear(100, 256), nn.LeakyReLU(0.2), nn.Linear(256, 512), nn.LeakyReLU(0.2)),
        *(nn.Linear(512, 1024), nn.LeakyReLU(0.2), nn.Linear(1024, 3072), nn.Tanh(), nn.Unflatten(1, (3, 32, 32))),
    )
    discriminator = nn.Sequential(
        *(nn.Flatten(), nn.Linear(3072, 1024), nn.LeakyReLU(0.2), nn.Dropout(0.3)),
        *(nn.Linear(1024, 512), nn.LeakyReLU(0.2), nn.Dropout(0.3)),
        *(nn.Linear(512, 256), nn.LeakyReLU(0.2), nn.Dropout(0.3), nn.Linear(256, 1), nn.Flatten(0)),
    )
    return generator, discriminator


def train(folder: Path, steps: int, workers: int, warm: int = 0) -> float:
    """Train for ``warm`` and then ``steps`` steps; the seconds of the latter."""
    dataset = CIFAR10.__new__(CIFAR10)  # its own __getitem__, without its download
    dataset.data = np.load(folder / "pixels.npy")
    dataset.targets = np.load(folder / "labels.npy").tolist()
    dataset.transform = Compose([ToTensor(), Normalize((0.5,) * 3, (0.5,) * 3)])
    dataset.target_transform = None
    loader = DataLoader(dataset, batch_size=BATCH, shuffle=True, num_workers=workers, drop_last=True)
    generator, discriminator = networks()
    d_optimizer = torch.optim.Adam(discriminator.parameters(), lr=2e-4)
    g_optimizer = torch.optim.Adam(generator.parameters(), lr=2e-4)
    criterion = nn.BCEWithLogitsLoss()
    history: dict[str, list[float]] = {"d": [], "g": [], "real": [], "fake": []}
    start = time.perf_counter()
    for step, (real, _) in enumerate(
        itertools.islice(itertools.chain.from_iterable(itertools.repeat(loader)), warm + steps)
    ):
        if step == warm:
            start = time.perf_counter()
        ones, zeros = torch.ones(BATCH), torch.zeros(BATCH)
        d_optimizer.zero_grad()
        on_real = discriminator(real)
        fake = generator(torch.randn(BATCH, 100)).detach()
        on_fake = discriminator(fake)
        d_loss = criterion(on_real, ones) + criterion(on_fake, zeros)
        d_loss.backward()
        d_optimizer.step()
        g_optimizer.zero_grad()
        g_loss = criterion(discriminator(generator(torch.randn(BATCH, 100))), ones)
        g_loss.backward()
        g_optimizer.step()
        history["d"].append(d_loss.item())
        history["g"].append(g_loss.item())
        history["real"].append(on_real.sigmoid().mean().item())
        history["fake"].append(on_fake.sigmoid().mean().item())
    return time.perf_counter() - start


if __name__ == "__main__":
    train(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
