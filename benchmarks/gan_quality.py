"""How good are images after equal minutes of one thread: ours with no option set, and the peers'.

    python -m benchmarks gan_quality                       # all that is missing: most of a day of one thread
    python -m benchmarks.gan_quality train cifar10-10 ours 0
    python -m benchmarks.gan_quality train cifar10-10 dcgan 0

CIFAR-10 is scored by FD-lite0 of 10,000 samples against 10,000 training images, the gray data sets by precision and
recall on a classifier's features. "10 minutes" of two cores are 20 minutes of one. Ours are wall-clock minutes, as its
users have them, and the peers' are processor time, which other programs on the machine disturb less; scoring is not
counted.
"""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

import rivals
from benchmarks import sngan_speed
from benchmarks.harness import RESULTS, load, packed, record, recorded
from rivals.data.batches import Batches
from rivals.nets.factory import build_discriminator, build_generator
from rivals.reports.image_grid import make_grid, save_png

RUNS, CLASSIFIERS = Path("runs/benchmark-quality"), Path("runs/benchmark-classifiers")
N = 10_000
CHUNK = 250
Sample = Callable[[int], Tensor]
"""Generates n images: uint8 (n, C, H, W)."""


@dataclass(frozen=True)
class Case:
    """A data set and what may be spent on it.

    Attributes:
        data: The data set's name.
        minutes: Of one thread.
        metrics: Metrics of the samples.
        seeds: Of our runs.
        peers: The peers that train too.
    """

    data: str
    minutes: float
    metrics: str
    seeds: tuple[int, ...] = (0,)
    peers: tuple[str, ...] = ()


CASES = {
    "cifar10-10": Case("cifar10", 20, "fd", (0, 1, 2), ("mimicry", "dcgan", "torchgan")),
    "cifar10-60": Case("cifar10", 120, "fd", (0,), ("dcgan",)),
    "mnist-10": Case("mnist", 20, "prdc"),
    "fashion-10": Case("fashion-mnist", 20, "prdc"),
}


@dataclass
class Clock:
    """The minutes of processor time that a peer has."""

    minutes: float
    start: float = field(default_factory=time.process_time)
    images: int = 0

    @property
    def spent(self) -> float:
        """Minutes used up."""
        return (time.process_time() - self.start) / 60

    @property
    def left(self) -> bool:
        """Whether there is time for another step."""
        return self.spent < self.minutes


def ours(case: Case, seed: int, folder: Path) -> tuple[Sample, dict[str, Any]]:
    """``rivals train DATA --until ...`` and nothing else; its evaluations and checkpoints count in the same minutes."""
    start = time.process_time()
    run = rivals.train(case.data, until=f"{case.minutes:g} minutes", seed=seed, out=folder, quiet=True)
    spent = (time.process_time() - start) / 60
    about = run.info
    facts = {
        "images": about["images"],
        "cpu_minutes": round(spent, 2),
        "config": about["config"],
        "alarms": [alarm["alarm"] for alarm in about["alarms"]],
    }
    return lambda n: run.generator.sample(n, seed=0), facts


def fetch(requirement: str) -> None:
    """Make a peer's networks importable, without the packages that only its trainers need."""
    folder = tempfile.mkdtemp()
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder]
    subprocess.run([*pip, requirement], check=True)
    sys.path.insert(0, folder)


def real_batches(case: Case, batch_size: int) -> Callable[[int], Tensor]:
    """Batches in [-1, 1] by their number."""
    stream = Batches(load(case.data), batch_size, seed=0)
    return lambda number: stream.draw(number)[0].float() / 127.5 - 1


def finished(net: Callable[[int], Tensor]) -> Sample:
    """Images from what gives them in [-1, 1], some at a time."""

    def draw(n: int) -> Tensor:
        with torch.no_grad():
            parts = [net(CHUNK) for _ in range(n // CHUNK)]
        return torch.cat(parts).add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)

    return draw


def mimicry(case: Case, seed: int, folder: Path) -> tuple[Sample, dict[str, Any]]:
    """torch-mimicry's SNGAN-32 by its own steps: batch 64, five of D for one of G, Adam 2e-4 (0, 0.9)."""
    sngan_speed.fetch(tempfile.mkdtemp())
    nets = importlib.import_module("torch_mimicry.nets.sngan")
    torch.manual_seed(seed)
    g, d, real = nets.SNGANGenerator32(), nets.SNGANDiscriminator32(), real_batches(case, 64)
    adams = [torch.optim.Adam(net.parameters(), 2e-4, (0.0, 0.9)) for net in (g, d)]
    log = SimpleNamespace(add_metric=lambda *_, **__: None)
    clock = Clock(case.minutes)
    while clock.left:
        for turn in range(5):
            shared: dict[str, Any] = {
                "real_batch": (real(clock.images // 64), torch.zeros(64, dtype=torch.long)),
                "device": torch.device("cpu"),
                "log_data": log,
            }
            d.train_step(netG=g, optD=adams[1], **shared)
            clock.images += 64
            if turn == 4:
                g.train_step(netD=d, optG=adams[0], **shared)
    g.eval()
    return finished(lambda n: g(torch.randn(n, g.nz))), peer_facts(clock)


def peer_facts(clock: Clock) -> dict[str, Any]:
    """What is recorded of a peer's run."""
    return {"images": clock.images, "cpu_minutes": round(clock.spent, 2)}


def plain(case: Case, seed: int, make: Callable[[], tuple[nn.Module, nn.Module]]) -> tuple[Sample, dict[str, Any]]:
    """The DCGAN game in a plain loop: binary cross-entropy, Adam 2e-4 (0.5, 0.999), batch 128 (Radford et al. 2016)."""
    torch.manual_seed(seed)
    (g, d), real = make(), real_batches(case, 128)
    adams = [torch.optim.Adam(net.parameters(), 2e-4, (0.5, 0.999)) for net in (g, d)]
    ones, zeros = torch.ones(128), torch.zeros(128)
    clock = Clock(case.minutes)
    while clock.left:
        fake = g(torch.randn(128, 100))
        logits = d(real(clock.images // 128)).flatten(), d(fake.detach()).flatten()
        loss = binary_cross_entropy_with_logits(logits[0], ones) + binary_cross_entropy_with_logits(logits[1], zeros)
        adams[1].zero_grad()
        loss.backward()
        adams[1].step()
        loss = binary_cross_entropy_with_logits(d(fake).flatten(), ones)
        adams[0].zero_grad()
        loss.backward()
        adams[0].step()
        clock.images += 128
    g.eval()
    return finished(lambda n: g(torch.randn(n, 100))), peer_facts(clock)


def dcgan(case: Case, seed: int, folder: Path) -> tuple[Sample, dict[str, Any]]:
    """DCGAN for 32 px, Radford's widths halved, 256, 128, 64: our networks of that name, in the plain loop."""
    shape: dict[str, Any] = {"size": 32, "channels": 3}
    nets = partial(build_generator, "dcgan", latent_dim=100, **shape), partial(build_discriminator, "dcgan", **shape)
    return plain(case, seed, lambda: (nets[0](), nets[1]()))


def torchgan(case: Case, seed: int, folder: Path) -> tuple[Sample, dict[str, Any]]:
    """torchgan's DCGAN networks with their defaults, their last sigmoid left to the loss."""
    fetch("torchgan==0.1.0")
    nets = importlib.import_module("torchgan.models.dcgan")
    return plain(case, seed, lambda: (nets.DCGANGenerator(), nets.DCGANDiscriminator(last_nonlinearity=nn.Identity())))


SIDES = {"ours": ours, "mimicry": mimicry, "dcgan": dcgan, "torchgan": torchgan}


def results() -> dict[str, Any]:
    """The results so far: case, then side and seed, then facts."""
    return recorded("gan_quality", "cases")


def train(name: str, side: str, seed: int) -> None:
    """Train one, save its sample grid and score it; an interrupted run starts again, since its minutes are counted."""
    case, folder = CASES[name], RUNS / f"{name}-{side}-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    draw, facts = SIDES[side](case, seed, folder)
    folder.mkdir(parents=True, exist_ok=True)
    images = draw(N)
    save_png(make_grid(images[:64].numpy()), RESULTS / f"gan_quality_{name}_{side}_{seed}.png")
    packed(images, folder / "samples.zip")
    extractor = "lite0" if case.metrics == "fd" else f"classifier:{classifier_of(case)}"
    scores = rivals.score(
        *(folder / "samples.zip", case.data),
        **{"metrics": case.metrics, "extractor": extractor, "n": N, "n_real": N, "out": folder, "quiet": True},
    )
    values = {value["metric"]: round(value["value"], 4) for value in scores.as_dict()["values"]}
    cases = results()
    cases.setdefault(name, {"minutes": case.minutes})[f"{side} {seed}"] = facts | values
    record("gan_quality", threads=1, n=N, cases=cases)
    print(f"{name} {side} {seed}: {values}", flush=True)


def classifier_of(case: Case) -> Path:
    """A classifier of the case's images, trained once."""
    folder = CLASSIFIERS / case.data
    if not (folder / "classifier.safetensors").exists():
        rivals.classify(case.data, until="3 epochs", out=folder, quiet=True)
    return folder


def main() -> None:
    """Run what is named on the command line, or all that is missing."""
    torch.set_num_threads(1)
    if len(sys.argv) > 1:
        _, name, side, seed = sys.argv[1:]
        train(name, side, int(seed))
        return
    for name, case in CASES.items():
        for side, seed in [("ours", seed) for seed in case.seeds] + [(peer, 0) for peer in case.peers]:
            if f"{side} {seed}" not in results().get(name, {}):
                subprocess.run(
                    [sys.executable, "-m", "benchmarks.gan_quality", "train", name, side, str(seed)], check=True
                )


if __name__ == "__main__":
    main()
