"""Recipes of adversarial training: the attack, and the loss on clean and adversarial images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from rivals.base.eps import parse_eps
from rivals.base.errors import UserError
from rivals.base.registry import Registry, unknown
from rivals.base.schedules import Schedule
from rivals.recipes.base import check_range, flag
from rivals.recipes.classifiers import ClassifierConfig
from rivals.recipes.options import DENSE_NORMS

JUDGES = ("margin", "critic")


@dataclass(frozen=True)
class Method:
    """A method of adversarial training with its default settings.

    Attributes:
        paper: Its source.
        attack: steps (of PGD), free, noise, augment, generator or none.
        loss: madry, trades or mart; of certified training ibp, crown-ibp, sabr or mtl-ibp.
        steps: Steps of the attack.
        step_size: As a share of eps; None for that of its paper: 1.25 for a single step (Wong et al. 2020), 1 for a
            single step from ``nfgsm`` (de Jorge et al. 2022), 2.5 / steps for more.
        start: Where the attack starts: none, uniform, gaussian or nfgsm.
        beta: Weight of the KL divergence, if the loss has one.
        kappa: Last weight of the clean loss, or of the adversarial one (mtl-ibp), in certified training; None in any
            other.
    """

    paper: str
    attack: str
    loss: str
    steps: int = 0
    step_size: float | None = None
    start: str = "uniform"
    beta: float | None = None
    kappa: float | None = None


METHODS: Registry[Method] = Registry(
    "method",
    {
        "noise": Method("Goodfellow et al. 2015, sec. 7", "noise", "madry"),
        "augment": Method("Engstrom et al. 2019", "augment", "madry"),
        "fgsm": Method("Wong et al. 2020; with start nfgsm: de Jorge et al. 2022", "steps", "madry", 1),
        "free": Method("Shafahi et al. 2019", "free", "madry"),
        "pgd": Method("Madry et al. 2018", "steps", "madry", 10),
        "trades": Method("Zhang et al. 2019", "steps", "trades", 10, start="gaussian", beta=6.0),
        "mart": Method("Wang et al. 2020", "steps", "mart", 10, start="gaussian", beta=5.0),
        "gan": Method("Xiao et al. 2018, learning with the classifier", "generator", "madry"),
        "ibp": Method("Gowal et al. 2018; Shi et al. 2021", "none", "ibp", kappa=0.0),
        "crown-ibp": Method("Zhang et al. 2020", "none", "crown-ibp", kappa=0.0),
        "sabr": Method("Mueller et al. 2023", "steps", "sabr", 8, 0.5, kappa=0.0),
        "mtl-ibp": Method("De Palma et al. 2024", "steps", "mtl-ibp", 1, 10.0, kappa=0.5),
    },
)


@dataclass(frozen=True)
class HardenConfig(ClassifierConfig):
    """How a classifier is trained adversarially."""

    method: str = "trades"
    """noise, augment, fgsm, free, pgd, trades, mart or gan; for certificates ibp, crown-ibp, sabr or mtl-ibp."""
    norm: str = "linf"
    """Norm of the ball of the attack: linf, l2 or l1."""
    eps: str = ""
    """Radius of the ball, for images in [0, 1], such as 8/255; by default in linf 0.3 for gray images, else 8/255."""
    eps_warmup: float = 0.25
    """Fraction of the run over which eps grows from 0."""
    steps: int | None = None
    """Steps of the attack for each batch; the method's own by default."""
    step_size: float | None = None
    """Step size of the attack as a share of eps; by default 1.25 for one step, 1 from the start nfgsm, 2.5 / steps
    for more."""
    start: str | None = None
    """Where the attack starts: none (the image), uniform, gaussian or nfgsm; the method's own by default."""
    beta: float | None = None
    """Weight of the KL divergence (trades, mart); the method's own by default."""
    adversarial_weight: float = 1.0
    """Weight of the adversarial loss; that of the clean loss is 1 minus this (not for trades and mart)."""
    replays: int = 4
    """How often each batch is replayed (free only)."""
    awp: float = 0.0
    """Adversarial weight perturbation relative to the norm of each weight matrix, such as 0.005; 0 for none."""
    kappa: float | None = None
    """Last weight of the clean loss, or of the adversarial one (mtl-ibp), in certified training; the method's own by
    default."""
    eps_factor: float = 1.0
    """Certified training is at this multiple of eps, such as 1.1; certified accuracy is measured at eps."""
    small_box: float = 0.4
    """Radius of the boxes, as a fraction of eps (sabr only)."""
    ibp_regularizer: float = 0.5
    """Weight of the regularizers of certified training (Shi et al. 2021), until eps has its full value; 0 for none."""
    extra: str = ""
    """Extra labeled images in every batch: a folder, a zip, or the run of a conditional generator."""
    extra_share: float = 0.5
    """Fraction of extra images in each batch."""
    extra_teacher: str = ""
    """Label the extra images by this classifier (pseudo-labels): a run or a .safetensors file. They, or their
    generator, then need no classes."""
    extra_keep: float = 1.0
    """Fraction of the extra images that is used: the best by --extra-judge."""
    extra_judge: str = "margin"
    """What judges extra images: margin, that of --extra-teacher; or critic, the discriminator of the run of --extra."""

    def __post_init__(self) -> None:
        super().__post_init__()
        METHODS[self.method]
        if self.norm not in DENSE_NORMS:
            raise unknown("norm", self.norm, DENSE_NORMS)
        for name, least, most in (
            ("eps_warmup", 0, 1),
            ("adversarial_weight", 0.01, 1),
            ("replays", 1, 100),
            ("awp", 0, 1),
            ("extra_share", 0.01, 0.99),
            ("extra_keep", 0.05, 1),
            ("eps_factor", 0.1, 10),
            ("small_box", 0.01, 1),
            ("ibp_regularizer", 0, 100),
        ):
            check_range(self, name, least, most)
        if self.eps and parse_eps(self.eps) == 0:
            raise UserError("an eps of 0 is not an attack: give one above 0, such as 8/255")
        method = METHODS[self.method]
        for name in ("steps", "step_size", "start"):
            if getattr(self, name) is not None and method.attack != "steps":
                raise UserError(f"{flag(name)} has no meaning for the method {self.method}: leave it out")
        if self.extra_share != HardenConfig.extra_share and not self.extra:
            raise UserError("--extra-share has no meaning without --extra: name the extra images, or leave it out")
        if self.extra_teacher and not self.extra:
            raise UserError("--extra-teacher has no meaning without --extra: name the extra images, or leave it out")
        if self.extra_judge not in JUDGES:
            raise unknown("judge of extra images", self.extra_judge, JUDGES)
        if self.extra_judge == "critic" and not self.extra:
            raise UserError("--extra-judge has no meaning without --extra: name the run of a GAN, or leave it out")
        if self.extra_judge == "critic" and self.extra_keep == 1:
            raise UserError("--extra-judge has no meaning where all images are kept: add --extra-keep, such as 0.5")
        if self.extra_keep != 1 and self.extra_judge == "margin" and not self.extra_teacher:
            raise UserError(
                "--extra-keep needs the margins of a classifier: add --extra-teacher, or --extra-judge critic"
            )
        if self.steps is not None and self.steps < 1:
            raise UserError(f"--steps {self.steps} is not an attack: take 1 or more")
        if self.beta is not None and method.beta is None:
            raise UserError(f"--beta has no meaning for the method {self.method}: leave it out")
        if self.adversarial_weight != 1 and method.loss != "madry":
            other = "--beta" if method.kappa is None else "--kappa"
            raise UserError(
                f"--adversarial-weight has no meaning for the method {self.method}, which has {other}: leave it out"
            )
        if self.label_smoothing and method.loss == "mart":
            raise UserError("--label-smoothing has no meaning for the method mart: leave it out")
        if self.replays != HardenConfig.replays and method.attack != "free":
            raise UserError(f"--replays has no meaning for the method {self.method}, only for free: leave it out")
        self._check_certified(method)
        if self.awp and method.attack == "generator":
            raise UserError("--awp cannot be combined with the method gan, whose other player learns: leave one out")
        if self.awp and method.attack == "free":
            raise UserError(
                "--awp cannot be combined with the method free, whose attack shares its backward pass: leave one out"
            )

    def _check_certified(self, method: Method) -> None:
        """Refuse settings that certified training has not, or that it alone has."""
        if method.kappa is None:
            for name in ("kappa", "eps_factor", "small_box", "ibp_regularizer"):
                if getattr(self, name) != getattr(HardenConfig, name):
                    raise UserError(
                        f"{flag(name)} has no meaning for the method {self.method}, which proves nothing: leave it out"
                    )
            return
        if self.small_box != HardenConfig.small_box and method.loss != "sabr":
            raise UserError(f"--small-box has no meaning for the method {self.method}, only for sabr: leave it out")
        if self.kappa is not None:
            check_range(self, "kappa", 0, 0.99)
        for name in ("awp", "label_smoothing", "flip_tta"):
            if getattr(self, name):
                raise UserError(f"{flag(name)} cannot be combined with the method {self.method}: leave one out")
        if self.norm == "l1" or (self.norm != "linf" and method.loss in ("sabr", "crown-ibp")):
            raise UserError(f"--norm {self.norm} has no bounds for the method {self.method}: take linf")

    @property
    def certified(self) -> bool:
        """Whether the method trains for certificates."""
        return METHODS[self.method].kappa is not None

    @property
    def resolved(self) -> Method:
        """The method with the settings that override its defaults."""
        given = {name: getattr(self, name) for name in ("steps", "step_size", "start", "beta", "kappa")}
        method = dataclasses.replace(
            METHODS[self.method], **{name: value for name, value in given.items() if value is not None}
        )
        if method.step_size is None and method.steps:
            single = 1.0 if method.start == "nfgsm" else 1.25
            method = dataclasses.replace(method, step_size=single if method.steps == 1 else 2.5 / method.steps)
        return method

    def changed(self, **settings: Any) -> Self:
        """As :meth:`Settings.changed`; another method resets the settings that belong to the one before."""
        if settings.get("method", self.method) != self.method:
            settings = {
                "steps": None,
                "step_size": None,
                "start": None,
                "beta": None,
                "kappa": None,
                "adversarial_weight": 1.0,
                "replays": HardenConfig.replays,
                **{name: getattr(HardenConfig, name) for name in ("eps_factor", "small_box", "ibp_regularizer")},
            } | settings
        return super().changed(**settings)


def cnn() -> HardenConfig:
    """For small gray images, such as MNIST's: the highest robust accuracy there in equal time."""
    return HardenConfig(
        method="pgd",
        steps=7,
        step_size=0.3,
        optimizer="muon",
        lr=3e-3,
        ema=Schedule.parse("20k"),
        until="20 epochs",
    )


def resnet() -> HardenConfig:
    """For small color images, such as CIFAR-10's: N-FGSM, whose single step allows many epochs."""
    return HardenConfig(
        net="resnet",
        flip=True,
        shift=4,
        method="fgsm",
        start="nfgsm",
        optimizer="muon",
        lr=3e-3,
        weight_decay=0.05,
        ema=Schedule.parse("20k"),
        until="20 epochs",
    )


def certified() -> HardenConfig:
    """For certificates: interval bounds, and a network with strides and batch norm, whose bounds stay tight."""
    return HardenConfig(
        net="strided",
        method="ibp",
        eps_warmup=0.4,
        optimizer="muon",
        lr=1.5e-2,
        clip=10.0,
        weight_decay=0.0,
        until="20 epochs",
    )


HARDENING: Registry[Callable[[], HardenConfig]] = Registry(
    "recipe", {"cnn": cnn, "resnet": resnet, "certified": certified}
)
