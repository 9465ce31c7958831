"""What a step of ``rivals harden`` costs beyond the forward and backward passes that its method needs.

The passes of a round, as the api builds it, are counted by hooks and must be those the method's paper asks for. The
same passes are then run bare, on the same network and batch, in the same precision, with nothing around them: no
attack step or projection, data loading, optimizer, EMA or log. Both sides are timed in turn by the processor time of
one thread, which other programs disturb less than wall-clock time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.harness import in_turn, load, record
from rivals.api.training.adversarial import HardenJob
from rivals.api.training.job import Request
from rivals.base import devices
from rivals.game.game import Batches, Game
from rivals.recipes import HARDENING, HardenConfig

ROUNDS, BATCH = 5, 128
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Passes:
    """What a method needs for one batch.

    Attributes:
        forwards: Forward passes without a backward pass.
        attack_steps: Forward and backward passes for the images alone, in evaluation mode.
        weight_batches: For each backward pass for the weights, the number of batches in its forward pass.
        input_grad: Whether those also give the gradient of the images.
        times: How often all of it is done in a round.
    """

    forwards: int = 0
    attack_steps: int = 0
    weight_batches: tuple[int, ...] = (1,)
    input_grad: bool = False
    times: int = 1

    @property
    def counted(self) -> dict[str, int]:
        """Batches forward, and batches backward, in a round."""
        batches = sum(self.weight_batches)
        backward = self.times * (self.attack_steps + batches)
        return {"forward": backward + self.times * self.forwards, "backward": backward}


METHODS: dict[str, tuple[dict[str, Any], Passes]] = {
    "fgsm": ({"method": "fgsm"}, Passes(attack_steps=1)),
    "pgd": ({"method": "pgd", "steps": 10}, Passes(attack_steps=10)),
    "trades": ({"method": "trades", "steps": 10}, Passes(forwards=1, attack_steps=10, weight_batches=(2,))),
    "mart": ({"method": "mart", "steps": 10}, Passes(attack_steps=10, weight_batches=(2,))),
    "free": ({"method": "free"}, Passes(input_grad=True, times=4)),
    "pgd + awp": ({"method": "pgd", "steps": 10, "awp": 0.005}, Passes(attack_steps=10, weight_batches=(1, 1))),
}
DATA = {"cnn": "mnist", "resnet": "cifar10"}


def built(config: HardenConfig, data: str) -> tuple[Game, Batches]:
    """A game and its batches as ``rivals harden`` has them, in the middle of a run."""
    images = load(data, split="test")
    job = HardenJob(Request(data, None, None, False, 0, str(CPU), True, {}))
    job.config, job.images, job.total_images = config, images, 10 * len(images)
    return job.build_game(), job.make_batches()


@contextmanager
def counting(net: nn.Module) -> Iterator[dict[str, int]]:
    """Counts the batches that go through a network, forward and backward."""
    counts = {"forward": 0, "backward": 0}

    def back(gradient: Tensor) -> None:
        counts["backward"] += 1

    def forth(module: nn.Module, given: Any, logits: Tensor) -> None:
        counts["forward"] += 1
        if logits.requires_grad:
            logits.register_hook(back)

    handle = net.register_forward_hook(forth)
    yield counts
    handle.remove()


def bare(net: nn.Module, x: Tensor, y: Tensor, passes: Passes, cast: Callable[[], Any]) -> None:
    """The passes and nothing else."""
    for _ in range(passes.times):
        with cast():
            net.eval()
            with torch.no_grad():
                for _ in range(passes.forwards):
                    net(x)
            for _ in range(passes.attack_steps):
                leaf = x.detach().requires_grad_()
                torch.autograd.grad(cross_entropy(net(leaf), y, reduction="sum"), leaf)
            net.train()
        for number in passes.weight_batches:
            leaves = [x.detach().requires_grad_(passes.input_grad) for _ in range(number)]
            with cast():
                loss = torch.stack([cross_entropy(net(leaf), y) for leaf in leaves]).sum()
            loss.backward()
            for weight in net.parameters():
                weight.grad = None


def measured(net_name: str, method: str, settings: dict[str, Any], passes: Passes) -> dict[str, Any]:
    """One method on one network: counted, then timed."""
    config = HARDENING[net_name]().changed(
        **settings, batch_size=BATCH, eps_warmup=0.0, precision=devices.fastest_precision(CPU), until="1 epochs"
    )
    game, batches = built(config, DATA[net_name])
    net = game.players["classifier"].net
    images, labels = batches.draw(0)
    assert labels is not None
    x = images / 255
    step = 0

    def ours() -> float:
        nonlocal step
        start = time.process_time()
        game.round(step, batches, seed=0)
        step += 1
        return 1000 * (time.process_time() - start)

    def plain() -> float:
        start = time.process_time()
        bare(net, x, labels, passes, partial(devices.autocast, CPU, game.bf16))
        return 1000 * (time.process_time() - start)

    found = {}
    for side, make in (("harden", ours), ("bare", plain)):
        with counting(net) as counts:
            make()  # which warms it up, too
        assert counts == passes.counted, f"{method}: {side} made {counts}, and {passes.counted} are needed"
        found = dict(counts)
    times = in_turn({"harden": ours, "bare": plain}, ROUNDS)
    ratio = median(times["harden"]) / median(times["bare"])
    print(f"{net_name} {method}: {ratio:.3f}", flush=True)
    return {"passes": found, "precision": config.precision, "milliseconds": times, "ratio": round(ratio, 3)}


def main() -> None:
    """Measure and record."""
    torch.set_num_threads(1)
    nets = {net: {method: measured(net, method, *case) for method, case in METHODS.items()} for net in DATA}
    record("hardening_cost", batch_size=BATCH, rounds=ROUNDS, target=1.1, nets=nets)


if __name__ == "__main__":
    main()
