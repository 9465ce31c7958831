"""Where the time of a game's round goes: the share of matrix products and convolutions, and of the machine's peak.

The game is what ``rivals train cifar10 --until "20 minutes"`` fits to one thread of this machine. Shares are of the
time that PyTorch's profiler gives to operations themselves, over whole cycles of lazy penalties; flops are those that
the products and convolutions of the same rounds need, by PyTorch's own formulas, against the measured peak of a square
matrix product in float32 and in bf16.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks.harness import load, record
from rivals.api.common.game_factory import build_game
from rivals.api.training.auto_config import fit_config
from rivals.data.batches import Batches
from rivals.game.game import Game

CYCLES, TOP = 3, 12
NEEDED = ("convolution", "mm", "addmm", "bmm", "linear")
CPU = torch.device("cpu")


def needed(name: str) -> bool:
    """Whether an operation is a matrix product or convolution that the networks need."""
    return any(part in NEEDED for part in name.removeprefix("aten::").split("_"))


class Flops(TorchDispatchMode):
    """Adds up the flops of products and convolutions, of all passes."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func.overloadpacket)
        self.total += count(*args, **(kwargs or {}), out_val=out) if count else 0
        return out


def peak(dtype: torch.dtype, side: int = 2048) -> float:
    """Flops a second of a square matrix product, the best of several."""
    a, b = torch.randn(side, side).to(dtype), torch.randn(side, side).to(dtype)
    best = 0.0
    for _ in range(6):
        start = time.process_time()
        a @ b
        best = max(best, 2 * side**3 / (time.process_time() - start))
    return best


def cycles(game: Game, batches: Batches, every: int, count: int) -> None:
    """Play ``count`` cycles of lazy penalties, from the first step of one."""
    for step in range(every, every * (1 + count)):
        game.round(step, batches, seed=0)


def processor_seconds(work: Callable[[], None]) -> float:
    """What a piece of work takes."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    """Measure and record."""
    torch.set_num_threads(1)
    data = load("cifar10")
    config = fit_config(data, {"until": "20 minutes"}, CPU, 0).config
    game = build_game(config, size=32, channels=3, classes=10, device=CPU, seed=0)
    batches = Batches(data, config.batch_size, seed=0, flip=config.flip)
    cycles(game, batches, config.penalty_every, 1)
    seconds = processor_seconds(lambda: cycles(game, batches, config.penalty_every, CYCLES))
    with Flops() as counter:
        cycles(game, batches, config.penalty_every, CYCLES)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        cycles(game, batches, config.penalty_every, CYCLES)
    spent: dict[str, float] = {event.key: event.self_cpu_time_total for event in profiler.key_averages()}
    total = sum(spent.values())
    rows: list[dict[str, Any]] = [
        {"operation": name, "share": round(time / total, 4), "needed": needed(name)}
        for name, time in sorted(spent.items(), key=lambda item: -item[1])[:TOP]
    ]
    flops = counter.total / seconds
    peaks = {"float32": peak(torch.float32), "bf16": peak(torch.bfloat16)}
    record(
        "gan_throughput",
        target=0.8,
        recipe={key: config.written()[key] for key in ("generator_widths", "batch_size", "penalty_every", "precision")},
        images_per_second=round(CYCLES * config.penalty_every * config.batch_size / seconds, 1),
        share_of_products_and_convolutions=round(sum(t for name, t in spent.items() if needed(name)) / total, 4),
        gigaflops=round(flops / 1e9, 1),
        peak_gigaflops={name: round(value / 1e9, 1) for name, value in peaks.items()},
        share_of_peak={name: round(flops / value, 3) for name, value in peaks.items()},
        largest=rows,
    )
    for row in rows:
        print(f"{row['share']:6.1%} {'*' if row['needed'] else ' '} {row['operation']}")


if __name__ == "__main__":
    main()
