"""Callbacks of the training commands: sample grids, milestones, and accuracies of a classifier."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from rivals.api.common.network_io import save_network
from rivals.api.equilibrium.discriminator_eval import pixel_entropy
from rivals.attacks import fgsm, pgd
from rivals.attacks.frozen_model import freeze
from rivals.base.duration import Duration
from rivals.base.files import make_folder
from rivals.base.norm_balls import Ball
from rivals.base.run_folder import Record, Run
from rivals.data.imageset import ImageSet
from rivals.data.splits import hold_out, subset
from rivals.game.callbacks import Callback, Progress
from rivals.game.player import Player
from rivals.metrics.diversity import Diversity
from rivals.reports import image_grid

TEST_IMAGES = 1000  # of an evaluation during the run; the last one uses all
ROBUST_IMAGES = 500  # held-out images that are attacked in an evaluation
PGD_STEPS = 10
BLOCK = 500  # images in one forward pass


class SampleGrid(Callback):
    """Saves a grid of generated images, always of the same latents, and measures their diversity and entropy.

    Args:
        every: Time between two grids.
        run: Where the grids are saved.
        generator: Generates the images.
        images: The training images, with which the diversity is compared.
        n: Images in a grid.
        seed: Seed of the latents.
        max_share: The share of the run's time that grids may take; None for any.
    """

    def __init__(
        self,
        every: Duration,
        run: Run,
        generator: Any,
        images: ImageSet,
        n: int,
        seed: int,
        max_share: float | None = None,
    ) -> None:
        self.every = every
        self.max_share = max_share
        self.run = run
        self.generator = generator
        self.latents = generator.latents(n, seed)
        self.labels = torch.arange(n) % generator.classes if generator.classes else None
        self.diversity = Diversity(images.images, n)
        self.samples: Tensor | None = None

    def measure(self, progress: Progress) -> Iterator[Record]:
        """The record of a grid."""
        samples = self.samples = self.generator.generate(self.latents, self.labels)
        make_folder(self.run.samples)
        path = self.run.samples / f"{progress.images:09d}.png"
        image_grid.save_png(image_grid.make_grid(samples.numpy()), path)
        values = {"diversity": self.diversity(samples), "entropy/pixels": pixel_entropy(samples)}
        yield progress.record(sample_grid=f"samples/{path.name}", **values)


class PerturbedAccuracy(Callback):
    """Measures what a generator's perturbations leave of a classifier's accuracy; saves a grid of perturbed images.

    Args:
        every: Time between two evaluations.
        run: Where the grids are saved.
        generator: Images in [0, 1], and labels, targets or None, to perturbed images.
        classifier: In evaluation mode.
        held_out: Labeled images that it is not trained on.
        grid: Images in a grid.
    """

    def __init__(
        self,
        every: Duration,
        run: Run,
        generator: Any,
        classifier: nn.Module,
        held_out: ImageSet,
        grid: int,
    ) -> None:
        self.every, self.run = every, run
        self.generator, self.classifier, self.grid = generator, classifier, grid
        device = next(generator.parameters()).device
        assert held_out.labels is not None
        self.x = torch.from_numpy(held_out.images[:]).to(device) / 255
        self.y = torch.from_numpy(held_out.labels).to(device)
        self.targets: Tensor | None = None
        if generator.condition == "target":
            self.targets = (self.y + 1) % generator.classes
        elif generator.target is not None:
            self.targets = torch.full_like(self.y, generator.target)

    @torch.no_grad()
    def measure(self, progress: Progress) -> Iterator[Record]:
        """The record of an evaluation: accuracy, and with targets the share of images that reach theirs."""
        self.generator.eval()  # batch norm by its running statistics, as the attack will be
        clean, left, reached, shown = 0, 0, 0, []
        for some in torch.split(torch.arange(len(self.x), device=self.x.device), BLOCK):
            x, y = self.x[some], self.y[some]
            targets = None if self.targets is None else self.targets[some]
            x_adv = self.generator(x, {"none": None, "label": y, "target": targets}[self.generator.condition])
            shown.append(x_adv)
            clean += int((self.classifier(x).argmax(1) == y).sum())
            predicted = self.classifier(x_adv).argmax(1)
            left += int((predicted == y).sum())
            reached += 0 if targets is None else int(((predicted == targets) & (targets != y)).sum())
        pixels = torch.cat(shown)[: self.grid].mul(255).round().to("cpu", torch.uint8)
        make_folder(self.run.samples)
        path = self.run.samples / f"{progress.images:09d}.png"
        image_grid.save_png(image_grid.make_grid(pixels.numpy()), path)
        values = {"accuracy/held_out": clean / len(self.x), "accuracy/generator": left / len(self.x)}
        if self.targets is not None:
            values["targets_reached"] = reached / max(1, int((self.targets != self.y).sum()))
        yield progress.record(sample_grid=f"samples/{path.name}", **values)


class Milestones(Callback):
    """Saves the network at intervals and keeps it, as ``milestones/IMAGES.safetensors`` with its ``.json``.

    Args:
        every: Time between two milestones.
        run: Where they are saved.
        player: Its evaluation network is saved.
        facts: What else to write in the ``.json``, given the progress.
    """

    def __init__(self, every: Duration, run: Run, player: Player, facts: Callable[[Progress], Record]) -> None:
        self.every = every
        self.run = run
        self.player = player
        self.facts = facts

    def measure(self, progress: Progress) -> Iterator[Record]:
        """Save the network, once it has learned anything. Returns the record of the milestone."""
        if progress.step:
            make_folder(self.run.milestones)
            path = self.run.milestones / f"{progress.images:09d}.safetensors"
            save_network(self.player.eval_net, path, self.facts(progress))
            yield progress.record(milestone=f"milestones/{path.name}")

    def on_restore(self, past: Iterable[Record], progress: Progress) -> None:
        """Remove the milestones that will be reached again."""
        for path in self.run.milestones.glob("*"):
            if path.stem.isdecimal() and int(path.stem) > progress.images:
                path.unlink()


class TestAccuracy(Callback):
    """Measures the accuracy of a classifier on test images: some during the run, all at its end.

    Args:
        every: Time between two evaluations.
        player: The classifier.
        test: Labeled test images.
        until: Length of the run.
    """

    __test__ = False  # for pytest, which collects classes by their name

    def __init__(self, every: Duration, player: Player, test: ImageSet, until: Duration) -> None:
        self.every = every
        self.player = player
        self.test = test
        self.some = hold_out(test, TEST_IMAGES, 0)[1] if len(test) > TEST_IMAGES else test
        self.until = until

    def measure(self, progress: Progress) -> Iterator[Record]:
        """The record of an evaluation."""
        test = self.test if progress.fraction(self.until) >= 1 else self.some
        value = accuracy(self.player.eval_net.eval(), test)
        yield progress.record(**{"accuracy/test": value, "n_test": len(test)})


class RobustAccuracy(Callback):
    """Measures the accuracy of a classifier on held-out images: clean, under FGSM and under PGD.

    Args:
        every: Time between two evaluations.
        player: The classifier.
        held_out: Labeled images that it is not trained on.
        ball: The ball of the attacks.
    """

    def __init__(self, every: Duration, player: Player, held_out: ImageSet, ball: Ball) -> None:
        self.every = every
        self.player = player
        self.ball = ball
        few = len(held_out) <= ROBUST_IMAGES
        self.images = held_out if few else subset(held_out, torch.arange(ROBUST_IMAGES).numpy())
        assert self.images.labels is not None
        device = next(player.net.parameters()).device
        self.x = torch.from_numpy(self.images.images[:]).to(device) / 255
        self.y = torch.from_numpy(self.images.labels).to(device)

    def measure(self, progress: Progress) -> Iterator[Record]:
        """The record of an evaluation."""
        net = self.player.eval_net.eval()
        with freeze(net, self.x) as frozen:
            x_fgsm = fgsm(frozen, self.x, self.y, self.ball)
            x_pgd = pgd(frozen, self.x, self.y, self.ball, steps=PGD_STEPS)
        values = {
            "accuracy/held_out": accuracy(net, self.images),
            "accuracy/fgsm": self._accuracy(net, x_fgsm),
            "accuracy/pgd": self._accuracy(net, x_pgd),
        }
        yield progress.record(**values)

    @torch.no_grad()
    def _accuracy(self, net: nn.Module, x: Tensor) -> float:
        return float((net(x).argmax(1) == self.y).float().mean())


@torch.no_grad()
def accuracy(net: nn.Module, images: ImageSet) -> float:
    """The accuracy of a classifier in evaluation mode on labeled images."""
    correct, device = 0, next(net.parameters()).device
    assert images.labels is not None
    for first in range(0, len(images), BLOCK):
        x = torch.from_numpy(images.images[first : first + BLOCK]).to(device) / 255
        predicted = net(x).argmax(1).cpu()
        correct += int((predicted == torch.from_numpy(images.labels[first : first + BLOCK])).sum())
    return correct / len(images)
