"""Fitting the recipe ``auto`` to data, budget and machine: a short probe of this very device, then the rules."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rivals.base import devices
from rivals.base.spans import Span
from rivals.recipes import Config, automatic
from rivals.reports.run import Record

if TYPE_CHECKING:
    import torch

    from rivals.data.imageset import ImageSet

PROBE = 1.0  # seconds for the rounds without a penalty, after which no more are begun
ROUNDS = 12  # of those, at most
FOR_PLAY = 0.9  # the share of the time that is not spent on sheets, looks and checkpoints
_FREE = ("net", "generator_widths", "discriminator_widths")  # what, if the user says it, leaves no width to choose


@dataclass(frozen=True)
class Choice:
    """What was chosen for a run.

    Attributes:
        config: All settings.
        why: The reasons, by setting.
        speed: Images a second, as measured.
        images: That the run will see.
        memory: Bytes that the probe took at most, with all that the process holds; None where that is not known.
    """

    config: Config
    why: dict[str, str]
    speed: float
    images: float
    memory: int | None

    def written(self) -> Record:
        """What ``run.json`` keeps of it."""
        kept: Record = {"images_per_second": round(self.speed, 1), "images": round(self.images)}
        return kept | {"memory": self.memory, "why": self.why}

    def lines(self, images: ImageSet) -> list[str]:
        """What was chosen, why, and what it will take."""
        values = self.config.written()
        shown = {name: values[name] for name in self.why}
        width = max(map(len, shown))
        told = [f"auto: for {len(images):,} images of {images.size} px, --until '{self.config.until}'"]
        for name, value in shown.items():
            words = " ".join(map(str, value)) if isinstance(value, list) else str(value)
            told.append(f"  {name:<{width}}  {words} ({self.why[name]})")
        minutes = self.images / self.speed / FOR_PLAY / 60
        memory = f", {self.memory / 2**30:.1f} GB of memory" if self.memory else ""
        told.append(
            f"  about {self.images:,.0f} images, {self.images / len(images):,.1f} epochs, at {self.speed:,.0f} "
            f"images/s {minutes:,.1f} minutes{memory}"
        )
        return told


def choose(images: ImageSet, said: dict[str, Any], device: torch.device, seed: int) -> Choice:
    """Fit the recipe ``auto``.

    Args:
        images: What is to be learnt.
        said: Settings of the user, which stand whatever the rules say.
        device: Where it will be played; it is probed for about a second a width.
        seed: Of the probe's game.

    Raises:
        UserError: what was said cannot work.
    """
    facts = automatic.Facts(len(images), images.size, images.channels)
    config, why = automatic.basis(facts)
    config = config.changed(**said)
    if config.precision == "auto":
        config = config.changed(precision=devices.precision(device))
    known = automatic.budget(config, facts.n)
    seconds = Span.parse(config.until).amount * 60 * FOR_PLAY
    speed, seen = 0.0, known or 0.0
    wider = [config.changed(**automatic.widths(channels, facts)) for channels in automatic.LADDER]
    if any(name in said for name in _FREE):
        wider = [config]
    for each in wider:
        measured = probe(each, images, device, seed) if known is None else 0.0
        sees = known or measured * seconds
        # The narrowest is taken however little it sees.
        if each is not wider[0] and not automatic.enough(each.generator_widths[0], sees):
            break
        config, speed, seen = each, measured, sees
    speed = speed or probe(config, images, device, seed)
    if len(wider) > 1:
        rule = f"the widest that sees {automatic.IMAGES_A_CHANNEL:,} images for each of its first channels"
        why |= {"generator_widths": rule, "discriminator_widths": "the same, the other way round"}
    told, reasons = automatic.course(seen, facts)
    config = config.changed(**{name: value for name, value in told.items() if name not in said})
    why = {name: reason for name, reason in (why | reasons).items() if name not in said}
    return Choice(config, why, speed, seen, devices.peak_memory(device))


def probe(config: Config, images: ImageSet, device: torch.device, seed: int) -> float:
    """Images a second of a game on this device, measured on a throw-away copy of it for about a second."""
    import torch

    from rivals.api.assemble import build_game
    from rivals.data.stream import Batches

    shape = {"size": images.size, "channels": images.channels, "classes": len(images.classes)}
    game = build_game(config, **shape, device=device, seed=seed)
    batches = Batches(images, config.batch, seed=seed, flip=config.flip)
    every = config.penalty_every

    def seconds(step: int) -> float:
        start = time.perf_counter()
        game.round(step, batches, seed=seed)["loss/generator"].item()  # which waits for the device
        return time.perf_counter() - start

    with torch.random.fork_rng(), devices.enough_memory():
        seconds(0), seconds(1)  # to warm up, one of each kind
        dear = seconds(every)
        cheap: list[float] = []
        start = time.perf_counter()
        while not cheap or (len(cheap) < ROUNDS and time.perf_counter() - start < PROBE):
            cheap.append(seconds(every * (1 + len(cheap)) + 1))
    mean = (dear + (every - 1) * sorted(cheap)[len(cheap) // 2]) / every
    return game.images_a_round(batches) / mean
