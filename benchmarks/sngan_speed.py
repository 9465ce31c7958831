"""SNGAN at 32 px against torch-mimicry's: images per second for one step of D and one of G.

Same shapes, parameter counts, hinge loss, Adam settings, batch 64 and threads, in one process by turns. Ours is a round
of the recipe ``sngan`` with one turn of D; the peer's its own ``train_step`` of D, then of G, and it has two sides: as
it comes, and with its G's bilinear upsampling replaced by the published nearest one, which ours has. torch-mimicry is
fetched by pip for the run unless it is installed.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.harness import in_turn, paired_ratio, record
from rivals.api.common.game_factory import build_game
from rivals.data.batches import Batches
from rivals.data.imageset import ImageSet
from rivals.recipes import sngan

SIZE, BATCH, ROUNDS = 32, 64, 5
PEER = "0.1.16"
ADAM = {"lr": 2e-4, "betas": (0.0, 0.9)}
Step = Callable[[], None]
Counts = tuple[int, int]


def ours() -> tuple[Step, Counts]:
    """A round of our game, with its readings and its averaged generator, and the parameters of G and D."""
    config = sngan().changed(discriminator_turns=1, batch_size=BATCH, generator_lr=2e-4, discriminator_lr=2e-4)
    game = build_game(config, size=SIZE, channels=3, classes=0, device=torch.device("cpu"), seed=0)
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH, 3, SIZE, SIZE), dtype=np.uint8)
    batches = Batches(ImageSet("noise", "train", pixels), BATCH, seed=0)
    rounds = itertools.count()

    def step() -> None:
        game.round(next(rounds), batches, seed=0)

    return step, (count(game.players["generator"].net), count(game.players["discriminator"].net))


def peer(real: torch.Tensor, *, nearest: bool) -> tuple[Step, Counts]:
    """A step of torch-mimicry's, and the parameters of G and D."""
    nets = importlib.import_module("torch_mimicry.nets.sngan")
    g, d = nets.SNGANGenerator32(), nets.SNGANDiscriminator32()
    if nearest:
        for block in (g.block2, g.block3, g.block4):
            block._upsample_conv = lambda x, conv: conv(F.interpolate(x, scale_factor=2, mode="nearest"))
    d_adam, g_adam = torch.optim.Adam(d.parameters(), **ADAM), torch.optim.Adam(g.parameters(), **ADAM)
    log = SimpleNamespace(add_metric=lambda *_, **__: None)
    shared: dict[str, Any] = {
        "real_batch": (real, torch.zeros(BATCH, dtype=torch.long)),
        "device": torch.device("cpu"),
        "log_data": log,
    }

    def step() -> None:
        d.train_step(netG=g, optD=d_adam, **shared)
        g.train_step(netD=d, optG=g_adam, **shared)

    return step, (count(g), count(d))


def fetch(folder: str) -> None:
    """Make torch-mimicry's networks importable."""
    try:
        importlib.metadata.version("torch-mimicry")
    except importlib.metadata.PackageNotFoundError:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder]
        subprocess.run([*pip, f"torch-mimicry=={PEER}"], check=True)
        sys.path.insert(0, folder)
    # Its data, metrics and trainer need tensorflow and parts of torch that are gone; its networks need neither.
    for package in ("datasets", "metrics", "training"):
        sys.modules[f"torch_mimicry.{package}"] = mock.MagicMock(__path__=[], __all__=[])


def count(net: torch.nn.Module) -> int:
    """The number of parameters."""
    return sum(p.numel() for p in net.parameters())


def speed(step: Step) -> Callable[[], float]:
    """A measurement of a step in images per second, warmed up."""
    step()

    def measure() -> float:
        start = time.perf_counter()
        step()
        return BATCH / (time.perf_counter() - start)

    return measure


def main() -> None:
    """Measure and record."""
    torch.manual_seed(0)
    real = torch.rand(BATCH, 3, SIZE, SIZE) * 2 - 1
    with tempfile.TemporaryDirectory() as folder:
        fetch(folder)
        our_step, counts = ours()
        peer_step, peer_counts = peer(real, nearest=False)
        nearest_step, _ = peer(real, nearest=True)
        version = importlib.metadata.version("torch-mimicry")
    assert counts == peer_counts, f"not the same networks: {counts} and {peer_counts} parameters"
    sides = {"ours": our_step, "peer": peer_step, "peer_nearest": nearest_step}
    speeds = in_turn({name: speed(step) for name, step in sides.items()}, ROUNDS)
    record(
        "sngan_speed",
        target=1.5,
        unit="images/s, one step of D and one of G, float32",
        peer_version=version,
        n=BATCH,
        rounds=ROUNDS,
        parameters={"generator": counts[0], "discriminator": counts[1]},
        **speeds,
        ratio=paired_ratio(speeds["ours"], speeds["peer"]),
        ratio_nearest=paired_ratio(speeds["ours"], speeds["peer_nearest"]),
    )


if __name__ == "__main__":
    main()
