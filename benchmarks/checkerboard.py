"""The checkerboard of transposed convolutions at 64 px, by the spectrum of generated against real images.

``python -m benchmarks.checkerboard [--minutes N] [--seeds N]`` trains ``auto`` on emoji with alpha (Google's Noto,
Apache-2.0, as npm's package ``emoji-datasource-google`` has them), once with each ``--generator-upsample``, and goes on
where it was stopped. Minutes are processor time of one thread. With fewer than the default minutes nothing is recorded.
"""

from __future__ import annotations

import argparse
import json
import shutil
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

import rivals
from benchmarks.harness import RESULTS, load, record
from benchmarks.processor_minutes import Facts, Probe, fd_lite0, gan_job, kept, train_gan
from benchmarks.small_data import PACKAGE, package
from rivals.data.imageset import ImageSet

RUNS = Path("runs/benchmark-checkerboard")
MINUTES, SEEDS = 5.0, 2
WIDTHS: Facts = {"generator_widths": (64, 32, 16, 16), "discriminator_widths": (16, 16, 32, 64)}
SIDES = ("transposed", "nearest")
N_SPECTRUM, N_SCORE = 2000, 2000


def emoji(folder: Path) -> Path:
    """The folder of emoji, made once."""
    if not folder.exists():
        partly = folder.with_name("partly")
        shutil.rmtree(partly, ignore_errors=True)
        partly.mkdir(parents=True)
        with package() as read:
            variants = [
                variant
                for each in json.loads(read("emoji.json"))
                for variant in (each, *each.get("skin_variations", {}).values())
            ]
            for image in sorted({each["image"] for each in variants if each["has_img_google"]}):
                (partly / image).write_bytes(read(f"img/google/64/{image}"))
        partly.rename(folder)
    return folder


def spectrum(x: Tensor) -> Tensor:
    """Mean power of images (n, C, H, H) in [-1, 1] at 1 to H/2 periods per side, the larger of the two directions."""
    power = torch.fft.fft2(x, norm="ortho").abs().square().mean((0, 1))
    side = x.shape[-1]
    periods = (torch.fft.fftfreq(side).abs() * side).round()
    ring = torch.maximum(periods[:, None], periods)
    return torch.stack([power[ring == r].mean() for r in range(1, side // 2 + 1)])


def generated(run: Path, n: int) -> Tensor:
    """Images of a run's generator."""
    net = rivals.load(run)
    torch.manual_seed(0)
    with torch.no_grad():
        return torch.cat([net(torch.randn(100, net.latent_dim)).float() for _ in range(n // 100)])


def real(images: ImageSet, n: int) -> Tensor:
    """Images of a set, one drawn at random after the other."""
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:n]
    return torch.stack([torch.as_tensor(images.images[i]) for i in chosen.tolist()]).float() / 127.5 - 1


def measure(upsample: str, seed: int, images: int, data: Path, home: Path) -> Facts:
    """Train a side for so many images; its spectrum relative to that of real images, and its FD."""
    out = home / f"{upsample}-{seed}"
    result = train_gan(str(data), out, seed, until=f"{images} images", generator_upsample=upsample, **WIDTHS)
    loaded = load(str(data))
    ratio = spectrum(generated(out, N_SPECTRUM)) / spectrum(real(loaded, N_SPECTRUM))
    result |= {"power_ratio": [round(value, 2) for value in ratio.tolist()]}
    return result | {"fd_lite0": fd_lite0(out, loaded, N_SCORE), "grid": newest_grid(out).name}


def newest_grid(run: Path) -> Path:
    """The last sample grid of a run."""
    return max((run / "samples").glob("*.png"))


def main() -> None:
    """Both sides, each seed in turn."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    asked = parser.parse_args()
    data = emoji(RUNS / "emoji")
    home = RUNS / f"{asked.minutes:g}"
    sides: dict[str, Facts] = {}

    def budget() -> Facts:
        probes = {side: Probe(gan_job(str(data), generator_upsample=side, **WIDTHS)) for side in SIDES}
        return {side: probe.images_in(asked.minutes) for side, probe in probes.items()}

    images = kept(home / "images.json", budget)
    for seed in range(asked.seeds):
        for side in SIDES:
            trial = partial(measure, side, seed, images[side], data, home)
            sides[f"{side} {seed}"] = kept(home / f"{side}-{seed}.json", trial)
            print(side, seed, sides[f"{side} {seed}"], flush=True)
    if asked.minutes >= MINUTES:
        for side in SIDES:
            shutil.copy(newest_grid(home / f"{side}-0"), RESULTS / f"checkerboard_{side}.png")
        record("checkerboard", data=PACKAGE, minutes=asked.minutes, n=N_SPECTRUM, widths=WIDTHS, sides=sides)


if __name__ == "__main__":
    main()
