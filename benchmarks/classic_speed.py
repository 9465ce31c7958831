"""The article's game on CIFAR-10 against a plain loop as such articles write it: images per second.

Same networks, batch 100, Adam 2e-4, same threads. The plain side is torchvision's data set with per-image transforms
in a DataLoader (the better of 0 and 2 workers), two passes of D, unfused Adam, and the losses and mean answers that
the article plots. Our sides are the whole of ``play`` with its log and its alarms, and the command ``rivals train`` for
20,000 images, with sample grids, evaluations on held-out images and checkpoints: by the run's own seconds, and by the
clock from start to exit, which counts imports, reading the data and the report. From start to exit the plain side is a
process that imports, reads the same pixels and runs the loop. All in float32.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks import plain_gan
from benchmarks.harness import in_turn, load, paired_ratio, record
from rivals.api.common.game_factory import build_game
from rivals.base.run_folder import Run
from rivals.data.batches import Batches
from rivals.data.imageset import ImageSet
from rivals.game.health_monitor import HealthMonitor
from rivals.game.loop import play
from rivals.losses.gan import nonsaturating
from rivals.nets.factory import build_discriminator, build_generator
from rivals.recipes import mlp_classic

STEPS, WARM, ROUNDS, BATCH = 150, 10, 5, plain_gan.BATCH
COMMAND_IMAGES = 20_000
WORKERS = (0, 2)


def ours(images: ImageSet) -> float:
    """Images per second of the recipe ``mlp-classic`` through ``play``."""
    config = mlp_classic()
    cpu = torch.device("cpu")
    game = build_game(config, size=images.size, channels=images.channels, classes=10, device=cpu, seed=0)
    batches = Batches(images, config.batch_size, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(Path(folder) / "run", {})
        play(game, batches, until=f"{WARM} steps", log=run)
        start = time.perf_counter()
        play(game, batches, until=f"{STEPS} steps", log=run, callbacks=[HealthMonitor(nonsaturating().equilibrium)])
        return STEPS * config.batch_size / (time.perf_counter() - start)


def from_start(*words: str) -> float:
    """Images per second of ``python -m WORDS``, which trains on 20,000 images, from its start to its exit."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", *words], check=True, capture_output=True)
    return COMMAND_IMAGES / (time.perf_counter() - start)


def command() -> tuple[float, float]:
    """Images per second of ``rivals train``: by the run's own seconds, and from start to exit."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["cifar10", "--recipe", "mlp-classic", "--until", f"{COMMAND_IMAGES} images", "--precision", "fp32"]
        out = str(Path(folder) / "run")
        whole = from_start("rivals", "train", *words, "--out", out, "--quiet")
        return COMMAND_IMAGES / Run.open(out).info["seconds"], whole


def check_networks() -> None:
    """Both sides have the same numbers of weights."""
    counts = [sum(weight.numel() for weight in net.parameters()) for net in plain_gan.networks()]
    ours = build_generator("mlp", size=32, channels=3, latent_dim=100), build_discriminator("mlp", size=32, channels=3)
    assert counts == [sum(weight.numel() for weight in net.parameters()) for net in ours]


def main() -> None:
    """Run all sides in turn."""
    check_networks()
    images = load("cifar10")
    assert images.labels is not None
    whole: list[float] = []

    def by_command() -> float:
        speed, with_start = command()
        whole.append(round(with_start, 2))
        return speed

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "pixels.npy", np.ascontiguousarray(images.images.transpose(0, 2, 3, 1)))
        np.save(folder / "labels.npy", images.labels)
        steps = str(COMMAND_IMAGES // BATCH)
        sides = {"ours": lambda: ours(images), "rivals train": by_command}
        for n in WORKERS:
            sides[f"plain, {n} workers"] = lambda n=n: STEPS * BATCH / plain_gan.train(folder, STEPS, n, WARM)
            sides[f"plain, {n} workers, from start to exit"] = lambda n=n: from_start(
                "benchmarks.plain_gan", name, steps, str(n)
            )
        values = in_turn(sides, ROUNDS)
    plain_loops = [values[f"plain, {n} workers"] for n in WORKERS]
    plain_processes = [values.pop(f"plain, {n} workers, from start to exit") for n in WORKERS]
    record(
        "classic_speed",
        description="images per second, recipe mlp-classic on CIFAR-10, batch 100",
        steps=STEPS,
        rounds=ROUNDS,
        images_per_second=values,
        images_per_second_from_start_to_exit=whole,
        plain_images_per_second_from_start_to_exit=dict(zip(map(str, WORKERS), plain_processes, strict=True)),
        ratio_to_the_better_plain_loop=paired_ratio(values["ours"], *plain_loops),
        ratio_of_the_command=paired_ratio(values["rivals train"], *plain_loops),
        ratio_of_the_command_from_start_to_exit=paired_ratio(whole, *plain_loops),
        ratio_of_both_from_start_to_exit=paired_ratio(whole, *plain_processes),
        ratio_of_the_command_to_play=paired_ratio(values["rivals train"], values["ours"]),
        target=1.6,
    )


if __name__ == "__main__":
    main()
