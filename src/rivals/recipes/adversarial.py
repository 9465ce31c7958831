"""Adversarial training: a classifier, the attack it learns against, and the loss that weighs the two."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from rivals.base.errors import UserError
from rivals.base.fractions import radius
from rivals.base.registry import Registry, unknown
from rivals.base.schedules import Schedule
from rivals.recipes.classifiers import ClassifierConfig
from rivals.recipes.settings import check_range, flag

NORMS = ("linf", "l2", "l1")


@dataclass(frozen=True)
class Method:
    """What a method of adversarial training is, where nothing else is asked for.

    Attributes:
        paper: Where it comes from.
        attack: steps (up the gradient), free, noise or augment.
        loss: madry, trades or mart.
        steps: Gradients an attack takes.
        step: The length of a step as a share of eps; None for 2.5 / steps.
        start: Where the attack starts: image, anywhere, nearby or beyond.
        beta: The weight of the divergence, where the loss has one.
    """

    paper: str
    attack: str
    loss: str
    steps: int = 0
    step: float | None = None
    start: str = "anywhere"
    beta: float | None = None


METHODS: Registry[Method] = Registry(
    "method",
    {
        "noise": Method("Goodfellow et al. 2015, sec. 7", "noise", "madry"),
        "augment": Method("Engstrom et al. 2019", "augment", "madry"),
        "fgsm": Method("Wong et al. 2020; from beyond: de Jorge et al. 2022", "steps", "madry", 1, 1.25),
        "free": Method("Shafahi et al. 2019", "free", "madry"),
        "pgd": Method("Madry et al. 2018", "steps", "madry", 10),
        "trades": Method("Zhang et al. 2019", "steps", "trades", 10, start="nearby", beta=6.0),
        "mart": Method("Wang et al. 2020", "steps", "mart", 10, start="nearby", beta=5.0),
    },
)


@dataclass(frozen=True)
class HardenConfig(ClassifierConfig):
    """Everything that decides how a classifier is hardened."""

    method: str = "trades"
    """noise, augment, fgsm, free, pgd, trades or mart."""
    norm: str = "linf"
    """Norm of the ball that the attack searches: linf, l2 or l1."""
    eps: str = ""
    """Radius of the ball, as 0.3 or 8/255, for images in [0, 1]; linf has 0.3 for grey images and 8/255 for others."""
    ramp: float = 0.25
    """Share of the run over which the radius grows from 0."""
    steps: int | None = None
    """Gradients the attack takes for each batch; the method's own if none is given."""
    step: float | None = None
    """Length of a step as a share of eps; the method's own if none is given."""
    start: str | None = None
    """Where the attack starts: image, anywhere, nearby or beyond (N-FGSM); the method's own if none is given."""
    beta: float | None = None
    """Weight of the divergence (trades, mart); the method's own if none is given."""
    mix: float = 1.0
    """Share of the loss that attacked images have; the rest is the plain images' (not for trades and mart)."""
    replays: int = 4
    """How often a batch is played in a row (free only)."""
    awp: float = 0.0
    """Adversarial weight perturbation, as a share of each weight matrix's length, as 0.005; 0 for none."""
    weights: str = ""
    """Start from this classifier: a .safetensors file or a run."""
    extra: str = ""
    """Extra images with classes, mixed into every batch: a folder, a zip, or the run of a conditional generator."""
    extra_share: float = 0.5
    """Share of each batch that extra images have."""

    def __post_init__(self) -> None:
        super().__post_init__()
        METHODS[self.method]
        if self.norm not in NORMS:
            raise unknown("norm", self.norm, NORMS)
        for name, least, most in (
            ("ramp", 0, 1),
            ("mix", 0.01, 1),
            ("replays", 1, 100),
            ("awp", 0, 1),
            ("extra_share", 0.01, 0.99),
        ):
            check_range(self, name, least, most)
        if self.eps and radius(self.eps) == 0:
            raise UserError("an eps of 0 leaves nothing to harden against: give one above 0, as 8/255")
        known = METHODS[self.method]
        for name in ("steps", "step", "start"):
            if getattr(self, name) is not None and known.attack != "steps":
                raise UserError(f"{flag(name)} has no meaning for the method {self.method}: leave it out")
        if self.extra_share != HardenConfig.extra_share and not self.extra:
            raise UserError("--extra-share has no meaning without --extra: name the extra images, or leave it out")
        if self.steps is not None and self.steps < 1:
            raise UserError(f"--steps {self.steps} makes no attack: take 1 or more")
        if self.beta is not None and known.beta is None:
            raise UserError(f"--beta has no meaning for the method {self.method}: leave it out")
        if self.mix != 1 and known.loss != "madry":
            raise UserError(f"--mix has no meaning for the method {self.method}, which weighs by --beta: leave it out")
        if self.awp and known.attack == "free":
            raise UserError("--awp does not go with the method free, whose attack lives off the same backward pass")

    @property
    def resolved(self) -> Method:
        """The method with what was asked of it."""
        asked = {name: getattr(self, name) for name in ("steps", "step", "start", "beta")}
        known = dataclasses.replace(
            METHODS[self.method], **{name: value for name, value in asked.items() if value is not None}
        )
        if known.step is None and known.steps:
            known = dataclasses.replace(known, step=2.5 / known.steps)
        return known

    def changed(self, **settings: Any) -> Self:
        """As :meth:`Settings.changed`; another method forgets what the one before was told."""
        if settings.get("method", self.method) != self.method:
            settings = {"steps": None, "step": None, "start": None, "beta": None, "mix": 1.0} | settings
        return super().changed(**settings)


def cnn() -> HardenConfig:
    """For small grey images, as MNIST's: what stood best there after equal minutes."""
    return HardenConfig(
        method="pgd",
        steps=7,
        step=0.3,
        optimizer="muon",
        lr=3e-3,
        ema=Schedule.parse("20k"),
        until="20 epochs",
    )


def resnet() -> HardenConfig:
    """For small colour images, as CIFAR-10's: one step from beyond the ball (N-FGSM), so many epochs."""
    return HardenConfig(
        net="resnet",
        flip=True,
        shift=4,
        method="fgsm",
        start="beyond",
        optimizer="muon",
        lr=3e-3,
        weight_decay=0.05,
        ema=Schedule.parse("20k"),
        until="20 epochs",
    )


HARDENING: Registry[Callable[[], HardenConfig]] = Registry("recipe", {"cnn": cnn, "resnet": resnet})
