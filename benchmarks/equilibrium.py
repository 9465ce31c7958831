"""The bound on the Jensen-Shannon divergence, and the duality gap, where the truth is known: Gaussians.

A fixed generator samples from a known distribution. A fully connected discriminator is trained on endless points, and
evaluated on held-out ones throughout: its bound must never be above the truth, and near it once trained. The duality
gap comes from two players that are each trained alone: against D = 1/2 a generator can gain nothing, so the true gap is
twice the divergence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from scipy import integrate, stats
from torch import Tensor, nn

from benchmarks.harness import record
from rivals import Duration, Every, Game, Player, Turn, adam, nonsaturating, play
from rivals.base import rng
from rivals.metrics.entropy import jsd
from rivals.metrics.equilibrium import duality_gap, game_value, jsd_bound
from rivals.metrics.mode_coverage import Mixture, ring

HELD, STEPS, EVERY, BATCH, SEEDS, TOLERANCE = 50_000, 1500, 100, 256, 3, 0.1

Draw = Callable[[int, torch.Generator], Tensor]


class Points:
    """Endless batches of points of a distribution, in the form of images: the GAN step maps v to v / 127.5 - 1."""

    n, batch_size, micro_batches = 10**9, BATCH, 1

    def __init__(self, draw: Draw, seed: int) -> None:
        self._draw, self.seed = draw, seed

    def draw(self, index: int, stream: int = 0, part: int = 0) -> tuple[Tensor, None]:
        """The batch at an index."""
        return (self._draw(self.batch_size, rng.generator(self.seed, stream, index)) + 1) * 127.5, None


class Source(nn.Module):
    """A generator that returns ``reshape(z) + shift``, and can learn the shift only."""

    classes = 0

    def __init__(self, latent_dim: int, reshape: Callable[[Tensor], Tensor], d: int) -> None:
        super().__init__()
        self.latent_dim, self.reshape = latent_dim, reshape
        self.shift = nn.Parameter(torch.zeros(d))

    def forward(self, z: Tensor, labels: None = None) -> Tensor:
        """Points (n, d)."""
        return self.reshape(z) + self.shift


class Discriminator(nn.Module):
    """A fully connected discriminator; with ``coin``, one that predicts 1/2 until it has learned."""

    classes = 0

    def __init__(self, d: int, coin: bool = False) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(d, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))
        if coin:
            nn.init.zeros_(self.layers[-1].weight)
            nn.init.zeros_(self.layers[-1].bias)

    def forward(self, x: Tensor, labels: None = None) -> Tensor:
        """Logits (n,)."""
        logits: Tensor = self.layers(x).squeeze(1)
        return logits


def quadrature(p: Any, g: Any) -> float:
    """The divergence of two densities on the line, in nats."""

    def inside(x: float) -> float:
        logit = p.logpdf(x) - g.logpdf(x)
        return float(p.pdf(x) * np.logaddexp(0, -logit) + g.pdf(x) * np.logaddexp(0, logit))

    return math.log(2) - float(integrate.quad(inside, -20, 20, limit=500)[0]) / 2


def normal(d: int) -> Draw:
    """Standard normal points."""
    return lambda n, source: torch.randn(n, d, generator=source)


def moved(d: int, shift: float) -> Callable[[Tensor], Tensor]:
    """Normal points moved along the first axis."""
    return lambda z: z + shift * torch.nn.functional.one_hot(torch.tensor(0), d)


def clouds(mixture: Mixture) -> Draw:
    """Points of a mixture."""

    def draw(n: int, source: torch.Generator) -> Tensor:
        chosen = torch.randint(len(mixture.centers), (n,), generator=source)
        return mixture.centers[chosen] + mixture.std * torch.randn(n, 2, generator=source)

    return draw


def cases() -> dict[str, tuple[Draw, Source, int, float]]:
    """For each: the data, the generator, the dimension and the true divergence."""
    found = {
        f"{d}-d normal, moved by {shift}": (
            normal(d),
            Source(d, moved(d, shift), d),
            d,
            quadrature(stats.norm(0), stats.norm(shift)),
        )
        for d, shift in ((1, 0.5), (2, 1.0), (8, 2.0))
    }
    found["1-d normal, twice as wide"] = (
        normal(1),
        Source(1, lambda z: 2 * z, 1),
        1,
        quadrature(stats.norm(0, 1), stats.norm(0, 2)),
    )
    # A ring of 8 clouds that hardly overlap, of which the generator generates 4: the latents' first number chooses.
    whole = ring(std=0.2)
    half = whole.centers[::2]

    def four(z: Tensor) -> Tensor:
        chosen = (torch.special.ndtr(z[:, 0]) * 4).long().clamp_max(3)
        return half[chosen] + whole.std * z[:, 1:]

    eighth, quarter = np.full(8, 1 / 8), np.array([1 / 4, 0] * 4)
    found["ring of 8, of which 4 are generated"] = (clouds(whole), Source(3, four, 2), 2, float(jsd(eighth, quarter)))
    return found


def train_alone(
    mover: str, discriminator: nn.Module, source: Source, draw: Draw, seed: int, evaluate: Callable[[], Any]
) -> None:
    """Train one player alone, and evaluate it every so many steps."""
    players = {"discriminator": discriminator, "generator": source}
    loss = nonsaturating()
    turns = {"discriminator": loss.discriminator, "generator": loss.generator}

    def act(progress: Any) -> Iterator[Any]:
        evaluate()
        yield from ()

    game = Game({name: Player(net, adam(2e-3)) for name, net in players.items()}, [Turn(mover, turns[mover])])
    play(
        game,
        Points(draw, seed),
        until=f"{STEPS} steps",
        seed=seed,
        callbacks=[Every(Duration(EVERY, "steps"), act)],
    )


@torch.no_grad()
def held_out_logits(discriminator: nn.Module, source: Source, draw: Draw, seed: int) -> tuple[Tensor, Tensor]:
    """Logits of held-out real points, and of generated ones."""
    z = torch.randn(HELD, source.latent_dim, generator=rng.generator(seed, "held latents"))
    return discriminator(draw(HELD, rng.generator(seed, "held"))), discriminator(source(z))


def measure(draw: Draw, source: Source, d: int, truth: float, seed: int) -> dict[str, Any]:
    """The bounds of one discriminator during its training, and the duality gap."""
    torch.manual_seed(seed)
    discriminator = Discriminator(d, coin=True)
    coin = Discriminator(d, coin=True)
    bounds: list[Any] = []

    def evaluate() -> None:
        bounds.append(jsd_bound(*held_out_logits(discriminator, source, draw, seed)))

    train_alone("discriminator", discriminator, source, draw, seed, evaluate)
    loss = nonsaturating().discriminator
    up = game_value(loss, *held_out_logits(discriminator, source, draw, seed))
    start = {key: value.clone() for key, value in source.state_dict().items()}
    train_alone("generator", coin, source, draw, seed, lambda: None)
    gap = duality_gap(up, game_value(loss, *held_out_logits(coin, source, draw, seed)))
    source.load_state_dict(start)
    return {
        "bound": round(bounds[-1].value, 5),
        "bound_low": round(bounds[-1].low, 5),
        "share_of_the_truth": round(bounds[-1].value / truth, 4),
        "evaluations": len(bounds),
        "evaluations_surely_above_the_truth": sum(bound.low > truth for bound in bounds),
        "most_above_the_truth": round(max(bound.value / truth - 1 for bound in bounds), 4),
        "gap": round(gap.value, 5),
        "gap_low": round(gap.low, 5),
        "gap_of_the_truth": round(gap.value / (2 * truth), 4),
    }


def main() -> None:
    """Every case, with several seeds."""
    rows: dict[str, Any] = {}
    for name, (draw, source, d, truth) in cases().items():
        runs = [measure(draw, source, d, truth, seed) for seed in range(SEEDS)]
        rows[name] = {"truth": round(truth, 5), "true_gap": round(2 * truth, 5), "seeds": runs}
        print(name, rows[name], flush=True)
    every = [run for row in rows.values() for run in row["seeds"]]
    record(
        "equilibrium",
        description=f"D of 64-64 units, {STEPS} steps of {BATCH} points, evaluated on {HELD:,} others every {EVERY}",
        tolerance=TOLERANCE,
        cases=rows,
        evaluations=sum(run["evaluations"] for run in every),
        evaluations_surely_above_the_truth=sum(run["evaluations_surely_above_the_truth"] for run in every),
        least_share_of_the_truth=min(run["share_of_the_truth"] for run in every),
        most_above_the_truth=max(run["most_above_the_truth"] for run in every),
        gaps_of_the_truth=[
            min(run["gap_of_the_truth"] for run in every),
            max(run["gap_of_the_truth"] for run in every),
        ],
        gaps_surely_above_the_truth=sum(
            run["gap_low"] > row["true_gap"] for row in rows.values() for run in row["seeds"]
        ),
    )


if __name__ == "__main__":
    main()
