"""What the loop costs beside the arithmetic: a round of a tiny game against the bare loop, and a large checkpoint.

The tiny game has a generator and a discriminator of one hidden layer of 16 on 8 x 8 gray images, batch 16, hinge loss,
Adam: so small that almost all of a round is overhead. The bare loop trains the same networks as one writes it by hand:
a random batch of a tensor in memory, two passes of D, torch's fused Adam, losses and mean logits read in each round and
appended to a file as JSON. Our side is ``play`` with its log and its alarms, a function of (seed, step) throughout.

The checkpoint is that of a game with 500 MB of state. While it plays, it saves several times. The delay of a save is
what its round takes longer than the median round; a thread writes the file meanwhile.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.harness import in_turn, record
from rivals.api.common.game_factory import build_game
from rivals.base.duration import Duration
from rivals.base.run_folder import Run
from rivals.data.batches import Batches
from rivals.data.imageset import ImageSet
from rivals.game.callbacks import Callback, Progress
from rivals.game.checkpoint import Checkpoints
from rivals.game.health_monitor import HealthMonitor
from rivals.game.loop import Saving, play
from rivals.losses.gan import make_loss
from rivals.recipes import Config

ROUNDS, WARM, STEPS, BATCH = 5, 50, 500, 16
SETTINGS = {"net": "mlp", "loss": "hinge", "batch_size": BATCH, "latent_dim": 8, "hold_out": 0, "ema": "0"}
TINY = {"generator_widths": (16,), "discriminator_widths": (16,)}
STATE_MB, SAVES, ROUNDS_BETWEEN = 500, 6, 40


def noise_images() -> ImageSet:
    """4,096 gray images of 8 x 8."""
    pixels = np.random.default_rng(0).integers(0, 256, (4096, 1, 8, 8), dtype=np.uint8)
    return ImageSet("noise", "train", pixels, None, ())


def make_game(**widths: tuple[int, ...]):
    """A game of fully connected networks of these widths."""
    config = Config().changed(**SETTINGS, **widths)
    return build_game(config, size=8, channels=1, classes=0, device=torch.device("cpu"), seed=0)


def ours(images: ImageSet) -> float:
    """Rounds per second of ``play``."""
    game, batches = make_game(**TINY), Batches(images, BATCH, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(Path(folder) / "run", {})
        play(game, batches, until=f"{WARM} steps", log=run)
        start = time.perf_counter()
        play(game, batches, until=f"{STEPS} steps", log=run, callbacks=[HealthMonitor(make_loss("hinge").equilibrium)])
        return STEPS / (time.perf_counter() - start)


def bare(images: ImageSet) -> float:
    """Rounds per second of the bare loop."""
    game = make_game(**TINY)
    generator, discriminator = (game.players[name].net for name in ("generator", "discriminator"))
    optimizers = [
        torch.optim.Adam(net.parameters(), 2e-4, (0.5, 0.999), fused=True) for net in (generator, discriminator)
    ]
    pixels = torch.from_numpy(images.images)
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log.jsonl").open("w") as log:
        for step in range(-WARM, STEPS):
            if step == 0:
                start = time.perf_counter()
            values = bare_round(generator, discriminator, *optimizers, pixels)
            log.write(json.dumps({"step": step, **values}) + "\n")
        return STEPS / (time.perf_counter() - start)


def bare_round(
    generator: nn.Module,
    discriminator: nn.Module,
    g_optimizer: torch.optim.Optimizer,
    d_optimizer: torch.optim.Optimizer,
    pixels: torch.Tensor,
) -> dict[str, float]:
    """The discriminator's turn, then the generator's. Returns what is recorded."""
    real = pixels[torch.randint(len(pixels), (BATCH,))] / 127.5 - 1
    with torch.no_grad():
        fake = generator(torch.randn(BATCH, 8))
    d_real, d_fake = discriminator(real), discriminator(fake)
    d_loss = torch.relu(1 - d_real).mean() + torch.relu(1 + d_fake).mean()
    d_optimizer.zero_grad()
    d_loss.backward()
    d_optimizer.step()
    g_loss = -discriminator(generator(torch.randn(BATCH, 8))).mean()
    g_optimizer.zero_grad()
    g_loss.backward()
    g_optimizer.step()
    named = {"loss_d": d_loss, "loss_g": g_loss, "d_real": d_real.mean(), "d_fake": d_fake.mean()}
    return {name: value.item() for name, value in named.items()}


class Stopwatch(Callback):
    """Notes when each round was over."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_record(self, record: dict, progress: Progress) -> Iterator[dict]:
        """Note the time."""
        self.ends.append(time.perf_counter())
        return iter(())


def checkpoint_delays(images: ImageSet) -> dict[str, float]:
    """Seconds that saves of a large state delay the loop, and the size of the state."""
    width = round((STATE_MB * 1e6 / 4 / 3 / 2) ** 0.5)  # weights and two moments; two networks
    game = make_game(generator_widths=(width, width), discriminator_widths=(width, width))
    watch, batches = Stopwatch(), Batches(images, BATCH, seed=0)
    steps = SAVES * ROUNDS_BETWEEN
    with tempfile.TemporaryDirectory() as folder:
        run, checkpoints = Run.create(Path(folder) / "run", {}), Checkpoints(Path(folder) / "run" / "checkpoints")
        saving = Saving(checkpoints, Duration(ROUNDS_BETWEEN, "steps"))
        play(game, batches, until=f"{steps} steps", log=run, callbacks=[watch], saving=saving)
        size = max(path.stat().st_size for path in checkpoints.paths())
    took = np.diff(watch.ends)
    # The record of round k is logged before its save: the save is in the time up to the next one.
    saves = [float(took[k - 1]) for k in range(ROUNDS_BETWEEN, steps - 1, ROUNDS_BETWEEN)]
    usual = float(np.median(took))
    return {
        "state_mb": round(size / 1e6),
        "round_seconds": round(usual, 4),
        "median_delay_seconds": round(statistics.median(saves) - usual, 3),
        "longest_delay_seconds": round(max(saves) - usual, 3),
    }


def main() -> None:
    """Both sides of the tiny round in turn; then the checkpoint."""
    images = noise_images()
    values = in_turn({"ours": lambda: ours(images), "bare": lambda: bare(images)}, ROUNDS)
    ratios = [theirs / mine for mine, theirs in zip(values["ours"], values["bare"], strict=True)]
    record(
        "loop_overhead",
        description="rounds per second of a tiny game, and seconds that a checkpoint of 500 MB delays the loop",
        steps=STEPS,
        rounds_per_second=values,
        time_of_a_round_to_the_bare_loop=round(statistics.median(ratios), 3),
        checkpoint=checkpoint_delays(images),
        targets={"time_of_a_round_to_the_bare_loop": 1.3, "longest_delay_seconds": 0.3},
    )


if __name__ == "__main__":
    main()
