"""The article's game on CIFAR-10 against a plain loop as such articles write it: images a second.

Same networks, batch 100, Adam 2e-4, same threads. The plain side is torchvision's data set with per-image transforms
in a DataLoader (the better of 0 and 2 workers), two passes of D, unfused Adam, and the losses and mean answers that
the article plots. Our side is the whole of ``play`` with its journal and its watch.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import CIFAR10
from torchvision.transforms import Compose, Normalize, ToTensor

from benchmarks.harness import in_turn, paired_ratio, record
from rivals.api.assemble import build_game
from rivals.data.imageset import ImageSet
from rivals.data.load import load
from rivals.data.stream import Batches
from rivals.game.health import Health
from rivals.game.play import play
from rivals.losses.gan import nonsaturating
from rivals.nets.build import build_discriminator, build_generator
from rivals.recipes import mlp_classic
from rivals.reports.run import Run

STEPS, WARM, ROUNDS, BATCH = 150, 10, 5, 100


def ours(images: ImageSet) -> float:
    """Images a second of the recipe ``mlp-classic`` through ``play``."""
    config = mlp_classic()
    cpu = torch.device("cpu")
    game = build_game(config, size=images.size, channels=images.channels, classes=10, device=cpu, seed=0)
    batches = Batches(images, config.batch, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(Path(folder) / "run", {})
        play(game, batches, until=f"{WARM} steps", journal=run)
        start = time.perf_counter()
        play(game, batches, until=f"{STEPS} steps", journal=run, watch=Health(nonsaturating().equilibrium))
        return STEPS * config.batch / (time.perf_counter() - start)


def plain_networks() -> tuple[nn.Module, nn.Module]:
    """The recipe's networks as an article lists them: the same layers and sizes, in torch's own modules."""
    generator = nn.Sequential(
        *(nn.Linear(100, 256), nn.LeakyReLU(0.2), nn.Linear(256, 512), nn.LeakyReLU(0.2)),
        *(nn.Linear(512, 1024), nn.LeakyReLU(0.2), nn.Linear(1024, 3072), nn.Tanh(), nn.Unflatten(1, (3, 32, 32))),
    )
    discriminator = nn.Sequential(
        *(nn.Flatten(), nn.Linear(3072, 1024), nn.LeakyReLU(0.2), nn.Dropout(0.3)),
        *(nn.Linear(1024, 512), nn.LeakyReLU(0.2), nn.Dropout(0.3)),
        *(nn.Linear(512, 256), nn.LeakyReLU(0.2), nn.Dropout(0.3), nn.Linear(256, 1), nn.Flatten(0)),
    )
    counts = [sum(weight.numel() for weight in net.parameters()) for net in (generator, discriminator)]
    ours = build_generator("mlp", size=32, channels=3, latent=100), build_discriminator("mlp", size=32, channels=3)
    assert counts == [sum(weight.numel() for weight in net.parameters()) for net in ours]
    return generator, discriminator


def plain(images: ImageSet, workers: int) -> float:
    """Images a second of the plain loop."""
    dataset = CIFAR10.__new__(CIFAR10)  # its own __getitem__, on the same pixels, without its download
    dataset.data = images.images.transpose(0, 2, 3, 1).copy()
    dataset.targets = images.labels.tolist() if images.labels is not None else []
    dataset.transform = Compose([ToTensor(), Normalize((0.5,) * 3, (0.5,) * 3)])
    dataset.target_transform = None
    loader = DataLoader(dataset, batch_size=BATCH, shuffle=True, num_workers=workers, drop_last=True)
    generator, discriminator = plain_networks()
    d_optimizer = torch.optim.Adam(discriminator.parameters(), lr=2e-4)
    g_optimizer = torch.optim.Adam(generator.parameters(), lr=2e-4)
    criterion = nn.BCEWithLogitsLoss()
    history: dict[str, list[float]] = {"d": [], "g": [], "real": [], "fake": []}
    start = 0.0
    for step, (real, _) in enumerate(
        itertools.islice(itertools.chain.from_iterable(itertools.repeat(loader)), WARM + STEPS)
    ):
        if step == WARM:
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
    return STEPS * BATCH / (time.perf_counter() - start)


def main() -> None:
    """Run both sides in turn."""
    images = load("cifar10")
    sides = {
        "ours": lambda: ours(images),
        "plain, 0 workers": lambda: plain(images, 0),
        "plain, 2 workers": lambda: plain(images, 2),
    }
    values = in_turn(sides, ROUNDS)
    record(
        "classic_speed",
        what="images a second, recipe mlp-classic on CIFAR-10, batch 100",
        steps=STEPS,
        rounds=ROUNDS,
        images_per_second=values,
        ratio_to_the_better_plain_loop=paired_ratio(*values.values()),
        asked=1.7,
    )


if __name__ == "__main__":
    main()
