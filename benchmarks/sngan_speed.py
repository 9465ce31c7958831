"""SNGAN at 32 px against torch-mimicry's: images a second for one step of D and one of G, batch 64.

    python benchmarks/sngan_speed.py [--rounds 5] [--threads 2]

Same shapes, parameter counts, losses (hinge), optimiser settings and threads; both in one process, taking turns.
torch-mimicry is fetched by pip into a temporary folder unless it is installed. Two rows for it: as it comes, and with its
bilinear upsampling in G replaced by the paper's nearest one, which is what Rivals has.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F

from rivals.nets.build import build_discriminator, build_generator

SIZE, BATCH, LATENT = 32, 64, 128
PEER = "torch-mimicry==0.1.16"
RESULT = Path(__file__).parent / "results" / "sngan_speed.json"
Step = Callable[[], None]


def ours(real: torch.Tensor) -> tuple[Step, tuple[int, int]]:
    """A step of the lean game, and the parameter counts of G and D."""
    g = build_generator("sngan", size=SIZE, channels=3)
    d = build_discriminator("sngan", size=SIZE, channels=3)
    adam = {"lr": 2e-4, "betas": (0.0, 0.9), "fused": True}
    d_optimiser, g_optimiser = torch.optim.Adam(d.parameters(), **adam), torch.optim.Adam(g.parameters(), **adam)

    def step() -> None:
        with torch.no_grad():
            fake = g(torch.randn(BATCH, LATENT))
        on_real, on_fake = d(torch.cat([real, fake])).chunk(2)
        d_optimiser.zero_grad()
        (F.relu(1 - on_real).mean() + F.relu(1 + on_fake).mean()).backward()
        d_optimiser.step()
        d.requires_grad_(False)
        g_optimiser.zero_grad()
        (-d(g(torch.randn(BATCH, LATENT))).mean()).backward()
        g_optimiser.step()
        d.requires_grad_(True)

    return step, _counts(g, d)


def peer(real: torch.Tensor, nearest: bool) -> tuple[Step, tuple[int, int]]:
    """A step of torch-mimicry's own trainer (its ``train_step`` of D, then of G), and the parameter counts."""
    sngan = importlib.import_module("torch_mimicry.nets.sngan")
    g, d = sngan.SNGANGenerator32(), sngan.SNGANDiscriminator32()
    if nearest:
        for name in ("block2", "block3", "block4"):
            block = getattr(g, name)
            block._upsample_conv = lambda x, conv: conv(F.interpolate(x, scale_factor=2, mode="nearest"))
    adam = {"lr": 2e-4, "betas": (0.0, 0.9)}
    d_optimiser, g_optimiser = torch.optim.Adam(d.parameters(), **adam), torch.optim.Adam(g.parameters(), **adam)
    batch = (real, torch.zeros(BATCH, dtype=torch.long))
    log = SimpleNamespace(add_metric=lambda name, value, **_: float(value))

    def step() -> None:
        shared: dict[str, Any] = {"real_batch": batch, "log_data": log, "device": torch.device("cpu")}
        d.train_step(netG=g, optD=d_optimiser, **shared)
        g.train_step(netD=d, optG=g_optimiser, **shared)

    return step, _counts(g, d)


def fetch(folder: str) -> str:
    """Make torch-mimicry's networks importable, and say which version they are."""
    try:
        found = importlib.metadata.version("torch-mimicry")
    except importlib.metadata.PackageNotFoundError:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, PEER]
        subprocess.run(pip, check=True)
        sys.path.insert(0, folder)
        found = PEER.partition("==")[2]
    # Its data, metrics and trainer rooms want tensorflow and a torch of 2020; the networks do not need them.
    for room in ("datasets", "metrics", "training"):
        sys.modules[f"torch_mimicry.{room}"] = mock.MagicMock(__path__=[], __all__=[], __spec__=None)
    return found


def measure(steps: dict[str, Step], rounds: int) -> dict[str, list[float]]:
    """Images a second, ``rounds`` times for each side, the sides taking turns, after one step to warm up."""
    speeds: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            speeds[name].append(round(BATCH / (time.perf_counter() - start), 3))
    return speeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    real = torch.rand(BATCH, 3, SIZE, SIZE) * 2 - 1
    with tempfile.TemporaryDirectory() as folder:
        version = fetch(folder)
        our_step, our_counts = ours(real)
        peer_step, peer_counts = peer(real, nearest=False)
        nearest_step, _ = peer(real, nearest=True)
        assert our_counts == peer_counts, f"not the same networks: {our_counts} and {peer_counts} parameters"
        steps = {"ours": our_step, "peer": peer_step, "peer_nearest": nearest_step}
        speeds = measure(steps, options.rounds)
    middle = {name: statistics.median(values) for name, values in speeds.items()}
    result = {
        "command": f"python benchmarks/sngan_speed.py --rounds {options.rounds} --threads {options.threads}",
        "what": f"images/s, one D step and one G step, {SIZE} px, batch {BATCH}, float32",
        "machine": {"cpu": _cpu(), "cores": torch.multiprocessing.cpu_count(), "threads": options.threads},
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "torch-mimicry": version},
        "n": BATCH,
        "rounds": options.rounds,
        "parameters": {"generator": our_counts[0], "discriminator": our_counts[1]},
        **speeds,
        "median": middle,
        "ratio": round(middle["ours"] / middle["peer"], 2),
        "ratio_nearest": round(middle["ours"] / middle["peer_nearest"], 2),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def _counts(*nets: torch.nn.Module) -> tuple[int, ...]:
    return tuple(sum(p.numel() for p in net.parameters()) for net in nets)


def _cpu() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor())


if __name__ == "__main__":
    main()
